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

// made remembers by which rule a filesystem was mounted for the container.
// Safe for concurrent use.
type made struct {
	mu    sync.Mutex // guards rules
	rules map[uint64]*rule
}

// maxMade bounds what is remembered: what is forgotten is the container's own
// to remount, as far as the kernel lets it.
const maxMade = 1024

func (t *made) learn(dev uint64, r *rule) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rules == nil || len(t.rules) >= maxMade {
		t.rules = make(map[uint64]*rule)
	}
	t.rules[dev] = r
}

func (t *made) rule(dev uint64) *rule {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.rules[dev]
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
	if err != nil {
		return theirs, err
	}
	m.rule = e.made.rule(st.Dev)
	if m.rule == nil || !st.MountRoot {
		return theirs, nil
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

// owns says whether the target is of the rule's type still, and on a mount of
// the caller's.
func (m *mounter) owns(st *tracee.Stat) (owns bool, err error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(m.target.FD(), &fs); err != nil {
		return false, &failure{doing: "look at target", err: errnoOf(err)}
	}
	if kernelsMagic[int64(fs.Type)] {
		return false, nil // a device number that was used again
	}
	err = m.req.Thread().Privileged(func() (err error) {
		owns, err = m.req.Caller().OwnsMount(&m.target, st, true)
		return err
	})
	return owns, err
}

// kernelsMagic are the filesystems of [kernelsOwn] that may get a device number
// which one without a device had before.
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
	err := m.req.Thread().InMounts(&m.ns, func() error {
		if err := m.req.Caller().StillWaiting(); err != nil {
			return err
		}
		if m.call.flags&unix.MS_BIND == 0 {
			if err := m.reconfigure(); err != nil {
				return err
			}
		}
		return m.attributes().Change(&m.target)
	})
	var errno syscall.Errno
	var failed *failure
	if err == nil || errors.As(err, &failed) || !errors.As(err, &errno) || errors.Is(err, tracee.ErrThread) {
		return err
	}
	return &failure{doing: "change mount", err: errno}
}

// reconfigure changes the filesystem. Flags that are not given are cleared, as
// by mount(2).
func (m *mounter) reconfigure() error {
	fs, err := mnt.Pick(&m.target)
	if err != nil {
		return err
	}
	defer fs.Close()
	b := builder{mounter: m}
	ms := m.call.flags | m.rule.forced()
	for _, f := range flags {
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
