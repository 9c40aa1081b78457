package hostile

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/integration/internal/need"
)

// TestRunRootfs: what a container of `callgate run` makes in its root
// filesystem belongs to the host's root on disk; nobody on the host may reach
// a setuid program or a device of it.
func TestRunRootfs(t *testing.T) {
	need.Root(t)
	need.Program(t, "busybox")
	callgate, err := shared.callgate()
	if err != nil {
		t.Fatal(err)
	}
	before, _ := filepath.Glob(filepath.Join(os.TempDir(), "callgate-run-*"))
	cmd := exec.Command(callgate, "run", "--", "/bin/sh", "-c",
		"cp /bin/busybox /evil && chmod 4755 /evil && chmod 777 / && echo ready && sleep 3")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	var buf [16]byte
	if n, err := out.Read(buf[:]); err != nil || !strings.HasPrefix(string(buf[:n]), "ready") {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	now, _ := filepath.Glob(filepath.Join(os.TempDir(), "callgate-run-*"))
	if len(now) <= len(before) {
		t.Error("no root filesystem found: has the place changed?")
	}
	reached := make(chan string)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is nobody now
		_, _, _ = syscall.RawSyscall(syscall.SYS_SETGROUPS, 0, 0, 0)
		_ = unix.Setfsuid(65534)
		found := ""
		for _, dir := range now {
			for _, path := range []string{dir + "/evil", dir + "/rootfs/evil", dir + "/bin/busybox"} {
				var st unix.Stat_t
				if unix.Stat(path, &st) == nil {
					found = path
				}
			}
		}
		reached <- found
	}()
	if path := <-reached; path != "" {
		t.Errorf("a user of the host reaches %s, which the container made", path)
	}
}

// TestRunKeyring: the container has a session keyring of its own, not the
// operator's with what is in it.
func TestRunKeyring(t *testing.T) {
	need.Root(t)
	need.Program(t, "gcc", "busybox")
	callgate, err := shared.callgate()
	if err != nil {
		t.Fatal(err)
	}
	attack, err := shared.attack()
	if err != nil {
		t.Fatal(err)
	}
	rootfs := filepath.Join(shared.dir, "keyring")
	for _, dir := range []string{"bin", "dev", "proc", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(rootfs, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(attack)
	if err == nil {
		err = os.WriteFile(filepath.Join(rootfs, "bin/attack"), text, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string)
	go func() {
		runtime.LockOSThread() // the keyring is the thread's
		if _, _, errno := syscall.RawSyscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0); errno != 0 {
			got <- "no keyring: " + errno.Error()
			return
		}
		if _, err := unix.AddKey("user", "operators", []byte("secret"), unix.KEY_SPEC_SESSION_KEYRING); err != nil {
			got <- "no key: " + err.Error()
			return
		}
		cmd := exec.Command(callgate, "run", "--rootfs", rootfs, "--", "/bin/attack", "keyring")
		timer := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		out, err := cmd.CombinedOutput()
		timer.Stop()
		if err != nil {
			out = append(out, err.Error()...)
		}
		got <- string(out)
	}()
	out := <-got
	t.Log(out)
	if strings.Contains(out, "operators") || !strings.Contains(out, "DONE") {
		t.Errorf("the container sees the operator's keys:\n%s", out)
	}
}
