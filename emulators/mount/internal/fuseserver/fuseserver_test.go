package fuseserver

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
	"github.com/callgate/callgate/pkg/tracee"
)

// TestServe: what the container's root writes is its own, in the mount and in
// the image, and the mount goes when the container unmounts it.
func TestServe(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	c := startContainer(t)
	path := image(t)
	began := time.Now()
	s := start(t, c.config(t, path, "fuse2fs"))
	t.Logf("Start took %v; warning: %q", time.Since(began), s.Warning)
	c.attach(t, s.Tree())
	c.do(t, "echo hello > /mnt/file && chmod 640 /mnt/file && cat /mnt/file", "hello")
	c.do(t, "stat -c %u:%g:%a /mnt/file", "0:0:640")
	c.do(t, "grep ' /mnt ' /proc/self/mounts | tail -1 | cut -d' ' -f1,3", "fuse2fs fuse.fuse2fs")
	c.do(t, "grep ' /mnt ' /proc/self/mounts | tail -1 | grep -c nosuid,nodev", "1")
	if out, err := c.run(t, 1000, "cat /mnt/file"); err == nil {
		t.Error("another user of the container reads it:", out)
	}
	c.do(t, "umount /mnt", "")
	ended(t, s)
	out, err := exec.Command("debugfs", "-R", "stat /file", path).Output()
	if err != nil || !strings.Contains(string(out), "User:     0   Group:     0") {
		t.Errorf("in the image: %v\n%s", err, out)
	}
	out, err = exec.Command("e2fsck", "-fn", path).CombinedOutput()
	if err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
}

// TestReadOnly: the image is not changed.
func TestReadOnly(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	c := startContainer(t)
	config := c.config(t, image(t), "fuse2fs")
	config.ReadOnly = true
	s := start(t, config)
	c.attach(t, s.Tree())
	if out, err := c.run(t, 0, "touch /mnt/file"); err == nil || !strings.Contains(out, "Read-only") {
		t.Errorf("touch: %v, %s", err, out)
	}
}

// TestPIDAgent: without a pid namespace of the container the program is below
// the agent's, and all else is the same.
func TestPIDAgent(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	c := startContainer(t)
	config := c.config(t, image(t), "fuse2fs")
	config.PID, config.Net, config.IPC, config.UTS = nil, nil, nil, nil
	s := start(t, config)
	c.attach(t, s.Tree())
	c.do(t, "ls /mnt", "lost+found")
	c.kill()
	c.mounts.Close() // with it the mount goes
	ended(t, s)
}

// TestConfined looks at the program from outside.
func TestConfined(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	c := startContainer(t)
	s := start(t, c.config(t, image(t), "fuse2fs"))
	c.attach(t, s.Tree())
	pid := s.program(t, "fuse2fs")
	status := read(t, "/proc/%d/status", pid)
	for _, want := range []string{
		"Seccomp:\t2\n", "NoNewPrivs:\t1\n", "Groups:\t \n", "Uid:\t100000\t100000\t100000\t100000\n", "Gid:\t100000\t100000\t100000\t100000\n",
		"CapInh:\t0000000000000000\n", "CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n", "CapAmb:\t0000000000000000\n",
	} {
		if !strings.Contains(status, want) {
			t.Errorf("status has no %q:\n%s", want, status)
		}
	}
	if got := strings.Fields(read(t, "/proc/%d/uid_map", pid)); strings.Join(got, " ") != "0 100000 65536" {
		t.Errorf("uid_map %v", got)
	}
	if got := read(t, "/proc/%d/environ", pid); strings.Count(got, "\x00") != 3 {
		t.Errorf("environment %q", got)
	}
	for _, name := range []string{"user", "net", "ipc", "uts"} {
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", c.pid, name))
		must(t, err)
		if got, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, name)); got != theirs {
			t.Errorf("%s namespace %s, container's %s", name, got, theirs)
		}
	}
	// NSpid: here, in the container, and its own.
	if !strings.Contains(status, "\nNSpid:") || len(strings.Fields(strings.SplitN(strings.SplitN(status, "NSpid:", 2)[1], "\n", 2)[0])) != 3 {
		t.Errorf("not in a pid namespace below the container's:\n%s", status)
	}
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/root", pid))
	must(t, err)
	for _, entry := range names {
		switch entry.Name() {
		case "usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "libo32", "etc", "dev", "mnt", "image", "program", "callgate":
		default:
			t.Errorf("in its root: %s", entry.Name())
		}
	}
	for fd, target := range descriptors(t, pid) {
		switch {
		case target == "/dev/null", strings.HasPrefix(target, "pipe:"), target == "/dev/fuse", target == "/image", strings.HasPrefix(target, "socket:") && fd != "3":
		default:
			t.Errorf("descriptor %s: %s", fd, target)
		}
	}
	// Nor can the container get at the image by way of any of these processes.
	for _, pid := range s.pids(t) {
		_, inner, _ := strings.Cut(read(t, "/proc/%d/status", pid), "NSpid:")
		inner = strings.Fields(inner)[1]
		for _, what := range []string{"ls -l $p/fd/", "ls $p/root/", "head -c1 $p/mem", "cat $p/environ"} {
			out, err := c.run(t, 0, "mount -t proc proc /proc && p=/proc/"+inner+" && test -e $p/stat && "+what)
			if err == nil || !strings.Contains(out, "ermission denied") {
				t.Errorf("%s of %s from the container: %v, %s", what, inner, err, out)
			}
		}
	}
}

