package mknod

import (
	"errors"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/tracee"
)

// maker makes one node. It holds the caller's directories from the lookup to
// the answer.
type maker struct {
	req   *emulators.Request
	call  call
	bench *bench

	who    tracee.Actor
	root   *tracee.Handle
	start  tracee.Handle // where a relative path begins
	found  tracee.Handle // the parent, if it had to be looked up
	parent *tracee.Handle
	stat   tracee.Stat // the parent's
	fs     tracee.Filesystem
	path   string
	last   string

	made tracee.Stat // the node, if it is known: when it is bound
}

func (m *maker) close() {
	m.start.Close()
	m.found.Close()
}

func (m *maker) patient() bool { return m.req.Patience() == emulators.Patient }

// locate finds the directory to work in and learns what it is on.
func (m *maker) locate() error {
	path, err := m.req.Path(m.call.pathArg)
	if err != nil {
		return err
	}
	if path == "" {
		return unix.ENOENT
	}
	if m.who, err = m.req.Caller().Actor(true); err != nil {
		return err
	}
	m.who.Holds = tracee.Capability(unix.CAP_MKNOD)
	var dir string
	m.path = path
	dir, m.last = split(path)
	if err := m.begin(path, dir); err != nil {
		return err
	}
	if m.stat, err = m.parent.Stat(); err != nil {
		return err
	}
	if m.fs, err = m.req.Container().Mounts.Look(m.parent, &m.stat, m.patient()); err != nil {
		return err
	}
	if !m.patient() && (!m.fs.Local || !m.fs.Tried || m.fs.NoDevices) {
		return emulators.ErrBlocks
	}
	if path[0] == '/' && !m.patient() {
		return nil // below the caller's root, without a descriptor's help
	}
	return m.owned()
}

// begin opens the parent directory.
func (m *maker) begin(path, dir string) (err error) {
	absolute := path[0] == '/'
	caller := m.req.Caller()
	if absolute || m.patient() {
		if m.root, err = caller.Root(); err != nil {
			return err
		}
	}
	if !absolute {
		if m.start, err = m.beginning(); err != nil {
			return err
		}
		if dir == "" {
			m.parent = &m.start
			return nil
		}
	}
	at := tracee.Lookup{Root: m.root, Dir: &m.start, Patient: m.patient()}
	m.found, err = m.req.Thread().Open(&m.who, at, dir, unix.O_PATH|unix.O_DIRECTORY)
	m.parent = &m.found
	return err
}

func (m *maker) beginning() (tracee.Handle, error) {
	if m.call.dirArg < 0 {
		return m.req.Caller().Cwd()
	}
	return m.req.Dir(m.call.dirArg)
}

// owned refuses a directory that the caller holds open or stands in (relative
// paths, and those through its own /proc/self/fd) and that its container does
// not have: one of the host's that leaked.
func (m *maker) owned() error {
	caller, mounts := m.req.Caller(), &m.req.Container().Mounts
	ns, err := caller.MountNamespace()
	if err != nil {
		return err
	}
	if mounts.Owned(ns, &m.stat) {
		return nil
	}
	var owns bool
	err = m.req.Thread().Privileged(func() (err error) {
		owns, err = caller.OwnsMount(m.parent, &m.stat, m.patient())
		return err
	})
	if err != nil {
		return err
	}
	if !owns {
		return emulators.Denied{Errno: unix.EPERM, Reason: "directory is on no mount of the caller's mount namespace"}
	}
	mounts.LearnOwned(ns, &m.stat)
	return nil
}

// make makes the node, and sees to it that it opens.
func (m *maker) make() error {
	var caps tracee.Capabilities
	setgid, err := m.keepsSetgid()
	if err != nil {
		return err
	}
	if setgid {
		caps |= tracee.Capability(unix.CAP_FSETID)
	}
	if err := m.req.Caller().StillWaiting(); err != nil {
		return err
	}
	err = m.mknodat(caps, m.call.mode, m.call.dev)
	if err == unix.EPERM && m.fs.Magic == unix.OVERLAYFS_SUPER_MAGIC {
		// An overlay that was mounted in a user namespace works with its
		// mounter's rights, which are not ours.
		return m.bindOverFile()
	}
	if err != nil {
		return err
	}
	if m.fs.Tried && !m.fs.NoDevices {
		return nil
	}
	return m.settleNode()
}

