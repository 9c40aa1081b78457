package mnt

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/tracee"
)

// Clone makes a detached mount of what h refers to, not of what is mounted
// below. h must be on a mount of the thread's mount namespace: EINVAL if not.
func Clone(h *tracee.Handle) (tracee.Handle, error) { return cloneAt(h, "") }

// cloneAt is Clone of name below dir; of dir itself for "".
func cloneAt(dir *tracee.Handle, name string) (tracee.Handle, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_SYMLINK_NOFOLLOW)
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	fd, err := unix.OpenTree(dir.FD(), name, flags)
	if err != nil {
		return tracee.Handle{}, os.NewSyscallError("open_tree", err)
	}
	return tracee.NewHandle(fd), nil
}

// Attach mounts a detached mount onto what at refers to, which must be on a
// mount of the thread's mount namespace: EINVAL if not.
func Attach(tree, at *tracee.Handle) error {
	err := unix.MoveMount(tree.FD(), "", at.FD(), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	return os.NewSyscallError("move_mount", err)
}

// attachAt mounts a detached mount onto name below dir.
func attachAt(tree, dir *tracee.Handle, name string) error {
	err := unix.MoveMount(tree.FD(), "", dir.FD(), name, unix.MOVE_MOUNT_F_EMPTY_PATH)
	return os.NewSyscallError("move_mount", err)
}

// Attributes are changes to a mount: MOUNT_ATTR_* to set and to clear.
type Attributes struct {
	Set, Clear uint64
}

// Change applies them to the mount that h is the root of; EPERM where a flag is
// locked.
func (a Attributes) Change(h *tracee.Handle) error {
	if a == (Attributes{}) {
		return nil
	}
	attr := unix.MountAttr{Attr_set: a.Set, Attr_clr: a.Clear}
	return setattr(h, &attr)
}

// Shift makes a detached mount show ids as they are in the user namespace
// (idmapped mounts, Linux 5.12): what 0 owns on the filesystem, that
// namespace's root owns. EINVAL if the filesystem cannot do it.
func Shift(tree, user *tracee.Handle) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(user.FD())}
	return setattr(tree, &attr)
}

func propagate(h *tracee.Handle, how uint64) error {
	return setattr(h, &unix.MountAttr{Propagation: how})
}

func setattr(h *tracee.Handle, attr *unix.MountAttr) error {
	return os.NewSyscallError("mount_setattr", unix.MountSetattr(h.FD(), "", unix.AT_EMPTY_PATH, attr))
}

// Detach unmounts the mount that root is the root of, lazily.
func Detach(root *tracee.Handle) error {
	// By name there is only the working directory: a descriptor has none, and
	// /proc is not ours wherever the thread is. It is put back by whoever sent
	// the thread into another mount namespace.
	if err := unix.Fchdir(root.FD()); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	return os.NewSyscallError("umount2", unix.Unmount(".", unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
}