func descriptors(tb testing.TB, pid int) map[string]string {
	tb.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	must(tb, err)
	all := make(map[string]string)
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			all[e.Name()] = target
		}
	}
	return all
}

// script is a program of the host that never serves; what it prints is in the
// error.
func script(tb testing.TB, text string) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "hostile")
	must(tb, os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755))
	return path
}

// TestHostile: what a program that was taken over can reach.
func TestHostile(t *testing.T) {
	notifytest.NeedRoot(t)
	need(t, "busybox")
	notifytest.NoLeak(t)
	c := startContainer(t)
	path := image(t)
	for name, test := range map[string]struct{ command, want string }{
		"shadow":      {"cat /etc/shadow", "No such file"},
		"passwd":      {"cat /etc/passwd", "No such file"},
		"proc":        {"ls /proc/self", "No such file"},
		"mount proc":  {"busybox mount -t proc proc /mnt", "permission denied"},
		"mount tmpfs": {"busybox mount -t tmpfs tmpfs /mnt", "permission denied"},
		"umount":      {"busybox umount /usr", "not permitted"},
		"rename":      {"mv /image /mnt/x", "not permitted"},
		"write":       {"echo x > /mnt/x", "Read-only"},
		"write usr":   {"echo x > /usr/x", "Read-only"},
		"write prog":  {"echo x > $0", "Read-only"},
		"unshare":     {"unshare -U true", "not permitted"},
		"chroot":      {"busybox chroot /mnt /bin/true", "not permitted"},
		"device":      {"busybox mknod /mnt/sda b 8 0", "not permitted"},
		"chmod":       {"chmod 666 /image", "not permitted"},
		"socket":      {"busybox nc 127.0.0.1 80", "not permitted"},
		"hostname":    {"hostname x", "must be root"},
		"time":        {"date -s 2020-01-01", "not permitted"},
		"init":        {"kill -9 1; echo still here", "still here"},
		"fd":          {"cat <&4", "ad file descriptor"},
	} {
		t.Run(name, func(t *testing.T) {
			config := c.config(t, path, script(t, test.command))
			_, err := Start(t.Context(), config)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
			gone(t, config.Cgroup)
		})
	}
}

// TestCalls: a binary asks the kernel itself.
func TestCalls(t *testing.T) {
	notifytest.NeedRoot(t)
	need(t, "cc")
	notifytest.NoLeak(t)
	c := startContainer(t)
	path := image(t)
	program := filepath.Join(t.TempDir(), "hostile")
	if out, err := exec.Command("cc", "-o", program, "testdata/hostile.c").CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	// An agent that was started with descriptors to inherit passes none on.
	leak, err := unix.Dup(0)
	must(t, err)
	defer unix.Close(leak)
	_, err = Start(t.Context(), c.config(t, path, program))
	if err == nil || !strings.HasSuffix(err.Error(), ": exit status 0: as it should be") {
		t.Error(err)
	}
}