func (m *maker) mknodat(caps tracee.Capabilities, mode, dev uint32) error {
	return m.req.Thread().Within(&m.who, m.parent, caps, func() error {
		for {
			err := unix.Mknodat(m.parent.FD(), m.last, mode, int(dev))
			if err != unix.EINTR {
				return err
			}
		}
	})
}

// keepsSetgid says whether the caller's CAP_FSETID saves the node's setgid bit
// (mode_strip_sgid of fs/inode.c).
func (m *maker) keepsSetgid() (bool, error) {
	const executableSetgid = unix.S_ISGID | unix.S_IXGRP
	if m.call.mode&executableSetgid != executableSetgid {
		return false, nil
	}
	status, err := m.req.Caller().Status()
	if err != nil || !status.Effective.Has(unix.CAP_FSETID) {
		return false, err
	}
	return m.who.Owns(&m.stat)
}

// keep remembers what was made and by whom, at once, so that it can be told from
// what others make of that name while it stands unanswered.
func (m *maker) keep() {
	m.who.Groups = slices.Clone(m.who.Groups) // the runner's, who reads on
	m.who.Detach()
	if m.made.Ino != 0 {
		return
	}
	now, err := m.parent.StatAt(m.last)
	if err == nil && m.ours(&now) {
		m.made = now
		return
	}
	m.made.Ino = ^uint64(0) // nothing is ours any more
}

// repeats says whether req, with the arguments that this call had, is this
// call made anew, and the node is there.
func (m *maker) repeats(req *emulators.Request) bool {
	path, err := req.Path(m.call.pathArg)
	if err != nil || path != m.path {
		return false
	}
	if path[0] != '/' && !m.beginsSame(req) {
		return false
	}
	now, err := m.parent.StatAt(m.last)
	return err == nil && m.ours(&now)
}

// beginsSame says whether a relative path begins in the directory where it did.
func (m *maker) beginsSame(req *emulators.Request) bool {
	again := maker{req: req, call: m.call}
	dir, err := again.beginning()
	if err != nil {
		return false
	}
	defer dir.Close()
	then, err1 := m.start.Stat()
	now, err2 := dir.Stat()
	return err1 == nil && err2 == nil && then.Dev == now.Dev && then.Ino == now.Ino && then.MountID == now.MountID
}

// undo takes back a node that no answer tells of: the call that a signal took
// the caller out of is made anew and must not find it. What is there by now
// and is not the node stays.
func (m *maker) undo() {
	now, err := m.parent.StatAt(m.last)
	if err != nil || !m.ours(&now) {
		return
	}
	m.who.Detach()
	// Unlinking from outside the container's mount namespace takes a mount on
	// the node along. An error leaves the node, and nobody to tell.
	_ = m.req.Thread().Within(&m.who, m.parent, 0, func() error {
		return unix.Unlinkat(m.parent.FD(), m.last, 0)
	})
}

func (m *maker) ours(now *tracee.Stat) bool {
	if m.made.Ino != 0 {
		return now.Dev == m.made.Dev && now.Ino == m.made.Ino && now.Born == m.made.Born
	}
	return now.Type == m.call.kind && now.Rdev == unix.Mkdev(m.call.major, m.call.minor) && now.UID == m.who.FSUID
}

// node refers to what was made, and makes sure that it was.
func (m *maker) node(want uint32) (tracee.Handle, tracee.Stat, error) {
	var h tracee.Handle
	err := m.req.Thread().Within(&m.who, m.parent, 0, func() error {
		fd, err := unix.Openat(m.parent.FD(), m.last, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == nil {
			h = tracee.NewHandle(fd)
		}
		return err
	})
	if err != nil {
		return tracee.Handle{}, tracee.Stat{}, &os.PathError{Op: "open", Path: "new node", Err: err}
	}
	st, err := h.Stat()
	if err == nil && (st.Type != want || st.MountID != m.stat.MountID || st.UID != m.who.FSUID) {
		err = errors.New("new node was replaced while it was being made")
	}
	if err != nil {
		h.Close()
		return tracee.Handle{}, tracee.Stat{}, err
	}
	return h, st, nil
}
