//go:build linux

package pidfd

import (
	"context"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func wantAlive(t *testing.T, f *FD, want bool) {
	t.Helper()
	alive, err := f.Alive()
	must(t, err)
	if alive != want {
		t.Errorf("alive %v, want %v", alive, want)
	}
}

func TestExit(t *testing.T) {
	c := startChild(t)
	f := mustOpen(t, newKernel(), c.pid)
	wantAlive(t, f, true)
	must(t, f.SendSignal(0))

	done := make(chan error)
	go func() { done <- f.Wait(t.Context()) }()
	time.Sleep(10 * time.Millisecond)
	must(t, f.SendSignal(unix.SIGKILL))
	must(t, <-done)

	wantAlive(t, f, false)
	must(t, f.SendSignal(0)) // a zombie is still there
	c.reap()
	wantAlive(t, f, false)
	wantErr(t, f.SendSignal(0), unix.ESRCH)
	must(t, f.Wait(t.Context()))
}

func TestThreadExit(t *testing.T) {
	skipBefore(t, 6, 9)
	c := startChild(t)
	thread, process := mustOpenThread(t, newKernel(), c.tid), mustOpen(t, newKernel(), c.pid)
	wantAlive(t, thread, true)
	must(t, thread.SendSignal(0))
	c.exitThread(t)
	must(t, thread.Wait(t.Context()))
	wantAlive(t, thread, false)
	wantAlive(t, process, true)
	// Nobody has to reap a thread, but it takes the kernel a moment.
	for deadline := time.Now().Add(time.Second); ; time.Sleep(time.Millisecond) {
		if err := thread.SendSignal(0); err != nil || time.Now().After(deadline) {
			wantErr(t, err, unix.ESRCH)
			break
		}
	}
	_, err := thread.GetFD(childFile)
	wantErr(t, err, unix.ESRCH)
	_, err = thread.Info()
	wantErr(t, err, unix.ESRCH)
}

// A signal for a thread must reach that thread: here, the one that blocks it.
func TestSignalThread(t *testing.T) {
	skipBefore(t, 6, 9)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var set, old unix.Sigset_t
	set.Val[0] = 1 << (unix.SIGURG - 1)
	must(t, unix.PthreadSigmask(unix.SIG_BLOCK, &set, &old))
	defer func() { must(t, unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)) }()

	f := mustOpenThread(t, newKernel(), unix.Gettid())
	must(t, f.SendSignal(unix.SIGURG))
	status, err := os.ReadFile("/proc/thread-self/status")
	must(t, err)
	pending := statusField(t, status, "SigPnd") // of the thread; of the process it is ShdPnd
	if pending&(1<<(unix.SIGURG-1)) == 0 {
		t.Errorf("pending for the thread: %#x", pending)
	}
}

func TestSignalErrors(t *testing.T) {
	f := mustOpen(t, newKernel(), os.Getpid())
	wantErr(t, f.SendSignal(1000), unix.EINVAL)
}

func TestWaitCancelled(t *testing.T) {
	c := startChild(t)
	f := mustOpen(t, newKernel(), c.pid)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	wantErr(t, f.Wait(cancelled), context.Canceled)

	later, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	wantErr(t, f.Wait(later), context.DeadlineExceeded)

	// Not a readable, and not a non-blocking pidfd afterwards.
	wantAlive(t, f, true)
	flags, err := unix.FcntlInt(uintptr(f.Fd()), unix.F_GETFL, 0)
	must(t, err)
	if flags&unix.O_NONBLOCK != 0 {
		t.Error("Wait left the pidfd non-blocking")
	}
	// Exit comes before a context that is done.
	c.reap()
	must(t, f.Wait(cancelled))
}

func TestWaitClosed(t *testing.T) {
	c := startChild(t)
	f := mustOpen(t, newKernel(), c.pid)
	number := f.Fd()
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if err := f.Wait(context.Background()); err != os.ErrClosed {
				t.Errorf("error %v", err)
			}
		})
	}
	time.Sleep(10 * time.Millisecond)
	must(t, f.Close())
	wg.Wait()
	_, err := unix.FcntlInt(uintptr(number), unix.F_GETFD, 0)
	wantErr(t, err, unix.EBADF)
}

// Exit, cancellation and Close at the same time: whatever wins, Wait returns
// and nothing is left.
func TestWaitRaces(t *testing.T) {
	for range 20 {
		c := startChild(t)
		f := mustOpen(t, newKernel(), c.pid)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { _ = f.Wait(ctx) })
		}
		wg.Go(cancel)
		wg.Go(c.reap)
		wg.Go(func() { _ = f.Close() })
		wg.Wait()
	}
}

func TestWaitLeavesNoGoroutine(t *testing.T) {
	f := mustOpen(t, newKernel(), os.Getpid())
	before := runtime.NumGoroutine()
	for range 50 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		wantErr(t, f.Wait(ctx), context.DeadlineExceeded)
		cancel()
	}
	for deadline := time.Now().Add(time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}