// TestFails: nothing is left, and the error says why.
func TestFails(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	c := startContainer(t)
	good := image(t)
	bad := filepath.Join(t.TempDir(), "bad")
	must(t, os.WriteFile(bad, make([]byte, 1<<20), 0o644))
	must(t, os.Chown(bad, hostID, hostID))
	plain := filepath.Join(t.TempDir(), "plain")
	must(t, os.WriteFile(plain, []byte("no program"), 0o755))
	self, err := unix.Open("/proc/self/ns/user", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	own := tracee.NewHandle(self)
	defer own.Close()
	for name, test := range map[string]struct {
		image   string
		program []string
		change  func(*Config)
		want    string
	}{
		"corrupt":      {bad, []string{"fuse2fs"}, nil, "Bad magic number in super-block"},
		"absent":       {good, []string{"no-such-fuse"}, nil, "executable file not found"},
		"absent path":  {good, []string{"/no/such/fuse"}, nil, "no such file"},
		"no binary":    {good, []string{plain}, nil, "exec format error"},
		"exits":        {good, []string{"false"}, nil, "exit status 1"},
		"ends well":    {good, []string{"true"}, nil, "exit status 0"},
		"never serves": {good, []string{script(t, "echo waiting; sleep 100")}, func(c *Config) { c.Ready = time.Second }, "does not serve after 1s: waiting"},
		"killed":       {good, []string{script(t, "kill -9 $$")}, nil, "exit status 137"},
		"forks":        {good, []string{script(t, "sleep 100 & sleep 100 & exit 3")}, nil, "exit status 3"},
		"talks":        {good, []string{script(t, "yes | head -c 100000; echo last; exit 1")}, nil, "last"},
		"option":       {good, []string{"fuse2fs"}, func(c *Config) { c.Options = []string{"a,dev"} }, `"a,dev"`},
		"bad option":   {good, []string{"fuse2fs"}, func(c *Config) { c.Options = []string{"nonsense"} }, "nonsense"},
		"own user":     {good, []string{"fuse2fs"}, func(c *Config) { c.User = &own }, "enter user namespace"},
		"no source":    {good, []string{"fuse2fs"}, func(c *Config) { c.Source = nil }, "source"},
		"launcher":     {good, []string{"fuse2fs"}, func(c *Config) { c.Launcher = []string{"/no/such"} }, "launcher"},
	} {
		t.Run(name, func(t *testing.T) {
			config := c.config(t, test.image, test.program...)
			if test.change != nil {
				test.change(&config)
			}
			s, err := Start(t.Context(), config)
			if s != nil || err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
			if err != nil && len(err.Error()) > maxTail+500 {
				t.Errorf("error of %d bytes", len(err.Error()))
			}
			gone(t, config.Cgroup)
		})
	}
}

// TestCancelled: Start gives up when its caller does.
func TestCancelled(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	c := startContainer(t)
	config := c.config(t, image(t), script(t, "sleep 100"))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Start(ctx, config); err == nil || !strings.Contains(err.Error(), context.DeadlineExceeded.Error()) {
		t.Errorf("error %v", err)
	}
	gone(t, config.Cgroup)
}

// TestEnds: every way in which the mount goes is the program's end.
func TestEnds(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	path := image(t)
	for name, end := range map[string]func(t *testing.T, c *container, s *Server){
		"never attached": func(_ *testing.T, _ *container, s *Server) { tree := s.Tree(); tree.Close() },
		"Stop":           func(_ *testing.T, _ *container, s *Server) { s.Stop(); s.Stop(); tree := s.Tree(); tree.Close() },
		"container":      func(t *testing.T, c *container, s *Server) { c.attach(t, s.Tree()); c.kill() },
		"umount":         func(t *testing.T, c *container, s *Server) { c.attach(t, s.Tree()); c.do(t, "umount /mnt", "") },
		"lazy umount":    func(t *testing.T, c *container, s *Server) { c.attach(t, s.Tree()); c.do(t, "umount -l /mnt", "") },
		"killed": func(t *testing.T, c *container, s *Server) {
			c.attach(t, s.Tree())
			must(t, unix.Kill(s.program(t, "fuse2fs"), unix.SIGKILL))
			ended(t, s)
			if out, err := c.run(t, 0, "ls /mnt"); err == nil || !strings.Contains(out, "not connected") {
				t.Errorf("ls: %v, %s", err, out)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := startContainer(t)
			s := start(t, c.config(t, path, "fuse2fs"))
			end(t, c, s)
			ended(t, s)
		})
	}
}

const outliveEnv = "CALLGATE_TEST_OUTLIVE"

// TestOutlive: when the agent ends, the mount stays, and goes later as ever.
func TestOutlive(t *testing.T) {
	notifytest.NeedRoot(t)
	if args := strings.Fields(os.Getenv(outliveEnv)); len(args) == 2 {
		agentThatEnds(t, args)
	}
	notifytest.NoLeak(t)
	c := startContainer(t)
	path, name := image(t), "callgate-fuse-outlive"
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestOutlive$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", outliveEnv, c.pid, path), launcherEnv+"="+callgate(t)[0])
	out, err := cmd.CombinedOutput()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != unix.SIGTERM {
		t.Fatalf("%v\n%s", err, out)
	}
	c.do(t, "echo hello > /mnt/file && cat /mnt/file", "hello")
	if g, err := makeCgroup(name); err == nil {
		t.Error("the cgroup was not in use")
		g.remove()
	}
	c.do(t, "umount /mnt", "")
	for range 100 {
		if g, err := makeCgroup(name); err == nil { // the next agent's
			g.remove()
			gone(t, name)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Error("the program lives on")
}

func agentThatEnds(t *testing.T, args []string) {
	pid, err := strconv.Atoi(args[0])
	must(t, err)
	var c container
	c.open(t, pid)
	config := c.config(t, args[1], "fuse2fs")
	config.Cgroup = "callgate-fuse-outlive"
	s, err := Start(t.Context(), config)
	must(t, err)
	c.attach(t, s.Tree())
	must(t, unix.Kill(os.Getpid(), unix.SIGTERM))
	select {}
}

// TestDevice: the image is a block device.
func TestDevice(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	need(t, "losetup")
	c := startContainer(t)
	out, err := exec.Command("losetup", "-f", "--show", image(t)).Output()
	if err != nil {
		unavailable(t, fmt.Sprint("a loop device: ", err))
	}
	loop := strings.TrimSpace(string(out))
	defer exec.Command("losetup", "-d", loop).Run()
	var st unix.Stat_t
	must(t, unix.Stat(loop, &st))
	node := filepath.Join(t.TempDir(), "node")
	must(t, unix.Mknod(node, unix.S_IFBLK|0o600, int(st.Rdev)))
	must(t, os.Chown(node, hostID, hostID))
	s := start(t, c.config(t, node, "fuse2fs"))
	c.attach(t, s.Tree())
	c.do(t, "echo hello > /mnt/file && cat /mnt/file && umount /mnt", "hello")
	ended(t, s)
}

// TestStubborn: a program that does not care that its mount is gone.
func TestStubborn(t *testing.T) {
	notifytest.NeedRoot(t)
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	notifytest.NoLeak(t)
	c := startContainer(t)
	s := start(t, c.config(t, image(t), script(t, "fuse2fs \"$@\"; sleep 1000")))
	tree := s.Tree()
	tree.Close()
	began := time.Now()
	select {
	case <-s.Done():
		t.Logf("ended after %v", time.Since(began))
	case <-time.After(60 * time.Second):
		t.Error("it lives on")
	}
}

func BenchmarkStart(b *testing.B) {
	notifytest.NeedRoot(b)
	c := startContainer(b)
	path := image(b)
	callgate(b)
	for b.Loop() {
		s, err := Start(b.Context(), c.config(b, path, "fuse2fs"))
		must(b, err)
		b.StopTimer()
		tree := s.Tree()
		tree.Close()
		<-s.Done()
		b.StartTimer()
	}
}
