package anchor

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/pidfd"
	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
	"github.com/callgate/callgate/pkg/tracee"
)

const (
	roleEnv = "CALLGATE_ANCHOR_TEST_ROLE"
	nested  = syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID
)

// TestMain is a process of a container's where a test started it: its role is
// a list of clone flags, of a child of its own with the rest of the list.
func TestMain(m *testing.M) {
	role, given := os.LookupEnv(roleEnv)
	if !given {
		notifytest.Main(m)
	}
	if first, rest, more := strings.Cut(role, " "); more {
		var flags uintptr
		_, err := fmt.Sscan(first, &flags)
		check(err)
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), roleEnv+"="+rest)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		check(cmd.Start())
	} else {
		fmt.Println("there") // the last of them
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends
	os.Exit(0)
}

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// start runs a command until the test ends, and waits for the last process of
// its role. It returns the pid of the first.
func start(t *testing.T, cmd *exec.Cmd, roles ...uintptr) int {
	t.Helper()
	notifytest.NeedRoot(t)
	role := ""
	for _, flags := range roles {
		role += fmt.Sprint(flags) + " "
	}
	cmd.Env = []string{roleEnv + "=" + role, "PATH=" + os.Getenv("PATH"), "GORACE=atexit_sleep_ms=0"}
	if role == "" {
		cmd.Env[0] = roleEnv + "=pause"
	}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "there\n" {
		t.Fatalf("start %v: %q, %v", cmd.Args, line, err)
	}
	return cmd.Process.Pid
}

func self(flags uintptr) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	if flags&syscall.CLONE_NEWUSER != 0 {
		cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = ids, ids
		cmd.SysProcAttr.Credential = &syscall.Credential{}
		cmd.SysProcAttr.GidMappingsEnableSetgroups = true
	}
	return cmd
}

// program is this one, for those who may not look its path up.
func program(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Open("/proc/self/exe")
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func userNamespace(t *testing.T, pid int) pidfd.NSID {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(fmt.Sprintf("/proc/%d/ns/user", pid), &st))
	return pidfd.NSID{Dev: st.Dev, Ino: st.Ino}
}

// childOf finds a process's child of which ok is true.
func childOf(t *testing.T, parent int, ok func(pid int) bool) int {
	t.Helper()
	proc, err := tracee.OpenProc()
	must(t, err)
	defer proc.Close()
	all, err := filepath.Glob("/proc/[0-9]*")
	must(t, err)
	for _, path := range all {
		var pid int
		_, err := fmt.Sscan(filepath.Base(path), &pid)
		must(t, err)
		status, err := proc.Status(pid)
		if err == nil && status.PPID == parent && ok(pid) {
			return pid
		}
	}
	t.Fatal("no such child")
	return 0
}

func anyChild(int) bool { return true }

// caller is a process that waits for its answer, so to speak.
func caller(t *testing.T, pid int) *tracee.Tracee {
	t.Helper()
	proc, err := tracee.OpenProc()
	must(t, err)
	c := tracee.New(proc)
	c.Reset(pid, func() error { return nil })
	t.Cleanup(func() { c.Forget(); proc.Close() })
	return c
}

func TestFromPID(t *testing.T) {
	notifytest.NeedRoot(t)
	own := userNamespace(t, os.Getpid())
	if got, err := FromPID(os.Getpid(), 0); err != nil || got != own {
		t.Errorf("own process: %v, %v; want %v", got, err, own)
	}
	inside := start(t, self(nested))
	want := userNamespace(t, inside)
	if want == own {
		t.Fatal("the child has no user namespace of its own")
	}
	if got, err := FromPID(inside, 0); err != nil || got != want {
		t.Errorf("child: %v, %v; want %v", got, err, want)
	}
	// Root made it: it is nobody else's, and neither is the host's.
	for _, pid := range []int{inside, os.Getpid()} {
		if _, err := FromPID(pid, 1000); !errors.Is(err, ErrNotOwner) {
			t.Errorf("process %d for another user: %v, want ErrNotOwner", pid, err)
		}
	}
}

