package seccompnotify

import (
	"errors"
	"os"
	"runtime"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

func isGone(err error) bool                { return errors.Is(err, ErrGone) }
func isErrno(err error, e unix.Errno) bool { return errors.Is(err, e) }

// TestAddFD looks at what arrives through the child's own /proc/PID/fd.
func TestAddFD(t *testing.T) {
	c, l := start(t, notifytest.Options{})
	file, err := os.CreateTemp(t.TempDir(), "given")
	must(t, err)
	defer file.Close()
	src := int(file.Fd())
	call := func() (n Notification) {
		c.Go(t, unix.SYS_ACCT)
		receive(t, l, &n)
		return n
	}
	cloexec := func(fd int64) bool {
		return c.Do(t, unix.SYS_FCNTL, uint64(fd), unix.F_GETFD)&unix.FD_CLOEXEC != 0
	}
	same := func(fd int64) {
		t.Helper()
		var st, want unix.Stat_t
		must(t, unix.Fstat(src, &want))
		pidfd, err := unix.PidfdOpen(c.PID, 0)
		must(t, err)
		defer unix.Close(pidfd)
		got, err := unix.PidfdGetfd(pidfd, int(fd), 0)
		must(t, err)
		defer unix.Close(got)
		must(t, unix.Fstat(got, &st))
		if st.Ino != want.Ino {
			t.Errorf("descriptor %d is another file", fd)
		}
	}

	t.Run("then return", func(t *testing.T) {
		n := call()
		fd, err := l.AddFD(n.ID, 0, src, 0, 0)
		must(t, err)
		must(t, l.Valid(n.ID))
		must(t, l.Return(n.ID, 77))
		if r, errno := c.Result(t); r != 77 || errno != 0 {
			t.Errorf("caller got %d, %v", r, errno)
		}
		same(int64(fd))
		if cloexec(int64(fd)) {
			t.Error("descriptor has FD_CLOEXEC")
		}
	})
	t.Run("set", func(t *testing.T) {
		n := call()
		fd, err := l.AddFD(n.ID, AddFDSet, src, 300, unix.O_CLOEXEC)
		if err != nil || fd != 300 {
			t.Fatalf("AddFD: %d, %v", fd, err)
		}
		must(t, l.Return(n.ID, 0))
		c.Result(t)
		same(300)
		if !cloexec(300) {
			t.Error("descriptor lacks FD_CLOEXEC")
		}
	})
	t.Run("send", func(t *testing.T) {
		n := call()
		fd, err := l.AddFD(n.ID, AddFDSend, src, 0, unix.O_CLOEXEC)
		must(t, err)
		r, errno := c.Result(t)
		if int64(fd) != r || errno != 0 {
			t.Errorf("caller got %d, %v, we %d", r, errno, fd)
		}
		same(r)
		wantErr(t, "Valid after SEND", l.Valid(n.ID), ErrGone)
	})
	t.Run("set and send", func(t *testing.T) {
		n := call()
		fd, err := l.AddFD(n.ID, AddFDSet|AddFDSend, src, 301, 0)
		must(t, err)
		if r, errno := c.Result(t); fd != 301 || r != 301 || errno != 0 {
			t.Errorf("caller got %d, %v, we %d", r, errno, fd)
		}
	})
	t.Run("refused", func(t *testing.T) {
		n := call()
		_, err := l.AddFD(n.ID, 0, 9999, 0, 0)
		wantErr(t, "bad source", err, unix.EBADF)
		_, err = l.AddFD(n.ID, 0, src, 5, 0)
		wantErr(t, "number without Set", err, unix.EINVAL)
		_, err = l.AddFD(n.ID, 1<<20, src, 0, 0)
		wantErr(t, "unknown flag", err, unix.EINVAL)
		must(t, l.Return(n.ID, 0))
		c.Result(t)
	})
}

// TestAddFDSendIsNotInterrupted is about a trap of the kernel: a signal that
// wakes an ADDFD with SEND leaves the call answered with 0, without the
// descriptor, and the request that is made again gets EINPROGRESS. The Go
// runtime sends signals of its own all the time.
func TestAddFDSendIsNotInterrupted(t *testing.T) {
	c, l := start(t, notifytest.Options{Flags: unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV})
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tid := unix.Gettid()
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
		}
	}()
	defer func() { stop.Store(true); <-done }()
	for i := range 500 {
		c.Go(t, unix.SYS_ACCT)
		var n Notification
		receive(t, l, &n)
		fd, err := l.AddFD(n.ID, AddFDSend, 0, 0, 0)
		r, errno := c.Result(t)
		if err != nil || int64(fd) != r || r == 0 || errno != 0 {
			t.Fatalf("round %d: AddFD gave %d, %v, the caller got %d, %v", i, fd, err, r, errno)
		}
		c.Do(t, unix.SYS_CLOSE, uint64(r))
	}
}
