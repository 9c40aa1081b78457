//go:build linux

package pidfd

import (
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// kernel is everything that the package asks the kernel for and that a release
// may lack. Tests replace single fields to force the other road.
//
// Functions return bare errnos; the callers name the system call.
type kernel struct {
	pidfdOpen       func(pid, flags int) (int, error)
	pidfdGetfd      func(pidfd, n int) (int, error)
	pidfdSendSignal func(pidfd int, sig unix.Signal) error
	getInfo         func(pidfd int) (pidfdInfo, error)
	getNamespace    func(pidfd int, request uint) (int, error)
	procfs          string

	threads probe // of PIDFD_THREAD
}

// host is the running kernel. Only the memory of its probe ever changes.
var host = kernel{
	pidfdOpen:       pidfdOpen,
	pidfdGetfd:      pidfdGetfd,
	pidfdSendSignal: pidfdSendSignal,
	getInfo:         getInfo,
	getNamespace:    getNamespace,
	procfs:          "/proc",
}

// support is the outcome of trying a feature.
type support int32

const (
	couldNotTell support = iota
	supported
	unsupported
)

// probe remembers a definite outcome. The zero value has not tried.
type probe struct{ outcome atomic.Int32 }

func (p *probe) known() support { return support(p.outcome.Load()) }

func (p *probe) remember(s support) {
	if s != couldNotTell && p.known() != s {
		p.outcome.Store(int32(s))
	}
}

// pidfdOpen is pidfd_open(2). The kernel sets CLOEXEC by itself.
func pidfdOpen(pid, flags int) (int, error) {
	if pid == 0 || !inRange(pid) {
		return -1, unix.EINVAL
	}
	for {
		fd, err := unix.PidfdOpen(pid, flags)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// pidfdGetfd is pidfd_getfd(2). The kernel sets CLOEXEC by itself.
func pidfdGetfd(pidfd, n int) (int, error) {
	for {
		fd, err := unix.PidfdGetfd(pidfd, n, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// pidfdSendSignal is pidfd_send_signal(2).
func pidfdSendSignal(pidfd int, sig unix.Signal) error {
	for {
		err := unix.PidfdSendSignal(pidfd, sig, nil, 0)
		if err != unix.EINTR {
			return err
		}
	}
}

// exited reports whether the process (or, of a thread pidfd, the thread) has
// exited: it is a zombie or reaped. While it is false the number is not free.
func exited(pidfd int) (bool, error) {
	fds := [1]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds[:], 0)
		if err == unix.EINTR {
			continue
		}
		// POLLHUP comes on top when it has been reaped (Linux 6.9).
		return fds[0].Revents&(unix.POLLIN|unix.POLLHUP) != 0, os.NewSyscallError("poll", err)
	}
}

// unreaped reports whether the pidfd still has its task, be it a zombie. Until
// it is reaped its number is not free, so what was read by number *before* was
// read of the right one. If in doubt it says no.
func (k *kernel) unreaped(pidfd int) bool {
	err := k.pidfdSendSignal(pidfd, 0)
	// The permission to signal is checked on the task that was found.
	return err == nil || err == unix.EPERM
}
