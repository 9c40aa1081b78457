package filter

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Flags gives the SECCOMP_FILTER_FLAG_* bits for a profile's flags, see seccomp(2).
//
// SECCOMP_FILTER_FLAG_TSYNC is an error: the kernel refuses it together with a listener, and [Load] always makes one.
func Flags(names []specs.LinuxSeccompFlag) (uint, error) {
	var bits uint
	for _, name := range names {
		switch name {
		case specs.LinuxSeccompFlagLog:
			bits |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			bits |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case specs.LinuxSeccompFlagWaitKillableRecv:
			bits |= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
		default:
			return 0, fmt.Errorf("flag %q cannot be used with a listener", name)
		}
	}
	return bits, nil
}

// Supported tells whether the running kernel knows all of the SECCOMP_FILTER_FLAG_* bits in that combination, by trying. It loads nothing.
// An error means that it could not be found out, for example because seccomp(2) itself is filtered.
func Supported(flags uint) (bool, error) {
	// The kernel judges the flags before it reads the program: EFAULT for the nil program means that it got past them.
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), 0)
	switch errno {
	case unix.EFAULT:
		return true, nil
	case unix.EINVAL:
		return false, nil
	}
	return false, fmt.Errorf("probe filter flags %#x: %w", flags, os.NewSyscallError("seccomp", errno))
}

// Load puts the program on the calling OS thread and returns the descriptor of its listener (close-on-exec, owned by the caller).
//
// The filter covers this thread and what it clones and executes from now on, not the process's other threads: the caller
// has called [runtime.LockOSThread], never unlocks, and executes the container's program from the same thread. It also
// holds CAP_SYS_ADMIN in its user namespace or has set no_new_privs (PR_SET_NO_NEW_PRIVS), else Load gives EACCES.
// Loading cannot be undone.
//
// flags are SECCOMP_FILTER_FLAG_* bits as from [Flags]. NEW_LISTENER is always added, and WAIT_KILLABLE_RECV (Linux 5.19) where the kernel
// has it: without it any signal to a waiting caller makes its call be notified a second time. To know whether it was in effect ask
// [Supported] for both bits. EBUSY means that a filter of this thread already has a listener; the kernel admits one in a chain.
//
// The result is a bare number rather than an [os.File] because the filter is already active: making an os.File calls fcntl(2), and if the
// profile notifies what is called between here and the hand-over of the descriptor, nobody is there to answer
// (runc#4328 hung that way). Hand it over with nothing but the one call that does it.
func Load(prog []unix.SockFilter, flags uint) (listener int, err error) {
	if len(prog) == 0 || len(prog) > maxInstructions {
		return -1, fmt.Errorf("load filter: %d instructions: %w", len(prog), unix.EINVAL)
	}
	if flags&(unix.SECCOMP_FILTER_FLAG_TSYNC|unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH) != 0 {
		return -1, fmt.Errorf("load filter: TSYNC with a listener: %w", unix.EINVAL)
	}
	flags |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	listener, err = setFilter(prog, flags|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
	if errors.Is(err, unix.EINVAL) {
		listener, err = setFilter(prog, flags&^unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
	}
	if err != nil {
		return -1, fmt.Errorf("load filter: %w", err)
	}
	return listener, nil
}

// setFilter is seccomp(2) with SECCOMP_SET_MODE_FILTER.
func setFilter(prog []unix.SockFilter, flags uint) (int, error) {
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	// RawSyscall: entering the scheduler between the filter and the hand-over could start a thread, that is a clone(2) under the filter.
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(&fprog)))
	runtime.KeepAlive(prog)
	if errno != 0 {
		return -1, os.NewSyscallError("seccomp", errno)
	}
	return int(fd), nil
}
