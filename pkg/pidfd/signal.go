//go:build linux

package pidfd

import (
	"os"

	"golang.org/x/sys/unix"
)

// SendSignal sends sig to the process or, if IsThread, to exactly that thread
// (pidfd_send_signal(2)). Signal 0 sends nothing and only looks whether there is
// one. It does not block.
//
// No flag says which of both it is: the kernel goes by the kind of the pidfd,
// since the release that introduced thread pidfds. PIDFD_SIGNAL_THREAD (6.9)
// would aim at the leader of a process, which is seldom what is meant.
//
// A signal whose default action is to stop or to kill does that to the whole
// process even if it was sent to a thread.
//
// Errors: ESRCH once it has been reaped (a zombie takes signals, without
// effect); EPERM as with kill(2); EINVAL if sig is no signal, or the process is
// not in our PID namespace or below it.
func (f *FD) SendSignal(sig unix.Signal) error {
	if err := f.acquire(); err != nil {
		return err
	}
	defer f.release()
	return os.NewSyscallError("pidfd_send_signal", f.k.pidfdSendSignal(f.fd, sig))
}

// Alive reports whether the process or, if IsThread, the thread has not exited.
// A zombie is not alive. It does not block and needs no permission.
//
// A process lives as long as any of its threads. On newer kernels (seen on 6.18)
// so does a thread pidfd of the leader: the leader's exit shows only when the
// other threads have exited.
func (f *FD) Alive() (bool, error) {
	if err := f.acquire(); err != nil {
		return false, err
	}
	defer f.release()
	gone, err := exited(f.fd)
	return err == nil && !gone, err
}
