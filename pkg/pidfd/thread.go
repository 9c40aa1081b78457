//go:build linux

package pidfd

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// OpenThread returns a pidfd of the thread with the number tid in the PID
// namespace of the calling process, be it a leader or not (pidfd_open(2) with
// PIDFD_THREAD, Linux 6.9). It does not block. It fails with ESRCH if there is
// no such thread.
//
// On older kernels it returns a pidfd of the thread's process, and
// [FD.IsThread] is false. Then signals go to the process and exit means that of
// the process; descriptors, credentials and namespaces are those of the
// leader, and a caller to whom the difference matters has to rule it out (see
// kcmp(2)) unless [FD.PID] is tid.
func OpenThread(tid int) (*FD, error) {
	return host.openThread(tid)
}

func (k *kernel) openThread(tid int) (*FD, error) {
	if tid == 0 || !inRange(tid) {
		return nil, os.NewSyscallError("pidfd_open", unix.EINVAL)
	}
	if k.threads.known() == unsupported {
		return k.openProcessOf(tid)
	}
	fd, err := k.pidfdOpen(tid, pidfdThread)
	if err == nil {
		k.threads.remember(supported)
		return k.newFD(fd, tid, true), nil
	}
	if err != unix.EINVAL {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	// EINVAL is the flag or the number. A number can be in use by no thread and
	// yet be known to the kernel: that of a process group or session whose
	// leader is gone.
	switch k.probeThreads() {
	case supported:
		return nil, os.NewSyscallError("pidfd_open", unix.ESRCH)
	case unsupported:
		return k.openProcessOf(tid)
	default:
		return nil, os.NewSyscallError("pidfd_open", err)
	}
}

// probeThreads tries PIDFD_THREAD on the calling thread, where the number
// cannot be at fault.
func (k *kernel) probeThreads() support {
	if s := k.threads.known(); s != couldNotTell {
		return s
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	s := couldNotTell
	fd, err := k.pidfdOpen(unix.Gettid(), pidfdThread)
	switch err {
	case nil:
		_ = unix.Close(fd)
		s = supported
	case unix.EINVAL:
		s = unsupported
	}
	k.threads.remember(s)
	return s
}

// openProcessOf opens the process that the thread tid is in.
func (k *kernel) openProcessOf(tid int) (*FD, error) {
	// Without the flag only leaders can be opened. What the others get is EINVAL
	// or ENOENT, by release, and either may mean other things; so ask /proc.
	fd, err := k.pidfdOpen(tid, 0)
	if err == nil {
		return k.newFD(fd, tid, false), nil
	}
	if err != unix.EINVAL && err != unix.ENOENT {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	before, err := k.readStatus(tid)
	if err != nil {
		return nil, err
	}
	tgid := int(before.TGID)
	fd, err = k.pidfdOpen(tgid, 0)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	f := k.newFD(fd, tgid, false)

	// The process may have died before pidfd_open and tgid be another's by then.
	// If the thread is in tgid now, and the pidfd holds the number tgid beyond
	// this point, then the thread is in the process that the pidfd refers to.
	after, err := k.readStatus(tid)
	if err == nil && (after.TGID != before.TGID || !k.unreaped(fd)) {
		err = os.NewSyscallError("pidfd_open", unix.ESRCH)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
