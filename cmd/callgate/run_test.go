package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

// container is callgate run, after which the host must be as it was.
func container(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	notifytest.NeedRoot(t)
	if _, err := exec.LookPath("busybox"); err != nil {
		if os.Getenv("CALLGATE_TEST_REQUIRE") == "all" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	cmd := callgate(t, append([]string{"run"}, args...)...)
	before := mounts(t)
	tmp := cmd.Env[2][len("TMPDIR="):]
	t.Cleanup(func() {
		if now := mounts(t); now != before {
			t.Errorf("mounts before:\n%s\nand after:\n%s", before, now)
		}
		if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
			t.Errorf("left in the temporary folder: %v, %v", left, err)
		}
	})
	return cmd
}

func mounts(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	return string(text)
}

func TestRunStatus(t *testing.T) {
	for command, want := range map[string]int{"true": 0, "false": 1, "exit 42": 42, "exit 255": 255, "sh -c 'kill -9 $$'": 137} {
		t.Run(command, func(t *testing.T) {
			r := try(t, container(t, "--", "sh", "-c", command+"; exit $?"))
			if r.status != want || strings.Contains(r.err, "callgate") {
				t.Errorf("status %d, want %d\n%s", r.status, want, r.err)
			}
		})
	}
}

// TestRun: the container is what it says, and its agent works.
func TestRun(t *testing.T) {
	out := try(t, container(t, "--", "sh", "-c",
		`id -u; cat /proc/self/uid_map; echo $$; hostname; mknod /tmp/null c 1 3 && echo x > /tmp/null && stat -c %t:%T /tmp/null; mknod /tmp/sda b 8 0; cat`))
	cmd := container(t, "cat") // standard input is passed on, and "--" is no must
	cmd.Stdin = strings.NewReader("through\n")
	if got := try(t, cmd).fine(t); got != "through\n" {
		t.Errorf("cat gave %q", got)
	}
	fields := strings.Fields(out.out)
	if got, want := strings.Join(fields, " "), "0 0 100000 65536 1 callgate 1:3"; got != want {
		t.Errorf("inside: %q, want %q", got, want)
	}
	if out.status != 0 || !strings.Contains(out.err, "/tmp/sda: Operation not permitted") {
		t.Errorf("status %d, stderr: %s", out.status, out.err)
	}
}

// TestRunSignals: signals are passed on; one that ends the container is the
// status.
func TestRunSignals(t *testing.T) {
	start := func(t *testing.T, command string) (*exec.Cmd, int) {
		t.Helper()
		cmd := container(t, "--", "sh", "-c", command)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		var word string
		if _, err := fmt.Fscan(out, &word); err != nil {
			t.Fatal(err)
		}
		return cmd, child(t, cmd.Process.Pid)
	}
	t.Run("passed on", func(t *testing.T) {
		cmd, _ := start(t, `trap "exit 7" TERM; echo ready; while :; do sleep 0.05; done`)
		must(t, cmd.Process.Signal(syscall.SIGTERM))
		_ = cmd.Wait()
		if got := cmd.ProcessState.ExitCode(); got != 7 {
			t.Errorf("status %d, want 7", got)
		}
	})
	t.Run("killed", func(t *testing.T) {
		cmd, first := start(t, `echo ready; sleep 100; true`)
		must(t, unix.Kill(first, unix.SIGKILL))
		_ = cmd.Wait()
		if got := cmd.ProcessState.ExitCode(); got != 128+9 {
			t.Errorf("status %d, want %d", got, 128+9)
		}
	})
}

// child finds a process's only child.
func child(t *testing.T, pid int) int {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	must(t, err)
	for _, path := range all {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // gone
		}
		// pid (comm) state ppid …: proc_pid_stat(5)
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if fields[1] == strconv.Itoa(pid) {
			n, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			must(t, err)
			return n
		}
	}
	t.Fatal("no child")
	return 0
}

func TestRunFails(t *testing.T) {
	plain := file(t, "plain", "")
	config := file(t, "c.yaml", "profiles: {builder: {}}")
	for name, test := range map[string]struct {
		args []string
		want []string
	}{
		"no such command": {[]string{"--", "nope"}, []string{`"nope"`, "not found"}},
		"no such path":    {[]string{"--", "/nope"}, []string{"/nope", "no such file"}},
		"no program":      {[]string{"--", "/etc/passwd"}, []string{"/etc/passwd", "permission denied"}},
		"no such rootfs":  {[]string{"--rootfs", "/nowhere", "--", "true"}, []string{"root filesystem", "/nowhere", "no such file"}},
		"rootfs is none":  {[]string{"--rootfs", plain, "--", "true"}, []string{"root filesystem", plain, "no directory"}},
		"empty rootfs":    {[]string{"--rootfs", t.TempDir(), "--", "true"}, []string{`"true"`, "not found"}},
		"no such profile": {[]string{"--config", config, "--profile", "bilder", "--", "true"}, []string{"bilder", "builder"}},
		"no config":       {[]string{"--config", "/nowhere.yaml", "--", "true"}, []string{"/nowhere.yaml", "no such file"}},
		"bad config":      {[]string{"--config", plain + "/x", "--", "true"}, []string{plain, "not a directory"}},
	} {
		t.Run(name, func(t *testing.T) {
			try(t, container(t, test.args...)).fails(t, test.want...)
		})
	}
}

func TestRunWithoutBusybox(t *testing.T) {
	cmd := container(t, "--", "true")
	cmd.Env[1] = "PATH=/nowhere"
	try(t, cmd).fails(t, "busybox", "--rootfs")
}

func TestRunWithoutRoot(t *testing.T) {
	cmd := container(t, "--", "true")
	self, err := os.Open("/proc/self/exe")
	must(t, err)
	defer self.Close()
	cmd.ExtraFiles = []*os.File{self}
	cmd.Path = "/proc/self/fd/3" // the path itself is root's
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	try(t, cmd).fails(t, "only root")
}
