package tracee

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/pidfd"
)

// mountIDRequest is struct mnt_id_req (linux/mount.h), with mnt_ns_id of
// Linux 6.11 (MNT_ID_REQ_SIZE_VER1).
type mountIDRequest struct {
	size    uint32
	spare   uint32
	mountID uint64
	param   uint64
	mountNS uint64
}

// sysStatmount is statmount(2), Linux 6.8; one number on every architecture.
const sysStatmount = 457

// nsGetMountNSID is NS_GET_MNTNS_ID of linux/nsfs.h, Linux 6.11.
const nsGetMountNSID = 0x8008b705

// OwnsMount says whether the file behind h, which st describes, is on a mount of the
// caller's mount namespace. A directory that leaked into a container is not:
// the caller may work there by its own rights, and by none of ours.
//
// With patient false it gives [ErrBlocks] where the kernel cannot be asked
// cheaply (before Linux 6.11).
func (t *Tracee) OwnsMount(h *Handle, st *Stat, patient bool) (bool, error) {
	if st.Unique {
		owns, err := t.statmount(st.MountID)
		if err == nil {
			return owns, nil
		}
		if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTTY) {
			return false, err
		}
	}
	if !patient {
		return false, ErrBlocks
	}
	return t.searchMountinfo(h)
}

// HasMount says whether the caller's mount namespace has the mount of a number
// that no other mount ever has. It needs Linux 6.11 (ENOSYS, EINVAL or ENOTTY
// before) and the right to open the caller's namespaces.
func (t *Tracee) HasMount(mount uint64) (bool, error) { return t.statmount(mount) }

func (t *Tracee) statmount(mount uint64) (bool, error) {
	ns, err := t.Namespace(pidfd.NSMount)
	if err != nil {
		return false, err
	}
	defer ns.Close()
	req := mountIDRequest{size: uint32(unsafe.Sizeof(mountIDRequest{})), mountID: mount}
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(ns.FD()), nsGetMountNSID, uintptr(unsafe.Pointer(&req.mountNS)))
	if errno != 0 {
		return false, fmt.Errorf("ioctl NS_GET_MNTNS_ID: %w", errno)
	}
	var buf [512]byte // struct statmount; nothing is asked for
	_, _, errno = unix.Syscall6(sysStatmount, uintptr(unsafe.Pointer(&req)), uintptr(unsafe.Pointer(&buf)), uintptr(len(buf)), 0, 0, 0)
	switch errno {
	case 0:
		return true, nil
	case unix.ENOENT:
		return false, nil
	default:
		return false, fmt.Errorf("statmount: %w", errno)
	}
}

// nsGetUserNS is NS_GET_USERNS of linux/nsfs.h, Linux 4.9.
const nsGetUserNS = 0xb701

// Owner identifies the user namespace that a namespace belongs to: the one in
// which its privileges count. EPERM if that is outside of the supervisor's.
func Owner(ns *Handle) (pidfd.NSID, error) {
	fd, err := unix.IoctlRetInt(ns.FD(), nsGetUserNS)
	if err != nil {
		return pidfd.NSID{}, fmt.Errorf("ioctl NS_GET_USERNS: %w", err)
	}
	owner := NewHandle(fd) // close-on-exec: open_namespace of fs/nsfs.c
	defer owner.Close()
	st, err := owner.Stat()
	if err != nil {
		return pidfd.NSID{}, err
	}
	return pidfd.NSID{Dev: st.Dev, Ino: st.Ino}, nil
}
