package filter

import (
	"errors"
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestMain fails if a descriptor is left open.
func TestMain(m *testing.M) {
	before := openFiles()
	code := m.Run()
	if after := openFiles(); code == 0 && after > before {
		println("descriptors leaked:", after-before)
		code = 1
	}
	os.Exit(code)
}

func openFiles() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	n := 0
	for _, e := range entries {
		// The runtime keeps what its poller needs; those come when they come.
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to != "anon_inode:[eventpoll]" && to != "anon_inode:[eventfd]" {
			n++
		}
	}
	return n
}

// notifying is a program that notifies mknod of character devices and allows everything else.
func notifying(t *testing.T) []unix.SockFilter {
	t.Helper()
	prog, err := Build(&specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Syscalls: []specs.LinuxSyscall{{
			Names: []string{"mknodat", "no_such_call"}, Action: specs.ActNotify,
			Args: []specs.LinuxSeccompArg{{Index: 2, Value: unix.S_IFMT, ValueTwo: unix.S_IFCHR, Op: specs.OpMaskedEqual}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return prog
}

// filtered runs f on a thread of its own that dies with it, as a filter cannot be taken off.
func filtered(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked
		f()
	}()
	<-done
}

func noNewPrivs(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Error(err)
	}
}

// answer receives one notification and answers it with an errno. The structures are in the kernel's layout, as numbers.
func answer(listener int, e unix.Errno) (nr uint32, err error) {
	pfd := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
	if n, err := unix.Poll(pfd, 5000); n != 1 || err != nil {
		return 0, errors.Join(errors.New("no notification"), err)
	}
	var notif [10]uint64 // struct seccomp_notif
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&notif))); errno != 0 {
		return 0, errno
	}
	resp := struct { // struct seccomp_notif_resp
		id           uint64
		val          int64
		error, flags int32
	}{id: notif[0], error: -int32(e)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&resp))); errno != 0 {
		return 0, errno
	}
	return uint32(notif[2]), nil
}

func TestLoad(t *testing.T) {
	prog := notifying(t)
	filtered(func() {
		noNewPrivs(t)
		listener, err := Load(prog, 0)
		if err != nil {
			t.Errorf("Load: %v", err)
			return
		}
		defer unix.Close(listener)
		if flags, err := unix.FcntlInt(uintptr(listener), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("listener is not close-on-exec: %#x, %v", flags, err)
		}
		if _, err := Load(prog, 0); !errors.Is(err, unix.EBUSY) {
			t.Errorf("a second listener: %v, want EBUSY", err)
		}

		answered := make(chan error, 1)
		go func() {
			nr, err := answer(listener, unix.EXDEV)
			if err == nil && nr != unix.SYS_MKNODAT {
				err = errors.New("another call was notified")
			}
			answered <- err
		}()
		if err := unix.Mknodat(unix.AT_FDCWD, "/nowhere/x", unix.S_IFCHR, 5); err != unix.EXDEV {
			t.Errorf("mknod of a device: %v, want the answer EXDEV", err)
		}
		if err := unix.Mknodat(unix.AT_FDCWD, "/nowhere/x", unix.S_IFIFO, 0); err != unix.ENOENT {
			t.Errorf("mknod of a FIFO: %v, want the kernel's ENOENT", err)
		}
		if err := <-answered; err != nil {
			t.Error(err)
		}
	})

	// The filter is that thread's alone.
	err := make(chan error, 1)
	go func() { err <- unix.Mknodat(unix.AT_FDCWD, "/nowhere/x", unix.S_IFCHR, 5) }()
	select {
	case e := <-err:
		if e != unix.ENOENT && e != unix.EPERM {
			t.Errorf("on another thread: %v", e)
		}
	case <-time.After(5 * time.Second):
		t.Error("the call of another thread is notified")
	}
}

func TestLoadRefuses(t *testing.T) {
	if _, err := Load(nil, 0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("no program: %v", err)
	}
	prog := notifying(t)
	if _, err := Load(prog, unix.SECCOMP_FILTER_FLAG_TSYNC); !errors.Is(err, unix.EINVAL) {
		t.Errorf("TSYNC: %v", err)
	}
	filtered(func() {
		noNewPrivs(t)
		if _, err := Load([]unix.SockFilter{{Code: 0xffff}}, 0); !errors.Is(err, unix.EINVAL) {
			t.Errorf("no valid program: %v", err)
		}
	})
}

func TestSupported(t *testing.T) {
	if ok, err := Supported(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER); !ok || err != nil {
		t.Errorf("NEW_LISTENER: %v, %v", ok, err)
	}
	if ok, err := Supported(1 << 31); ok || err != nil {
		t.Errorf("a flag that is none: %v, %v", ok, err)
	}
}

func TestFlags(t *testing.T) {
	got, err := Flags([]specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagWaitKillableRecv, specs.LinuxSeccompFlagSpecAllow})
	if want := uint(unix.SECCOMP_FILTER_FLAG_LOG | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW); got != want || err != nil {
		t.Errorf("%#x, %v", got, err)
	}
	if _, err := Flags([]specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC"}); err == nil {
		t.Error("TSYNC is taken")
	}
}
