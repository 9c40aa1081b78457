package mount

import (
	"errors"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/mnt"
	"github.com/callgate/callgate/pkg/tracee"
)

// made remembers by which rule the container's mounts were made. Safe for
// concurrent use.
type made struct {
	mu     sync.Mutex // guards mounts
	mounts []madeMount
}

type madeMount struct {
	identity
	rule *rule
}

// maxMade bounds what is remembered: what is forgotten is the container's own
// to remount, as far as the kernel lets it.
const maxMade = 1024

func (t *made) learn(id identity, r *rule) {
	if !id.unique {
		return // a number that is used again: nothing can be told by it
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.mounts) >= maxMade {
		t.mounts = slices.Delete(t.mounts, 0, maxMade/2)
	}
	t.mounts = append(t.mounts, madeMount{identity: id, rule: r})
}

// of lists the mounts of a device, the youngest first.
func (t *made) of(dev uint64) (mounts []madeMount) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, mount := range slices.Backward(t.mounts) {
		if mount.dev == dev {
			mounts = append(mounts, mount)
		}
	}
	return mounts
}

// ruleOf finds the rule by which the agent mounted the filesystem that a file
// of the caller's is on, nil if it did not. A device number may have become
// another filesystem's by now: it is the same one as long as the mount that the
// agent made is there.
func (m *mounter) ruleOf(st *tracee.Stat) (*rule, error) {
	for _, mount := range m.emulator.made.of(st.Dev) {
		if st.Unique && st.MountID == mount.mount {
			return mount.rule, nil
		}
		var there bool
		err := m.req.Thread().Privileged(func() (err error) {
			there, err = m.req.Caller().HasMount(mount.mount)
			return err
		})
		switch {
		case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOTTY):
			// Before Linux 6.11: the mount itself, and no copies of it.
		case err != nil:
			return nil, err
		case there:
			return mount.rule, nil
		default:
			// Also where the caller is in a copy of the mount namespace.
		}
	}
	return nil, nil
}

// remount changes a filesystem that the agent mounted, or its mount: the kernel
// wants for the one a capability that the container cannot have, and refuses
// the other if it is not told again of the flags that the agent has locked. All
// other remounts are the kernel's.
func (e *emulator) remount(req *emulators.Request, c *call) (emulators.Response, error) {
	m := mounter{emulator: e, req: req, call: c}
	defer m.close()
	theirs := emulators.Continue()
	text, err := data(req)
	if err != nil {
		return theirs, err
	}
	if m.path, err = req.Path(argTarget); err != nil {
		return theirs, err
	}
	if m.who, err = req.Caller().Actor(true); err != nil {
		return theirs, err
	}
	if m.target, err = m.open(m.path); err != nil {
		return theirs, err
	}
	st, err := m.target.Stat()
	if errors.Is(err, unix.EACCES) {
		return theirs, nil // the container's own FUSE, which has not let the agent in
	}
	if err != nil {
		return theirs, err
	}
	if !st.MountRoot {
		return theirs, nil
	}
	if m.rule, err = m.ruleOf(&st); err != nil || m.rule == nil {
		return theirs, err
	}
	if err := m.entitled(); err != nil {
		return theirs, err
	}
	if ours, err := m.owns(&st); err != nil || !ours {
		return theirs, err
	}
	if c.flags&unix.MS_BIND == 0 {
		if m.params, err = parseOptions(text); err != nil {
			return theirs, &failure{doing: "parse options", err: unix.EINVAL, detail: err.Error()}
		}
		if err := m.forgetKnown(); err != nil {
			return theirs, err
		}
	}
	if err := m.permits(); err != nil {
		return theirs, err
	}
	if err := m.change(); err != nil {
		return theirs, err
	}
	return emulators.Return(0), nil
}

// forgetKnown drops the options that the filesystem has already: mount(8) gives
// all that it reads in /proc/self/mountinfo again when it remounts, those that
// nobody ever asked for included.
func (m *mounter) forgetKnown() error {
	if len(m.params) == 0 {
		return nil
	}
	text, err := m.req.Caller().SuperOptions(&m.target)
	if err != nil {
		return err
	}
	now, err := parseOptions(text)
	if err != nil {
		now = nil // a filesystem that shows what it would not take
	}
	m.params = slices.DeleteFunc(m.params, func(p parameter) bool {
		if f, _ := sbFlag(p.key); f != nil && !p.valued {
			return false // asked for, or it would be one of mount(2)'s own flags
		}
		return p == parameter{key: "idmapped"} || slices.Contains(now, p)
	})
	return nil
}

