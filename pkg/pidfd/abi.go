//go:build linux

package pidfd

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// pidfdThread is PIDFD_THREAD (Linux 6.9), which include/uapi/linux/pidfd.h
// defines as O_EXCL; its value differs between architectures.
const pidfdThread = unix.O_EXCL

// pidfdInfo is struct pidfd_info as of Linux 6.13 (PIDFD_INFO_SIZE_VER0). The
// kernel fills as much of it as the size in the request says, so the struct is
// not to grow without the request.
type pidfdInfo struct {
	mask     uint64
	cgroupid uint64
	pid      uint32
	tgid     uint32
	ppid     uint32
	ruid     uint32
	rgid     uint32
	euid     uint32
	egid     uint32
	suid     uint32
	sgid     uint32
	fsuid    uint32
	fsgid    uint32
	_        uint32 // spare0, later exit_code
}

const (
	iocSizeShift = 16
	iocSizeMask  = 0x1fff << iocSizeShift // 13 bits are common to all architectures

	// pidfdGetInfo is _IOWR(0xFF, 11, struct pidfd_info). That of x/sys carries
	// the size of a later struct.
	pidfdGetInfo = unix.PIDFD_GET_INFO&^iocSizeMask | unix.PIDFD_INFO_SIZE_VER0<<iocSizeShift

	// iocNone is _IOC_NONE in place: 0, but not on mips, powerpc and sparc.
	// NS_GET_USERNS is an _IO, too.
	iocNone = unix.NS_GET_USERNS &^ 0xffff
)

// _IO(0xFF, n), Linux 6.11.
const (
	pidfdGetCgroupNamespace          = iocNone | 0xff00 | 1
	pidfdGetIPCNamespace             = iocNone | 0xff00 | 2
	pidfdGetMntNamespace             = iocNone | 0xff00 | 3
	pidfdGetNetNamespace             = iocNone | 0xff00 | 4
	pidfdGetPIDNamespace             = iocNone | 0xff00 | 5
	pidfdGetPIDForChildrenNamespace  = iocNone | 0xff00 | 6
	pidfdGetTimeNamespace            = iocNone | 0xff00 | 7
	pidfdGetTimeForChildrenNamespace = iocNone | 0xff00 | 8
	pidfdGetUserNamespace            = iocNone | 0xff00 | 9
	pidfdGetUTSNamespace             = iocNone | 0xff00 | 10
)

// getInfo is ioctl PIDFD_GET_INFO. It returns the struct by value to keep it
// off the heap in spite of the call through a function field.
func getInfo(pidfd int) (pidfdInfo, error) {
	info := pidfdInfo{mask: unix.PIDFD_INFO_PID | unix.PIDFD_INFO_CREDS | unix.PIDFD_INFO_CGROUPID}
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(pidfd), pidfdGetInfo, uintptr(unsafe.Pointer(&info)))
		switch errno {
		case 0:
			return info, nil
		case unix.EINTR:
		default:
			return pidfdInfo{}, errno
		}
	}
}

// getNamespace is ioctl PIDFD_GET_*_NAMESPACE. The kernel sets CLOEXEC by
// itself.
func getNamespace(pidfd int, request uint) (int, error) {
	for {
		// The argument has to be 0.
		fd, err := unix.IoctlRetInt(pidfd, request)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return -1, err
		}
		return fd, nil
	}
}
