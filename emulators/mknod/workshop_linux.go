package mknod

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/tracee"
)

// workshop is where device nodes are made that are then bound into
// containers: a tmpfs of the initial user namespace, so that devices on it
// open, in a mount namespace where it is the only mount, so that the host sees
// nothing and none of the host's mounts is kept. It is made when the first
// node needs it, and goes with the last container that needed it.
type workshop struct {
	mu      sync.Mutex // guards the rest
	ns      tracee.Handle
	dir     tracee.Handle
	next    int
	benches int // in use; the handles are open while there are any
}

// bench is one container's part of the workshop.
type bench struct {
	shop *workshop

	mu    sync.Mutex // guards the rest; taken before the workshop's
	dir   tracee.Handle
	name  string
	nodes []string // the youngest last
	next  int
	ready bool
	done  bool
}

const (
	// maxNodes bounds the nodes kept by name for one container. An older one
	// works on for as long as it is mounted, but has no name any more.
	maxNodes = 256
	// maxInodes bounds all of one container's nodes that live.
	maxInodes = 8192
)

func (w *workshop) bench() *bench { return &bench{shop: w} }

// open makes the workshop.
func (w *workshop) open() error {
	if w.benches > 0 {
		return nil
	}
	failed := make(chan error)
	go func() {
		// Never unlocked: a thread in a mount namespace of its own is for
		// nobody else, and ends with this goroutine.
		runtime.LockOSThread()
		failed <- w.build()
	}()
	if err := <-failed; err != nil {
		w.close()
		return fmt.Errorf("make a place for device nodes: %w", err)
	}
	return nil
}

func (w *workshop) close() {
	w.ns.Close()
	w.dir.Close()
}