// owns says whether the target is on a mount of the caller's.
func (m *mounter) owns(st *tracee.Stat) (owns bool, err error) {
	err = m.req.Thread().Privileged(func() (err error) {
		owns, err = m.req.Caller().OwnsMount(&m.target, st, true)
		return err
	})
	return owns, err
}

// kernelsMagic are the filesystems of [kernelsOwn].
var kernelsMagic = map[int64]bool{
	unix.TMPFS_MAGIC: true, unix.RAMFS_MAGIC: true, unix.PROC_SUPER_MAGIC: true, unix.SYSFS_MAGIC: true,
	unix.DEVPTS_SUPER_MAGIC: true, unix.OVERLAYFS_SUPER_MAGIC: true, unix.FUSE_SUPER_MAGIC: true, mqueueMagic: true,
	unix.CGROUP_SUPER_MAGIC: true, unix.CGROUP2_SUPER_MAGIC: true, unix.BINFMTFS_MAGIC: true, unix.BPF_FS_MAGIC: true,
}

const mqueueMagic = 0x19800202 // MQUEUE_MAGIC of ipc/mqueue.c

// permits checks flags and options against the rule that it was mounted by.
func (m *mounter) permits() error {
	if err := m.rule.allowsFlags(m.call.flags); err != nil {
		return err
	}
	for _, p := range m.params {
		if err := m.rule.allowsParameter(p); err != nil {
			return err
		}
	}
	return nil
}

// change does it: the filesystem first, as do_remount of fs/namespace.c.
func (m *mounter) change() error {
	thread := m.req.Thread()
	var fs *mnt.Context
	err := thread.InMounts(&m.ns, func() (err error) {
		if err = m.req.Caller().StillWaiting(); err == nil && m.call.flags&unix.MS_BIND == 0 {
			fs, err = mnt.Pick(&m.target)
		}
		return err
	})
	if fs != nil {
		defer fs.Close()
		// Where no path in an option leads anywhere.
		err = m.emulator.bench.shop.within(thread, "", 0, func() error { return m.reconfigure(fs) })
	}
	if err == nil {
		err = thread.InMounts(&m.ns, func() error { return m.attributes().Change(&m.target) })
	}
	var errno syscall.Errno
	var failed *failure
	if err == nil || errors.As(err, &failed) || !errors.As(err, &errno) || errors.Is(err, tracee.ErrThread) {
		return err
	}
	return &failure{doing: "change mount", err: errno}
}

// reconfigure changes the filesystem. Flags that are not given are cleared, as
// by mount(2).
func (m *mounter) reconfigure(fs *mnt.Context) error {
	b := builder{mounter: m}
	ms := m.call.flags | m.rule.forced()
	for _, f := range flags {
		var err error
		switch {
		case f.unset == "": // not one that a remount changes: MS_RMT_MASK of linux/fs.h
		case ms&f.ms != 0:
			err = fs.Set(f.sb)
		default:
			err = fs.Set(f.unset)
		}
		if err != nil {
			return b.failed("set "+f.name, err, fs)
		}
	}
	if err := b.setParameters(fs); err != nil {
		return err
	}
	if err := b.setFlags(fs, m.rule.forced()); err != nil {
		return err
	}
	if err := fs.Reconfigure(); err != nil {
		return b.failed("reconfigure filesystem", err, fs)
	}
	return nil
}

// attributes are the mount's new flags. Without any of atime's those stay
// (path_mount of fs/namespace.c).
func (m *mounter) attributes() mnt.Attributes {
	ms := m.call.flags | m.rule.forced()
	var all uint64
	for _, f := range flags {
		if f.ms&atimeFlags == 0 {
			all |= f.attr
		}
	}
	a := mnt.Attributes{Set: attributes(ms)}
	a.Clear = all &^ a.Set
	if m.call.flags&atimeFlags != 0 {
		times := atime(m.call.flags)
		a.Set |= times
		// All of atime's, which is a number and not a set of bits.
		a.Clear |= unix.MOUNT_ATTR__ATIME | unix.MOUNT_ATTR_NODIRATIME&^times
	}
	return a
}
