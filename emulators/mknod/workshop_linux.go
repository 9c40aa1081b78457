package mknod

import (
	"errors"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/mnt"
	"github.com/callgate/callgate/pkg/tracee"
)

// workshop is where device nodes are made that are then bound into
// containers: a tmpfs of the initial user namespace, so that devices on it
// open, in a mount namespace where it is the only mount, so that the host sees
// nothing and none of the host's mounts is kept. It is made when the first
// node needs it, and goes with the last container that needed it.
type workshop struct {
	mu      sync.Mutex // guards the rest
	room    *mnt.Room
	next    int
	benches int // in use; the room is open while there are any
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
func (w *workshop) open() (err error) {
	if w.benches > 0 {
		return nil
	}
	w.room, err = mnt.OpenRoom()
	return err
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
			b.shop.room.Close()
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
	var err error
	if b.dir, err = mnt.Tmpfs(mnt.TmpfsOptions{Bytes: 1 << 20, Inodes: maxInodes}); err != nil {
		return err
	}
	return thread.InMounts(b.shop.room.Namespace(), func() error {
		return b.shop.room.Mount(&b.dir, b.name)
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
	err = thread.InMounts(b.shop.room.Namespace(), func() error {
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
		b.shop.room.Close() // and with it the mount namespace, and all in it
		return nil
	}
	return b.shop.room.Unmount(b.name)
}
