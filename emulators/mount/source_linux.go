package mount

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/tracee"
)

// origin is what is to be mounted: a block device, an image, or a name that
// means something to the filesystem only.
type origin struct {
	given string // the caller's word for it
	name  string // the path that the container sees; "" if it is no file
	file  tracee.Handle
	stat  tracee.Stat
}

func (o *origin) isDevice() bool { return o.stat.Type == unix.S_IFBLK }
func (o *origin) isImage() bool  { return o.stat.Type == unix.S_IFREG }

var errNoSource = errors.New("no source is given")

// find looks the source up as the caller would.
func (m *mounter) find() error {
	o := &m.from
	if !m.emulator.bench.shop.types.onDevice(m.fstype) {
		return nil
	}
	if o.given == "" {
		return &failure{doing: errNoSource.Error(), err: unix.EINVAL}
	}
	thread := m.req.Thread()
	at, done, err := m.lookup(o.given)
	if err != nil {
		return err
	}
	o.file, err = thread.Open(&m.who, at, o.given, unix.O_PATH)
	done()
	if err != nil {
		return &failure{doing: "look up source", err: errnoOf(err)}
	}
	if o.stat, err = o.file.Stat(); err != nil {
		return err
	}
	switch {
	case o.isDevice():
		opens, err := m.nodeOpens()
		if err != nil {
			return err
		}
		if !opens {
			return &failure{doing: "use source", err: unix.EACCES, detail: "device nodes do not open where this one is"}
		}
		if m.emulator.bench.shop.loops.holds(o.stat.Rdev) {
			return emulators.Denied{Reason: "loop device is the agent's, for somebody's image"}
		}
	case o.isImage():
	default:
		return &failure{doing: "use source", err: unix.ENOTBLK}
	}
	if o.isImage() || m.emulator.policy.globs() {
		o.name, err = m.emulator.bench.shop.name(thread, at.Root, &o.file)
	}
	return err
}

// nodeOpens is may_open_dev of fs/namei.c for the source: a node that does not
// open may be of the container's making, and bear any number. What is known of
// its mount's filesystem holds for all nodes there.
func (m *mounter) nodeOpens() (bool, error) {
	o, mounts := &m.from, &m.req.Container().Mounts
	fs, err := mounts.Look(&o.file, &o.stat, true)
	if err != nil {
		return false, err
	}
	if fs.Tried && fs.Local && !fs.NoDevices {
		var flags unix.Statfs_t
		err := unix.Fstatfs(o.file.FD(), &flags)
		return flags.Flags&unix.ST_NODEV == 0, os.NewSyscallError("fstatfs", err)
	}
	opens, err := m.req.Thread().DevicesOpen(&o.file, &o.stat)
	if err == nil && opens {
		mounts.Learn(&o.stat, fs, false)
	}
	return opens, err
}

// matches says whether a rule is about the source.
func (m *mounter) matches(r *rule) bool {
	o := &m.from
	switch {
	case o.isDevice():
		return r.allowsDevice(o.stat.Rdev, o.name)
	case o.isImage():
		return r.allowsImage(o.name)
	default:
		return r.allowsName(o.given)
	}
}

// choose finds the first rule that allows source, flags and options. Where none
// does it is the first rule about the source that says why.
func (m *mounter) choose(rules []*rule) error {
	var no error
	for _, r := range rules {
		if !m.matches(r) {
			continue
		}
		err := r.allowsFlags(m.call.flags)
		for _, p := range m.params {
			if err == nil {
				err = r.allowsParameter(p)
			}
		}
		if err == nil {
			m.rule = r
			return nil
		}
		if no == nil {
			no = err
		}
	}
	if no != nil {
		return no
	}
	if m.from.isImage() && !anyLoop(rules) {
		return &failure{doing: "use source", err: unix.ENOTBLK, detail: "source is a regular file, and policy has no loop: true for the type"}
	}
	return m.deny("policy allows no such source", m.describe())
}

func anyLoop(rules []*rule) bool {
	for _, r := range rules {
		if r.Loop {
			return true
		}
	}
	return false
}

func (m *mounter) describe() string {
	if m.from.isDevice() {
		return fmt.Sprintf("b %d:%d %s", unix.Major(m.from.stat.Rdev), unix.Minor(m.from.stat.Rdev), m.from.name)
	}
	if m.from.name != "" {
		return m.from.name
	}
	return m.from.given
}

// deny is policy's no, left to the kernel where that says the same.
func (m *mounter) deny(reason, detail string) error {
	err := m.req.Deny(reason)
	var denied emulators.Denied
	if errors.As(err, &denied) {
		denied.Detail = detail
		return denied
	}
	return err
}

// networked are filesystems that come from a network, whether or not their
// modules are loaded yet.
var networked = map[string]bool{
	"nfs": true, "nfs4": true, "cifs": true, "smb3": true, "9p": true, "ceph": true, "afs": true, "coda": true, "gfs2": false,
}

// types remembers which filesystems are read from a block device. Safe for
// concurrent use.
type types struct {
	mu    sync.Mutex // guards known
	known map[string]bool
}

// onDevice says whether a type of filesystem is read from a block device, as
// far as anybody can tell who has not loaded its module.
func (t *types) onDevice(fstype string) bool {
	if net, known := networked[fstype]; known {
		return !net
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if device, known := t.known[fstype]; known {
		return device
	}
	text, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(text)) {
		kind, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if name != fstype {
			continue
		}
		if t.known == nil {
			t.known = make(map[string]bool)
		}
		t.known[fstype] = kind != "nodev"
		return t.known[fstype]
	}
	return true
}
