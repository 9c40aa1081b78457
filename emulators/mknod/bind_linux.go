package mknod

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/pidfd"
	"github.com/callgate/callgate/pkg/tracee"
)

// settleNode finds out whether the node that was just made opens and, where
// the filesystem was mounted in a user namespace and no device on it opens,
// binds one that does over it. Below the mount the node stays what it is.
func (m *maker) settleNode() error {
	node, st, err := m.node(m.call.kind)
	if err != nil {
		return err
	}
	defer node.Close()
	opens, err := m.req.Thread().DevicesOpen(&node, &st)
	if err != nil {
		return m.discard(err)
	}
	if opens {
		m.req.Container().Mounts.Learn(&m.stat, m.fs, false)
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(node.FD(), &fs); err != nil {
		return m.discard(os.NewSyscallError("fstatfs", err))
	}
	if fs.Flags&unix.ST_NODEV != 0 {
		// The mount's own flag, which the container may lift: real root's node
		// would not open either.
		return nil
	}
	m.req.Container().Mounts.Learn(&m.stat, m.fs, true)
	return m.bind(&node, st.Mode, &st)
}

// bindOverFile is for an overlay of the container's own, on which not even we
// can make a node: an empty file of the caller's takes its place.
func (m *maker) bindOverFile() error {
	mode := m.call.mode &^ unix.S_IFMT
	if err := m.mknodat(0, unix.S_IFREG|mode, 0); err != nil {
		return err
	}
	node, st, err := m.node(unix.S_IFREG)
	if err != nil {
		return err
	}
	defer node.Close()
	return m.bind(&node, st.Mode, &st)
}

// bind puts a device node with the mode and owner of st over place, in the
// caller's mount namespace only.
func (m *maker) bind(place *tracee.Handle, mode uint32, st *tracee.Stat) error {
	thread := m.req.Thread()
	tree, made, err := m.bench.device(thread, m.call.kind|mode, m.call.dev, st.UID, st.GID)
	if err != nil {
		return m.discard(err)
	}
	defer tree.Close()
	ns, err := m.req.Caller().Namespace(pidfd.NSMount)
	if err != nil {
		return m.discard(err)
	}
	defer ns.Close()
	err = thread.InMounts(&ns, func() error {
		return unix.MoveMount(tree.FD(), "", place.FD(), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	})
	if err != nil {
		return m.discard(fmt.Errorf("bind device node: %w", err))
	}
	m.made = made
	return nil
}

// discard takes the node away again and returns err.
func (m *maker) discard(err error) error {
	_ = m.req.Thread().Within(&m.who, m.parent, 0, func() error {
		return unix.Unlinkat(m.parent.FD(), m.last, 0)
	})
	return err
}
