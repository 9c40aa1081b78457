//go:build linux

package pidfd

import (
	"math"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// FD is a pidfd: a reference to one process or one thread that a reused pid
// cannot redirect. It is safe for concurrent use, Close included, and must not
// be copied. The zero value behaves as a closed FD.
type FD struct {
	k      *kernel
	fd     int
	pid    int
	thread bool

	// state is stateOpen, plus the number of calls in flight. Without stateOpen no call
	// begins; the one that takes it to 0 closes fd.
	state atomic.Int64

	mu      sync.Mutex
	waiters map[*waiter]struct{} // calls of Wait that Close has to wake
}

// stateOpen is high so that calls in flight count below it, and is not 0 so that a
// zero FD cannot act on descriptor 0.
const stateOpen = 1 << 32

// Open returns a pidfd of the process whose thread group leader has the number
// pid in the PID namespace of the calling process (pidfd_open(2), Linux 5.3).
// It does not block.
//
// It fails with ESRCH if there is no such process, and with EINVAL or, on newer
// kernels (seen on 6.18), ENOENT if pid is that of a thread other than a leader.
func Open(pid int) (*FD, error) {
	return host.open(pid)
}

func (k *kernel) open(pid int) (*FD, error) {
	fd, err := k.pidfdOpen(pid, 0)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	return k.newFD(fd, pid, false), nil
}

// newFD takes ownership of fd.
func (k *kernel) newFD(fd, pid int, thread bool) *FD {
	f := &FD{k: k, fd: fd, pid: pid, thread: thread}
	f.state.Store(stateOpen)
	return f
}

// IsThread reports whether f refers to exactly one thread and not to its
// process. It is true only for what [OpenThread] returned on a kernel that has
// PIDFD_THREAD. It does not change and may be asked after Close.
func (f *FD) IsThread() bool { return f.thread }

// PID returns the number that f was opened with: a tid if IsThread, otherwise
// that of the process, which is not the tid given to [OpenThread] if that was
// a thread other than the leader. It says nothing about who has that number
// now. It does not change and may be asked after Close.
func (f *FD) PID() int { return f.pid }

// Fd returns the descriptor, or -1 after Close. It is borrowed: f must be kept
// open while it is in use, and nobody else may close it.
func (f *FD) Fd() int {
	if f.state.Load()&stateOpen == 0 {
		return -1
	}
	return f.fd
}

// Close gives up the reference. It does not block: the descriptor is closed
// when the last call in flight returns, and calls of Wait are woken and return
// os.ErrClosed. A second Close returns os.ErrClosed.
func (f *FD) Close() error {
	for {
		s := f.state.Load()
		if s&stateOpen == 0 {
			return os.ErrClosed
		}
		if !f.state.CompareAndSwap(s, s-stateOpen) {
			continue
		}
		f.wakeWaiters()
		if s == stateOpen {
			return f.closeNow()
		}
		return nil
	}
}

// acquire keeps the descriptor open until release.
func (f *FD) acquire() error {
	for {
		s := f.state.Load()
		if s&stateOpen == 0 {
			return os.ErrClosed
		}
		if f.state.CompareAndSwap(s, s+1) {
			return nil
		}
	}
}

func (f *FD) release() {
	if f.state.Add(-1) == 0 {
		// Nobody is left to tell, and close(2) of a pidfd does not fail.
		_ = f.closeNow()
	}
}

// closeNow does not retry EINTR: on Linux the descriptor is gone by then.
func (f *FD) closeNow() error {
	return os.NewSyscallError("close", unix.Close(f.fd))
}

// inRange reports whether n survives the kernel's narrowing to a C int. Without
// the check 1<<32+1 would mean 1.
func inRange(n int) bool { return n >= 0 && n <= math.MaxInt32 }
