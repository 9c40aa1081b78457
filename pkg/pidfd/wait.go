//go:build linux

package pidfd

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Wait blocks until the process or, if IsThread, the thread has exited, in the
// sense of [FD.Alive], and returns nil. It does not reap a child. It returns
// ctx.Err() once ctx is done, unless it has exited by then, and os.ErrClosed
// once f is closed.
//
// Waiting occupies neither an OS thread nor a goroutine beside the caller's; it
// holds one more descriptor while it lasts. Any number of calls may wait on one
// FD.
func (f *FD) Wait(ctx context.Context) error {
	if err := f.acquire(); err != nil {
		return err
	}
	defer f.release()

	if gone, err := exited(f.fd); gone || err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	w, err := newWaiter(f.fd)
	if err != nil {
		return err
	}
	defer w.close()

	if !f.addWaiter(w) {
		return os.ErrClosed
	}
	defer f.removeWaiter(w)

	stop := context.AfterFunc(ctx, w.wake)
	defer stop()

	err = w.wait()
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return os.ErrClosed
}

// addWaiter reports whether f is open. If it is, Close will wake w.
func (f *FD) addWaiter(w *waiter) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state.Load()&stateOpen == 0 {
		return false
	}
	if f.waiters == nil {
		f.waiters = make(map[*waiter]struct{})
	}
	f.waiters[w] = struct{}{}
	return true
}

func (f *FD) removeWaiter(w *waiter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.waiters, w)
}

// wakeWaiters is called with the state closed, so none is added after it.
func (f *FD) wakeWaiters() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.waiters {
		w.wake()
	}
}

// waiter parks a goroutine in Go's poller until a pidfd is readable.
//
// The poller wants O_NONBLOCK, and on a pidfd that is PIDFD_NONBLOCK, which
// waitid(2) through FD.Fd would feel. So the pidfd goes into an epoll instance
// of its own, which is readable when the pidfd is, and that one goes to the
// poller.
type waiter struct {
	file *os.File
	conn syscall.RawConn
}

// newWaiter borrows pidfd, which must stay open until close.
func newWaiter(pidfd int) (*waiter, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN}
	if err := unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, pidfd, &event); err != nil {
		_ = unix.Close(epfd)
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	if err := unix.SetNonblock(epfd, true); err != nil {
		_ = unix.Close(epfd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	file := os.NewFile(uintptr(epfd), "pidfd wait")
	// Only a file that is in the poller takes a deadline. Any other could not be
	// woken.
	if err := file.SetReadDeadline(time.Time{}); err != nil {
		_ = file.Close()
		return nil, err
	}
	conn, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return &waiter{file: file, conn: conn}, nil
}

// wait returns nil when the pidfd is readable, and os.ErrDeadlineExceeded after
// wake.
func (w *waiter) wait() error {
	var waitErr error
	err := w.conn.Read(func(epfd uintptr) bool {
		var ready bool
		ready, waitErr = epollReady(int(epfd))
		return ready || waitErr != nil
	})
	if err != nil {
		return err
	}
	return waitErr
}

// wake ends a wait that is under way or yet to begin. It may come after close.
func (w *waiter) wake() {
	_ = w.file.SetReadDeadline(time.Unix(1, 0))
}

func (w *waiter) close() { _ = w.file.Close() }

func epollReady(epfd int) (bool, error) {
	var events [1]unix.EpollEvent
	for {
		n, err := unix.EpollWait(epfd, events[:], 0)
		if err == unix.EINTR {
			continue
		}
		return n > 0, os.NewSyscallError("epoll_wait", err)
	}
}
