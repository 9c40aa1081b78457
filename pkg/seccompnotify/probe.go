package seccompnotify

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// KernelSizes asks the kernel for the sizes of its structs
// (SECCOMP_GET_NOTIF_SIZES, Linux 5.0). An error means that the kernel has no
// user notification.
func KernelSizes() (Sizes, error) {
	var s Sizes
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_NOTIF_SIZES, 0, uintptr(unsafe.Pointer(&s)))
	if errno != 0 {
		return Sizes{}, os.NewSyscallError("seccomp SECCOMP_GET_NOTIF_SIZES", errno)
	}
	return s, nil
}

// Usable returns nil if this package speaks the running kernel's notification
// format, otherwise what is wrong. A kernel whose structs have grown copies
// more than ours hold, so it is refused rather than overrun.
func Usable() error {
	s, err := KernelSizes()
	if err != nil {
		return fmt.Errorf("seccomp user notification: %w", err)
	}
	want := Sizes{
		Notification: uint16(unsafe.Sizeof(Notification{})),
		Response:     uint16(unsafe.Sizeof(response{})),
		Data:         uint16(unsafe.Sizeof(Data{})),
	}
	if s != want {
		return fmt.Errorf("seccomp user notification: kernel's structs have %d, %d and %d bytes, ours %d, %d and %d",
			s.Notification, s.Response, s.Data, want.Notification, want.Response, want.Data)
	}
	return nil
}

// HasFilterFlag says whether the kernel's seccomp(SECCOMP_SET_MODE_FILTER)
// knows a SECCOMP_FILTER_FLAG_*. It asks with a filter at a bad address: a
// flag that is known gives EFAULT, one that is not EINVAL. Some flags need
// company: WAIT_KILLABLE_RECV (5.19) is only valid with NEW_LISTENER.
func HasFilterFlag(flags uintptr) (bool, error) {
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, 0)
	switch errno {
	case unix.EFAULT:
		return true, nil
	case unix.EINVAL:
		return false, nil
	default:
		return false, os.NewSyscallError("seccomp SECCOMP_SET_MODE_FILTER", errno)
	}
}
