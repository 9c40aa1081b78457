//go:build linux

package pidfd

import (
	"os"

	"golang.org/x/sys/unix"
)

// GetFD duplicates descriptor n of the process's leader or, if IsThread, of the
// thread (pidfd_getfd(2), Linux 5.6). The duplicate is close-on-exec and owned
// by the caller. It does not block, save for the moment in which the target
// replaces its program in execve(2).
//
// The duplicate shares the open file description with the original: file
// offset and status flags are one. GetFD leaves them alone, but much of Go does
// not. [net.FileConn] and its kin set O_NONBLOCK on it, and so on the file of a
// program that may expect to block. Use raw system calls on what was taken
// unless it is known to be non-blocking.
//
// Errors: EBADF if n is not open; ESRCH if the process has exited, be it a
// zombie; EPERM without PTRACE_MODE_ATTACH_REALCREDS over it; EMFILE and ENFILE.
func (f *FD) GetFD(n int) (int, error) {
	if err := f.acquire(); err != nil {
		return -1, err
	}
	defer f.release()

	if !inRange(n) {
		return -1, os.NewSyscallError("pidfd_getfd", unix.EBADF)
	}
	fd, err := f.k.pidfdGetfd(f.fd, n)
	if err == nil {
		return fd, nil
	}
	if err == unix.EBADF {
		// A zombie has no descriptors, for which older kernels say EBADF.
		if gone, pollErr := exited(f.fd); pollErr == nil && gone {
			err = unix.ESRCH
		}
	}
	return -1, os.NewSyscallError("pidfd_getfd", err)
}

// GetFile is GetFD with the duplicate in an [os.File] called name, which owns
// it.
//
// It does not change the status flags of the open file description, which is
// shared with the target. [os.NewFile] never sets O_NONBLOCK; where the target
// has set it already, the file goes to Go's poller and reads wait there.
// Otherwise each read that waits occupies a thread and deadlines do not work.
// What comes afterwards is the caller's business: passing the file to
// [net.FileConn], [net.FilePacketConn] or [net.FileListener] sets O_NONBLOCK for
// the target, too, and the target is free to change the flag at any time.
func (f *FD) GetFile(n int, name string) (*os.File, error) {
	fd, err := f.GetFD(n)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
