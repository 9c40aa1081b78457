package doctor

import (
	"context"
	"errors"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/mnt"
	"github.com/callgate/callgate/pkg/pidfd"
	"github.com/callgate/callgate/pkg/tracee"
)

func mountProbes() []probe {
	return []probe{
		{
			id: "statx.mount_id", title: "mount ids that are never used again (6.8)", try: uniqueMountID,
			cost: "filesystems are asked about anew for each call, on a worker thread",
		},
		{
			id: "statmount", title: "statmount of a namespace (6.11)", try: statmount,
			cost: "for relative paths the caller's mountinfo is searched, on a worker thread",
		},
		{
			id: "mount.api", title: "fsopen, fsmount, open_tree (5.2)", try: newMountAPI,
			cost: "no device opens on a container's own tmpfs, such as runc's /dev with a user namespace",
		},
		{
			id: "mount.idmap", title: "idmapped mounts (5.12)", try: idmappedMount,
			cost: "mount shifts no ids; callgate run cannot give its container a root filesystem that the host's root owns",
		},
		{
			id: "mount.seal", title: "mount flags that a container cannot clear", try: sealedMount,
			cost: "mount refuses containers with a user namespace of their own, unless policy lifts nosuid and nodev",
		},
		{
			id: "mount.loop", title: "loop devices for images", try: device("/dev/loop-control"),
			cost: "mount cannot do loop: true",
		},
		{
			id: "mount.fuse", title: "FUSE", try: device("/dev/fuse"),
			cost: "mount cannot do via: fuse",
		},
		{
			id: "mount.kmsg", title: "the kernel's log", try: readable("/dev/kmsg"),
			cost: "why the kernel refuses a filesystem is not in callgate's log, where only the kernel's own has it (ext4, xfs, btrfs)",
		},
		{
			id: "mknod", title: "a device node can be made and opened", required: true, try: deviceNode,
			cost: "mknod fails: callgate itself is in a user namespace, lacks CAP_MKNOD or may not by its device cgroup",
		},
	}
}

func openPath(path string) (tracee.Handle, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return tracee.Handle{}, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return tracee.NewHandle(fd), nil
}

func uniqueMountID(context.Context) finding {
	root, err := openPath("/")
	if err != nil {
		return unsure(err)
	}
	defer root.Close()
	st, err := root.Stat()
	switch {
	case err != nil:
		return unsure(err)
	case !st.Unique:
		return no("")
	}
	return yes("")
}

// statmount asks what the agent asks of a caller, of this thread.
func statmount(context.Context) finding {
	proc, err := tracee.OpenProc()
	if err != nil {
		return unsure(err)
	}
	defer proc.Close()
	root, err := openPath("/")
	if err != nil {
		return unsure(err)
	}
	defer root.Close()
	st, err := root.Stat()
	if err != nil {
		return unsure(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	waiting := func() error { return nil }
	self := tracee.New(proc)
	self.Reset(unix.Gettid(), waiting)
	defer self.Reset(0, waiting)
	owns, err := self.OwnsMount(&root, &st, false)
	switch {
	case err != nil:
		return tell(err, tracee.ErrBlocks)
	case !owns:
		return unsure(errors.New("statmount: / is on no mount of this mount namespace"))
	}
	return yes("")
}

func newMountAPI(context.Context) finding {
	dir, err := detachedTmpfs()
	if err != nil {
		return tell(err, unix.ENOSYS)
	}
	defer func() { _ = unix.Close(dir) }()
	tree, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return tell(os.NewSyscallError("open_tree", err), unix.ENOSYS)
	}
	_ = unix.Close(tree)
	return yes("")
}

// detachedTmpfs is a tmpfs that is mounted nowhere and goes with its
// descriptor.
func detachedTmpfs() (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("fsopen", err)
	}
	defer func() { _ = unix.Close(fs) }()
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, os.NewSyscallError("fsconfig", err)
	}
	dir, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("fsmount", err)
	}
	return dir, nil
}

func deviceNode(context.Context) finding {
	dir, err := detachedTmpfs()
	if err != nil {
		return unsure(err) // there is no other place that nobody sees
	}
	defer func() { _ = unix.Close(dir) }()
	if err := unix.Mknodat(dir, "null", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil {
		return tell(os.NewSyscallError("mknodat", err), unix.EPERM)
	}
	fd, err := unix.Openat(dir, "null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return tell(os.NewSyscallError("openat", err), unix.EACCES, unix.EPERM)
	}
	_ = unix.Close(fd)
	return yes("")
}

// idmappedMount tries it on the filesystem of temporary files, where callgate
// run makes its root filesystems.
func idmappedMount(context.Context) finding {
	ns, err := mappedNamespace()
	if err != nil {
		return unsure(err)
	}
	defer func() { _ = unix.Close(ns) }()
	dir := os.TempDir()
	tree, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return tell(&os.PathError{Op: "open_tree", Path: dir, Err: err}, unix.ENOSYS)
	}
	defer func() { _ = unix.Close(tree) }()
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns)}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return tell(&os.PathError{Op: "mount_setattr", Path: dir, Err: err}, unix.ENOSYS, unix.EINVAL)
	}
	return yes(dir)
}

// mappedNamespace is a user namespace with ids mapped. It takes a process,
// which is stopped before its first instruction and killed.
func mappedNamespace() (ns int, err error) {
	ns = -1
	onThread(func() { // whoever traces is a thread
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
		p, startErr := os.StartProcess("/proc/self/exe", []string{"callgate"}, &os.ProcAttr{
			Env: []string{"PATH=/nonexistent"},
			Sys: &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, Ptrace: true},
		})
		if startErr != nil {
			err = startErr
			return
		}
		ns, err = userNamespace(p.Pid)
		err = errors.Join(err, p.Kill())
		_, waitErr := p.Wait()
		err = errors.Join(err, waitErr)
	})
	if err != nil && ns >= 0 {
		_ = unix.Close(ns)
		ns = -1
	}
	return ns, err
}

func userNamespace(pid int) (int, error) {
	fd, err := pidfd.Open(pid)
	if err != nil {
		return -1, err
	}
	defer func() { _ = fd.Close() }()
	return fd.Namespace(pidfd.NSUser)
}

// sealedMount makes what the mount emulator needs to lock a mount's flags.
func sealedMount(context.Context) finding {
	room, err := mnt.OpenRoom()
	if err != nil {
		return unsure(err)
	}
	defer room.Close()
	sealer, err := mnt.OpenSealer(room)
	if err != nil {
		return tell(err, unix.ENOSPC, unix.EPERM) // user.max_user_namespaces is 0
	}
	sealer.Close()
	return yes("")
}

// device looks whether there is one.
func device(path string) func(context.Context) finding {
	return func(context.Context) finding {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return tell(&os.PathError{Op: "stat", Path: path, Err: err}, unix.ENOENT)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFCHR {
			return no("not a device")
		}
		return yes("")
	}
}

// readable looks whether a file can be opened.
func readable(path string) func(context.Context) finding {
	return func(context.Context) finding {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return tell(&os.PathError{Op: "open", Path: path, Err: err}, unix.ENOENT, unix.EPERM, unix.EACCES)
		}
		_ = unix.Close(fd)
		return yes("")
	}
}