func (w *workshop) build() error {
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
	w.ns = tracee.NewHandle(ns)
	dir, err := newTmpfs(map[string]string{"mode": "0700"})
	if err != nil {
		return err
	}
	w.dir = tracee.NewHandle(dir)
	// Anywhere: it becomes the root at once.
	err = unix.MoveMount(dir, "", unix.AT_FDCWD, "/proc", unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err != nil {
		return os.NewSyscallError("move_mount", err)
	}
	if err := unix.Fchdir(dir); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	// pivot_root(2), NOTES: the old root ends up over the new one, and goes.
	if err := unix.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	return os.NewSyscallError("umount2", unix.Unmount(".", unix.MNT_DETACH))
}

func newTmpfs(options map[string]string) (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("fsopen", err)
	}
	defer func() { _ = unix.Close(fs) }()
	for key, value := range options {
		if err := unix.FsconfigSetString(fs, key, value); err != nil {
			return -1, os.NewSyscallError("fsconfig "+key, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, os.NewSyscallError("fsconfig create", err)
	}
	dir, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
	return dir, os.NewSyscallError("fsmount", err)
}

// open makes the bench: a tmpfs of its own in the workshop, so that a container
// that has more nodes mounted than fit gets ENOSPC, and no other does.
func (b *bench) open(thread *tracee.Thread) error {
	if b.done {
		return os.ErrClosed
	}
	if b.ready {
		return nil
	}
	b.shop.mu.Lock()
	defer b.shop.mu.Unlock()
	if err := b.shop.open(); err != nil {
		return err
	}
	if err := b.set(thread); err != nil {
		b.dir.Close()
		if b.shop.benches == 0 {
			b.shop.close()
		}
		return err
	}
	b.shop.benches++
	b.ready = true
	return nil
}

// set puts the bench up. The workshop's mutex is held.
func (b *bench) set(thread *tracee.Thread) error {
	b.name = strconv.Itoa(b.shop.next)
	b.shop.next++
	fd, err := newTmpfs(map[string]string{"mode": "0700", "nr_inodes": strconv.Itoa(maxInodes), "size": "1M"})
	if err != nil {
		return err
	}
	b.dir = tracee.NewHandle(fd)
	return thread.InMounts(&b.shop.ns, func() error {
		if err := unix.Mkdirat(b.shop.dir.FD(), b.name, 0o700); err != nil {
			return os.NewSyscallError("mkdirat", err)
		}
		err := unix.MoveMount(fd, "", b.shop.dir.FD(), b.name, unix.MOVE_MOUNT_F_EMPTY_PATH)
		return os.NewSyscallError("move_mount", err)
	})
}

// device makes a node and a detached mount of it, which whoever asked closes.
// Ids are the host's.
func (b *bench) device(thread *tracee.Thread, mode, dev, uid, gid uint32) (tracee.Handle, tracee.Stat, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := thread.Privileged(func() error { return b.open(thread) })
	if err != nil {
		return tracee.Handle{}, tracee.Stat{}, err
	}
	name := strconv.Itoa(b.next)
	b.next++
	if err := b.node(thread, name, mode, dev, uid, gid); err != nil {
		return tracee.Handle{}, tracee.Stat{}, err
	}
	b.nodes = append(b.nodes, name)
	var tree tracee.Handle
	err = thread.InMounts(&b.shop.ns, func() error {
		if len(b.nodes) > maxNodes {
			_ = unix.Unlinkat(b.dir.FD(), b.nodes[0], 0)
			b.nodes = append(b.nodes[:0], b.nodes[1:]...)
		}
		fd, err := unix.OpenTree(b.dir.FD(), name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
		if err == nil {
			tree = tracee.NewHandle(fd)
		}
		return os.NewSyscallError("open_tree", err)
	})
	if err != nil {
		tree.Close()
		return tracee.Handle{}, tracee.Stat{}, err
	}
	st, err := tree.Stat()
	if err != nil {
		tree.Close()
		return tracee.Handle{}, tracee.Stat{}, err
	}
	return tree, st, nil
}

// node makes one node. Nobody can look into the workshop, so that the mode and
// the owner may come one after the other.
func (b *bench) node(thread *tracee.Thread, name string, mode, dev, uid, gid uint32) error {
	root := tracee.Identity{}
	caps := tracee.Capability(unix.CAP_MKNOD) | tracee.Capability(unix.CAP_CHOWN) |
		tracee.Capability(unix.CAP_FOWNER) | tracee.Capability(unix.CAP_FSETID) | tracee.Capability(unix.CAP_DAC_OVERRIDE)
	return thread.As(&root, caps, func() error {
		dir := b.dir.FD()
		if err := unix.Mknodat(dir, name, mode, int(dev)); err != nil {
			return os.NewSyscallError("mknodat", err)
		}
		err := unix.Fchownat(dir, name, int(uid), int(gid), unix.AT_SYMLINK_NOFOLLOW)
		if err == nil {
			err = unix.Fchmodat(dir, name, mode&^unix.S_IFMT, 0) // after the owner: chown clears setuid
		}
		if err != nil {
			return errors.Join(os.NewSyscallError("own new node", err), unix.Unlinkat(dir, name, 0))
		}
		return nil
	})
}

// close takes the bench down. What is still mounted somewhere lives until it is
// unmounted there.
func (b *bench) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done = true
	if !b.ready {
		return nil
	}
	b.ready = false
	b.dir.Close()
	b.shop.mu.Lock()
	defer b.shop.mu.Unlock()
	if b.shop.benches--; b.shop.benches == 0 {
		b.shop.close() // and with it the mount namespace, and all in it
		return nil
	}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: see open
		failed <- b.shop.remove(b.name)
	}()
	return <-failed
}

// remove takes a bench out of the workshop. The thread ends up in there.
func (w *workshop) remove(name string) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare CLONE_FS", err)
	}
	if err := unix.Setns(w.ns.FD(), unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("setns CLONE_NEWNS", err)
	}
	if err := unix.Unmount("/"+name, unix.MNT_DETACH); err != nil {
		return os.NewSyscallError("umount2", err)
	}
	return os.NewSyscallError("unlinkat", unix.Unlinkat(w.dir.FD(), name, unix.AT_REMOVEDIR))
}