func TestFromPIDDead(t *testing.T) {
	notifytest.NeedRoot(t)
	cmd := exec.Command("true")
	must(t, cmd.Run())
	if _, err := FromPID(cmd.Process.Pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("dead process: %v, want ESRCH", err)
	}
	zombie := exec.Command("true")
	must(t, zombie.Start())
	defer func() { _ = zombie.Wait() }()
	fd, err := pidfd.Open(zombie.Process.Pid)
	must(t, err)
	defer fd.Close()
	must(t, fd.Wait(t.Context()))
	if _, err := FromPID(zombie.Process.Pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("zombie: %v, want ESRCH", err)
	}
}

// TestFromPIDOwner: a user's containers are in user namespaces that it made.
func TestFromPIDOwner(t *testing.T) {
	notifytest.NeedRoot(t)
	cmd := exec.Command("/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{program(t)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	outside := start(t, cmd, syscall.CLONE_NEWUSER)
	inside := childOf(t, outside, anyChild)
	want := userNamespace(t, inside)
	if got, err := FromPID(inside, 1000); err != nil || got != want {
		t.Errorf("its maker: %v, %v; want %v", got, err, want)
	}
	if _, err := FromPID(inside, 1001); !errors.Is(err, ErrNotOwner) {
		t.Errorf("another user: %v, want ErrNotOwner", err)
	}
	if _, err := FromPID(outside, 1000); !errors.Is(err, ErrNotOwner) {
		t.Errorf("a process of the host's: %v, want ErrNotOwner", err)
	}
}

func TestFromCaller(t *testing.T) {
	for name, inside := range map[string][]uintptr{
		"its first process":     {},
		"a child":               {0},
		"user namespace":        {syscall.CLONE_NEWUSER},
		"user, pid namespace":   {nested},
		"pid, then user and so": {syscall.CLONE_NEWPID, syscall.CLONE_NEWPID, nested},
	} {
		t.Run(name, func(t *testing.T) {
			pid := start(t, self(nested), inside...)
			want := userNamespace(t, pid)
			last := uintptr(0)
			for _, last = range inside {
				pid = childOf(t, pid, anyChild)
			}
			if last&syscall.CLONE_NEWUSER != 0 && userNamespace(t, pid) == want {
				t.Fatal("it has no user namespace of its own")
			}
			if got, err := FromCaller(caller(t, pid)); err != nil || got != want {
				t.Errorf("%v, %v; want the container's, %v", got, err, want)
			}
		})
	}
}

// TestFromCallerSibling: a process that was entered into the container (an
// exec's) makes a child that is its parent's instead of its own (CLONE_PARENT),
// in namespaces of its own. Its parent is on the host, and still it is not the
// container's first.
func TestFromCallerSibling(t *testing.T) {
	first := start(t, self(nested))
	want := userNamespace(t, first)
	if _, err := exec.LookPath("nsenter"); err != nil {
		if os.Getenv("CALLGATE_TEST_REQUIRE") == "all" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	enter := exec.Command("nsenter", "-t", fmt.Sprint(first), "-U", "-p", "/proc/self/fd/3")
	enter.ExtraFiles = []*os.File{program(t)}
	session := start(t, enter, nested|syscall.CLONE_PARENT)
	entered := childOf(t, session, func(pid int) bool { return userNamespace(t, pid) == want })
	sibling := childOf(t, session, func(pid int) bool { return userNamespace(t, pid) != want })
	for name, pid := range map[string]int{"entered": entered, "sibling": sibling} {
		if got, err := FromCaller(caller(t, pid)); err != nil || got != want {
			t.Errorf("%s: %v, %v; want the container's, %v", name, got, err, want)
		}
	}
}

// TestFromCallerDenied: where there is no pid namespace there is no telling.
func TestFromCallerDenied(t *testing.T) {
	without := start(t, self(syscall.CLONE_NEWUSER))
	for name, pid := range map[string]int{"host": os.Getpid(), "container without pid namespace": without} {
		var denied emulators.Denied
		if got, err := FromCaller(caller(t, pid)); !errors.As(err, &denied) || denied.Reason == "" {
			t.Errorf("%s: %v, %v; want denied", name, got, err)
		}
	}
}

func TestFromCallerGone(t *testing.T) {
	cmd := exec.Command("true")
	must(t, cmd.Run())
	c := caller(t, cmd.Process.Pid)
	c.Reset(cmd.Process.Pid, func() error { return emulators.ErrGone })
	if _, err := FromCaller(c); !errors.Is(err, emulators.ErrGone) {
		t.Errorf("%v, want ErrGone", err)
	}
}
