package integration

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe" // for struct sock_fprog: the tests share no code with what they test

	"golang.org/x/sys/unix"
)

// caller is a thread of this process with a seccomp filter of its own, which
// stops its mknodat for whoever holds the listener.
type caller struct {
	listener *os.File
	path     string // of the node that it asks for and must not get
	call     func()
	errno    chan error
}

// newCaller starts the thread, which makes its one call when call is called
// and ends after it.
func newCaller(t *testing.T) *caller {
	t.Helper()
	c := &caller{path: filepath.Join(t.TempDir(), "null"), errno: make(chan error, 1)}
	now := make(chan struct{})
	c.call = sync.OnceFunc(func() { close(now) })
	listener := make(chan error)
	go func() {
		// Never unlocked: the filter ends with the thread.
		runtime.LockOSThread()
		var err error
		c.listener, err = filterMknodat()
		listener <- err
		if err != nil {
			return
		}
		<-now
		c.errno <- unix.Mknod(c.path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))
	}()
	if err := <-listener; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.listener.Close()
		c.call()
	})
	return c
}

// filterMknodat loads a filter for the calling thread: mknodat, which is what
// Go's Mknod uses, to the listener, and everything else as ever.
func filterMknodat() (*os.File, error) {
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // seccomp_data.nr
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_MKNODAT, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return nil, os.NewSyscallError("seccomp", errno)
	}
	return os.NewFile(fd, "listener"), nil
}

// result makes the call and returns its error; nil if it is still waiting
// after some seconds, which is a failure.
func (c *caller) result(t *testing.T) error {
	t.Helper()
	// Ours gone, ENOSYS tells that nobody serves the listener.
	c.listener.Close()
	c.call()
	select {
	case err := <-c.errno:
		if _, statErr := os.Lstat(c.path); !errors.Is(statErr, os.ErrNotExist) {
			t.Errorf("a process of the host was given %s: %v", c.path, statErr)
		}
		return err
	case <-time.After(5 * time.Second):
		t.Fatal("the call is not answered")
		return nil
	}
}

// dialAs connects from a thread with the given effective uid, which is what
// SO_PEERCRED then says of us.
func dialAs(uid int, path string) (*net.UnixConn, error) {
	type outcome struct {
		conn *net.UnixConn
		err  error
	}
	done := make(chan outcome)
	go func() {
		runtime.LockOSThread() // and never unlocked: the credentials end with the thread
		conn, err := connectAs(uid, path)
		done <- outcome{conn, err}
	}()
	o := <-done
	return o.conn, o.err
}

func connectAs(uid int, path string) (*net.UnixConn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), "socket")
	defer file.Close()
	// Raw: package syscall's changes every thread.
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
		return nil, os.NewSyscallError("setresuid", errno)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}
