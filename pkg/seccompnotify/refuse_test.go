package seccompnotify

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

func TestNewListenerRefuses(t *testing.T) {
	one := func(fd int, err error) (int, error) { return fd, err }
	for name, open := range map[string]func() (int, error){
		"pipe": func() (int, error) {
			var p [2]int
			err := unix.Pipe2(p[:], 0)
			_ = unix.Close(p[1])
			return p[0], err
		},
		"socket":    func() (int, error) { return one(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)) },
		"directory": func() (int, error) { return one(unix.Open("/", unix.O_RDONLY, 0)) },
		"path":      func() (int, error) { return one(unix.Open("/", unix.O_PATH, 0)) },
		"file":      func() (int, error) { return one(unix.Open("/proc/self/exe", unix.O_RDONLY, 0)) },
		"null":      func() (int, error) { return one(unix.Open("/dev/null", unix.O_RDWR, 0)) },
		"eventfd":   func() (int, error) { return one(unix.Eventfd(0, 0)) },
		"epoll":     func() (int, error) { return one(unix.EpollCreate1(0)) },
		"memfd":     func() (int, error) { return one(unix.MemfdCreate("seccomp notify", 0)) },
		"pidfd":     func() (int, error) { return one(unix.PidfdOpen(os.Getpid(), 0)) },
	} {
		t.Run(name, func(t *testing.T) {
			notifytest.NoLeak(t) // it takes ownership also when it fails
			fd, err := open()
			must(t, err)
			l, err := NewListener(fd)
			wantErr(t, "NewListener", err, ErrNotListener)
			if l != nil {
				t.Error("a listener was returned")
			}
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
				t.Errorf("descriptor is still open (%v)", err)
			}
		})
	}
	for _, fd := range []int{-1, 1 << 20} {
		_, err := NewListener(fd)
		wantErr(t, "NewListener of no descriptor", err, ErrNotListener)
	}
}

func TestNewListenerSetsCloseOnExec(t *testing.T) {
	c := notifytest.Start(t, notifytest.Options{})
	if _, err := unix.FcntlInt(uintptr(c.Listener), unix.F_SETFD, 0); err != nil {
		t.Fatal(err)
	}
	l, err := NewListener(c.Listener)
	must(t, err)
	defer l.Close()
	flags, err := unix.FcntlInt(uintptr(l.FD()), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v", flags, err)
	}
}

func BenchmarkValid(b *testing.B) {
	c, l := start(b, notifytest.Options{})
	c.Go(b, unix.SYS_ACCT)
	var n Notification
	receive(b, l, &n)
	for b.Loop() {
		if err := l.Valid(n.ID); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	must(b, l.Return(n.ID, 0))
	c.Result(b)
}
