package seccompnotify

import (
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

func TestAnswers(t *testing.T) {
	c, l := start(t, notifytest.Options{})
	var n Notification
	for _, tc := range []struct {
		name   string
		answer func(id uint64) error
		want   int64
		errno  syscall.Errno
	}{
		{"return 0", func(id uint64) error { return l.Return(id, 0) }, 0, 0},
		{"return large", func(id uint64) error { return l.Return(id, 1<<40) }, 1 << 40, 0},
		{"return small negative", func(id uint64) error { return l.Return(id, -5000) }, -5000, 0},
		{"fail", func(id uint64) error { return l.Fail(id, unix.EXDEV) }, -1, unix.EXDEV},
		{"fail without an errno", func(id uint64) error { return l.Fail(id, 0) }, -1, unix.EPERM},
		{"fail with too large an errno", func(id uint64) error { return l.Fail(id, 4096) }, -1, unix.EPERM},
		{"continue", l.Continue, -1, unix.EFAULT}, // the kernel's own: the path is NULL
	} {
		t.Run(tc.name, func(t *testing.T) {
			c.Go(t, unix.SYS_MKNODAT, 11, 0, 1<<63|13, 14, 15, ^uint64(0))
			// Receive is handed a buffer that is not zero.
			n = Notification{ID: 1, PID: 2, Flags: 3, Data: Data{NR: 4, Args: [6]uint64{5}}}
			receive(t, l, &n)
			if int(n.PID) != c.TID || n.Flags != 0 || n.Data.NR != unix.SYS_MKNODAT || n.Data.Arch != nativeArch(t) || n.Data.InstructionPointer == 0 {
				t.Errorf("received %+v of thread %d", n, c.TID)
			}
			if want := [6]uint64{11, 0, 1<<63 | 13, 14, 15, ^uint64(0)}; n.Data.Args != want {
				t.Errorf("arguments %v, want %v", n.Data.Args, want)
			}
			must(t, l.Valid(n.ID))
			wantErr(t, "Valid of another id", l.Valid(n.ID+1), ErrGone)
			must(t, tc.answer(n.ID))
			if r, errno := c.Result(t); r != tc.want || errno != tc.errno {
				t.Errorf("caller got %d, %v, want %d, %v", r, errno, tc.want, tc.errno)
			}
			wantErr(t, "second answer", l.Return(n.ID, 0), ErrGone)
			wantErr(t, "Valid after the answer", l.Valid(n.ID), ErrGone)
		})
	}
}

func nativeArch(tb testing.TB) uint32 {
	tb.Helper()
	var u unix.Utsname
	must(tb, unix.Uname(&u))
	switch machine := unix.ByteSliceToString(u.Machine[:]); machine {
	case "x86_64":
		return unix.AUDIT_ARCH_X86_64
	case "aarch64":
		return unix.AUDIT_ARCH_AARCH64
	default:
		tb.Skipf("machine %s", machine)
		return 0
	}
}

func TestAnswerTwice(t *testing.T) {
	c, l := start(t, notifytest.Options{Flags: unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV})
	for range 200 {
		c.Go(t, unix.SYS_ACCT)
		var n Notification
		receive(t, l, &n)
		// One of many wins, the others are told.
		var wg sync.WaitGroup
		won := make(chan int64, 8)
		for i := range int64(8) {
			wg.Go(func() {
				_ = l.Valid(n.ID)
				switch err := l.Return(n.ID, 100+i); {
				case err == nil:
					won <- 100 + i
				case !isGone(err) && !isErrno(err, unix.EINPROGRESS):
					t.Errorf("Return: %v", err)
				}
			})
		}
		wg.Wait()
		close(won)
		r, errno := c.Result(t)
		if winner := <-won; errno != 0 || r != winner {
			t.Fatalf("caller got %d, %v; winner said %d", r, errno, winner)
		}
		if extra, more := <-won; more {
			t.Fatalf("a second winner: %d", extra)
		}
	}
}

func TestCallerKilled(t *testing.T) {
	c, l := start(t, notifytest.Options{Flags: unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV})
	c.Go(t, unix.SYS_ACCT)
	var n Notification
	receive(t, l, &n)
	must(t, l.Valid(n.ID))
	c.Kill()
	wantErr(t, "Valid", l.Valid(n.ID), ErrGone)
	wantErr(t, "Return", l.Return(n.ID, 0), ErrGone)
	wantErr(t, "Fail", l.Fail(n.ID, unix.EPERM), ErrGone)
	wantErr(t, "Continue", l.Continue(n.ID), ErrGone)
	_, err := l.AddFD(n.ID, AddFDSend, 0, 0, 0)
	wantErr(t, "AddFD", err, ErrGone)
	wait(t, l, unix.POLLHUP)
}

// TestSignal takes the caller out of the call (no WAIT_KILLABLE_RECV); the
// kernel makes the call anew.
func TestSignal(t *testing.T) {
	c, l := start(t, notifytest.Options{})
	c.Go(t, unix.SYS_ACCT, 7)
	var first, second Notification
	receive(t, l, &first)
	c.Signal(t, unix.SIGURG) // the Go runtime's own; it has SA_RESTART
	for end := time.Now().Add(10 * time.Second); l.Valid(first.ID) == nil; {
		if time.Now().After(end) {
			t.Fatal("the signal did not invalidate the id")
		}
		time.Sleep(time.Millisecond)
	}
	wantErr(t, "Return", l.Return(first.ID, 0), ErrGone)
	_, err := l.AddFD(first.ID, 0, 0, 0, 0)
	wantErr(t, "AddFD", err, ErrGone)
	receive(t, l, &second)
	if second.ID == first.ID || second.Data != first.Data {
		t.Errorf("made anew: %+v, first %+v", second, first)
	}
	must(t, l.Return(second.ID, 5))
	if r, errno := c.Result(t); r != 5 || errno != 0 {
		t.Errorf("caller got %d, %v", r, errno)
	}
}

func TestSetFlags(t *testing.T) {
	c, l := start(t, notifytest.Options{})
	if err := l.SetFlags(SyncWakeUp); err != nil && kernelAtLeast(t, 6, 6) {
		t.Fatal(err)
	}
	wantErr(t, "unknown flag", l.SetFlags(1<<40), unix.EINVAL)
	c.Go(t, unix.SYS_ACCT)
	var n Notification
	receive(t, l, &n)
	must(t, l.Return(n.ID, 9))
	if r, _ := c.Result(t); r != 9 {
		t.Errorf("caller got %d", r)
	}
	must(t, l.SetFlags(0))
}

func TestClosed(t *testing.T) {
	c, l := start(t, notifytest.Options{})
	must(t, l.Close())
	wantErr(t, "Close", l.Close(), os.ErrClosed)
	if fd := l.FD(); fd != -1 {
		t.Errorf("FD() = %d", fd)
	}
	var n Notification
	wantErr(t, "Receive", l.Receive(&n), os.ErrClosed)
	wantErr(t, "Valid", l.Valid(1), os.ErrClosed)
	wantErr(t, "Return", l.Return(1, 0), os.ErrClosed)
	wantErr(t, "Fail", l.Fail(1, unix.EPERM), os.ErrClosed)
	wantErr(t, "Continue", l.Continue(1), os.ErrClosed)
	_, err := l.AddFD(1, 0, 0, 0, 0)
	wantErr(t, "AddFD", err, os.ErrClosed)
	wantErr(t, "SetFlags", l.SetFlags(0), os.ErrClosed)
	// Nobody holds the listener any more.
	c.Go(t, unix.SYS_ACCT)
	if _, errno := c.Result(t); errno != unix.ENOSYS {
		t.Errorf("caller got %v, want ENOSYS", errno)
	}
}
