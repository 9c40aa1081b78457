//go:build linux

package pidfd

import (
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestOpen(t *testing.T) {
	c := startChild(t)
	for _, tt := range []struct {
		name  string
		pid   int
		errno unix.Errno
	}{
		{"process", c.pid, 0},
		{"self", os.Getpid(), 0},
		{"zero", 0, unix.EINVAL},
		{"negative", -1, unix.EINVAL},
		{"no such process", 1<<31 - 1, unix.ESRCH},
		{"would be narrowed", narrowsTo(c.pid), unix.EINVAL},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Open(tt.pid)
			if tt.errno != 0 {
				wantErr(t, err, tt.errno)
				return
			}
			must(t, err)
			closeFD(t, f)
			if f.PID() != tt.pid || f.IsThread() {
				t.Errorf("PID %d, IsThread %v", f.PID(), f.IsThread())
			}
			flags, err := unix.FcntlInt(uintptr(f.Fd()), unix.F_GETFD, 0)
			must(t, err)
			if flags&unix.FD_CLOEXEC == 0 {
				t.Error("not close-on-exec")
			}
		})
	}
	t.Run("thread", func(t *testing.T) {
		f, err := Open(c.tid)
		if err == nil {
			_ = f.Close()
			t.Fatal("opened a thread as a process")
		}
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			t.Fatal(err)
		}
	})
}

// methods are all that fail after Close.
func methods(t *testing.T) map[string]func(f *FD) error {
	return map[string]func(f *FD) error{
		"Alive":       func(f *FD) error { _, err := f.Alive(); return err },
		"Info":        func(f *FD) error { _, err := f.Info(); return err },
		"NamespaceID": func(f *FD) error { _, err := f.NamespaceID(NSUser); return err },
		"SendSignal":  func(f *FD) error { return f.SendSignal(0) },
		"Wait":        func(f *FD) error { return f.Wait(t.Context()) },
		"GetFD": func(f *FD) error {
			fd, err := f.GetFD(childFile)
			if err == nil {
				must(t, unix.Close(fd))
			}
			return err
		},
		"GetFile": func(f *FD) error {
			file, err := f.GetFile(childFile, "file")
			if err == nil {
				must(t, file.Close())
			}
			return err
		},
		"Namespace": func(f *FD) error {
			fd, err := f.Namespace(NSNet)
			if err == nil {
				must(t, unix.Close(fd))
			}
			return err
		},
	}
}

func TestClosed(t *testing.T) {
	closed, err := Open(os.Getpid())
	must(t, err)
	must(t, closed.Close())
	for name, f := range map[string]*FD{"closed": closed, "zero": {}} {
		t.Run(name, func(t *testing.T) {
			for method, call := range methods(t) {
				if err := call(f); !errors.Is(err, os.ErrClosed) {
					t.Errorf("%s: %v", method, err)
				}
			}
			wantErr(t, f.Close(), os.ErrClosed)
			if f.Fd() != -1 {
				t.Errorf("Fd is %d", f.Fd())
			}
		})
	}
}

// A call in flight keeps the descriptor; the last one closes it.
func TestCloseInFlight(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	k := newKernel()
	k.pidfdSendSignal = func(pidfd int, sig unix.Signal) error {
		close(entered)
		<-leave
		return pidfdSendSignal(pidfd, sig)
	}
	f := mustOpen(t, k, os.Getpid())
	number := f.Fd()
	result := make(chan error)
	go func() { result <- f.SendSignal(0) }()
	<-entered
	must(t, f.Close())
	if _, err := f.Alive(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a call after Close: %v", err)
	}
	close(leave)
	must(t, <-result)
	_, err := unix.FcntlInt(uintptr(number), unix.F_GETFD, 0)
	wantErr(t, err, unix.EBADF)
}

func TestConcurrentClose(t *testing.T) {
	c := startChild(t)
	for range 20 {
		f, err := OpenThread(c.tid)
		must(t, err)
		var wg sync.WaitGroup
		for name, call := range methods(t) {
			wg.Go(func() {
				for {
					err := call(f)
					if errors.Is(err, os.ErrClosed) {
						return
					}
					if err != nil {
						t.Errorf("%s: %v", name, err)
						return
					}
				}
			})
		}
		time.Sleep(2 * time.Millisecond)
		must(t, f.Close())
		wg.Wait()
	}
}
