package mnt

import (
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/tracee"
)

// Room is a mount namespace with one mount in it, an empty tmpfs: nobody sees
// what is mounted there, it keeps no mount of the host's in use, and no path
// leads from it to the host's files. Device nodes on its tmpfs open. It lasts
// for as long as a descriptor of it is open, or a mount.
type Room struct {
	ns  tracee.Handle
	dir tracee.Handle
}

// Namespace lends the mount namespace.
func (r *Room) Namespace() *tracee.Handle { return &r.ns }

// Dir lends the root directory.
func (r *Room) Dir() *tracee.Handle { return &r.dir }

// Close gives the room up.
func (r *Room) Close() {
	r.ns.Close()
	r.dir.Close()
}

// Mount mounts a detached mount, which is borrowed, in a new directory of the
// room. The thread must be in the room's namespace.
func (r *Room) Mount(tree *tracee.Handle, name string) error {
	if err := unix.Mkdirat(r.dir.FD(), name, 0o700); err != nil {
		return os.NewSyscallError("mkdirat", err)
	}
	err := attachAt(tree, &r.dir, name)
	if err != nil {
		_ = unix.Unlinkat(r.dir.FD(), name, unix.AT_REMOVEDIR)
	}
	return err
}

// Unmount takes back what Mount did, lazily, from anywhere.
func (r *Room) Unmount(name string) error {
	return elsewhere(func() error {
		if err := enter(&r.ns); err != nil {
			return err
		}
		if err := unix.Unmount("/"+name, unix.MNT_DETACH); err != nil {
			return os.NewSyscallError("umount2", err)
		}
		return os.NewSyscallError("unlinkat", unix.Unlinkat(r.dir.FD(), name, unix.AT_REMOVEDIR))
	})
}

// OpenRoom makes a room. It takes CAP_SYS_ADMIN, and a millisecond.
func OpenRoom() (*Room, error) {
	r := &Room{}
	err := elsewhere(r.build)
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("make a mount namespace: %w", err)
	}
	return r, nil
}

// elsewhere runs f on a thread that ends with it: one that has changed its
// mount namespace is for nobody else.
func elsewhere(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The process's first thread never ends, and is what /proc shows of the
			// process. Held here, the next one is another.
			err := elsewhere(f)
			runtime.UnlockOSThread()
			done <- err
			return
		}
		done <- f() // never unlocked: the thread ends with the goroutine
	}()
	return <-done
}

func (r *Room) build() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare CLONE_NEWNS", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount MS_PRIVATE", err)
	}
	ns, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/proc/thread-self/ns/mnt", Err: err}
	}
	r.ns = tracee.NewHandle(ns)
	if r.dir, err = Tmpfs(TmpfsOptions{}); err != nil {
		return err
	}
	return becomeRoot(&r.dir)
}

// becomeRoot makes a detached mount the root of the thread's mount namespace,
// and the only mount in it.
func becomeRoot(tree *tracee.Handle) error {
	// Anywhere: it becomes the root at once.
	err := unix.MoveMount(tree.FD(), "", unix.AT_FDCWD, "/proc", unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err != nil {
		return os.NewSyscallError("move_mount", err)
	}
	if err := unix.Fchdir(tree.FD()); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	// pivot_root(2), NOTES: the old root ends up over the new one, and goes.
	if err := unix.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	return os.NewSyscallError("umount2", unix.Unmount(".", unix.MNT_DETACH))
}

// TmpfsOptions bound a tmpfs; 0 is the kernel's default.
type TmpfsOptions struct {
	Bytes, Inodes uint64
}

// Tmpfs makes a detached tmpfs that only root may enter, without set-user-id
// programs.
func Tmpfs(o TmpfsOptions) (tracee.Handle, error) {
	fs, err := New("tmpfs")
	if err != nil {
		return tracee.Handle{}, err
	}
	defer fs.Close()
	options := [][2]string{{"mode", "0700"}}
	if o.Bytes > 0 {
		options = append(options, [2]string{"size", strconv.FormatUint(o.Bytes, 10)})
	}
	if o.Inodes > 0 {
		options = append(options, [2]string{"nr_inodes", strconv.FormatUint(o.Inodes, 10)})
	}
	for _, option := range options {
		if err := fs.SetString(option[0], option[1]); err != nil {
			return tracee.Handle{}, fmt.Errorf("set %s: %w", option[0], err)
		}
	}
	if err := fs.Create(); err != nil {
		return tracee.Handle{}, err
	}
	return fs.Mount(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC)
}
