package mount

import (
	"cmp"
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/mnt"
	"github.com/callgate/callgate/pkg/pidfd"
	"github.com/callgate/callgate/pkg/tracee"
)

// mounter makes one mount. It holds what it found of the caller's from the
// lookups to the answer.
type mounter struct {
	emulator *emulator
	req      *emulators.Request
	call     *call

	fstype string
	path   string // the target's
	params []parameter
	who    tracee.Actor
	from   origin
	rule   *rule
	// warning is for the operator, about a mount that was made all the same.
	warning string

	ns     tracee.Handle // the caller's mount namespace
	user   tracee.Handle // its user namespace
	target tracee.Handle
	made   identity
}

// identity tells a mount from others: by the numbers of its root, or where only
// the container may ask for those (FUSE) by the mount's.
type identity struct {
	mount    uint64
	unique   bool // no other mount ever has the number
	dev, ino uint64
}

func (m *mounter) identify(h *tracee.Handle) (id identity, err error) {
	if m.rule.Via == viaKernel {
		st, err := h.Stat()
		return identity{mount: st.MountID, unique: st.Unique, dev: st.Dev, ino: st.Ino}, err
	}
	text, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(h.FD()))
	for line := range strings.Lines(string(text)) {
		if number, ok := strings.CutPrefix(line, "mnt_id:"); ok { // proc_pid_fdinfo(5)
			id.mount, err = strconv.ParseUint(strings.TrimSpace(number), 10, 64)
		}
	}
	return id, err
}

func (m *mounter) close() {
	m.from.file.Close()
	m.ns.Close()
	m.user.Close()
	m.target.Close()
}

// run reads, decides and mounts, in the kernel's own order: where several
// things are wrong the first one counts.
func (m *mounter) run(ctx context.Context, rules []*rule) (emulators.Response, error) {
	var no emulators.Response
	text, err := m.read()
	if err != nil {
		return no, err
	}
	if m.who, err = m.req.Caller().Actor(true); err != nil {
		return no, err
	}
	if m.target, err = m.open(m.path); err != nil {
		return no, err
	}
	if err := m.entitled(); err != nil {
		return no, err
	}
	if err := m.steadyTarget(); err != nil {
		return no, err
	}
	if err := m.emulator.bench.open(); err != nil {
		return no, err
	}
	if m.params, err = parseOptions(text); err != nil {
		return no, &failure{doing: "parse options", err: unix.EINVAL, detail: err.Error()}
	}
	if err := m.find(); err != nil {
		return no, err
	}
	if err := m.choose(rules); err != nil {
		return no, err
	}
	tree, err := m.make(ctx)
	if err != nil {
		return no, err
	}
	err = m.attach(&tree)
	// Nobody may hold on to the mount any more when the caller learns of it: it
	// might unmount it at once.
	tree.Close()
	if err != nil {
		return no, err
	}
	return emulators.Return(0).Explain(m.warning).After(func(delivered bool) {
		if !delivered {
			m.undo()
		}
		m.close()
	}), nil
}

// read copies everything that the arguments point to.
func (m *mounter) read() (text string, err error) {
	if m.from.given, err = word(m.req, argSource); err != nil {
		return "", err
	}
	if text, err = data(m.req); err != nil {
		return "", err
	}
	m.path, err = m.req.Path(argTarget)
	return text, err
}

// lookup says where one of the caller's paths begins.
func (m *mounter) lookup(path string) (at tracee.Lookup, done func(), err error) {
	caller := m.req.Caller()
	if at.Root, err = caller.Root(); err != nil {
		return at, nil, err
	}
	at.Patient = true
	if path != "" && path[0] == '/' {
		return at, func() {}, nil
	}
	cwd, err := caller.Cwd()
	if err != nil {
		return at, nil, err
	}
	at.Dir = &cwd
	return at, cwd.Close, nil
}

// open refers to what a path of the caller's leads to.
func (m *mounter) open(path string) (tracee.Handle, error) {
	if path == "" {
		return tracee.Handle{}, unix.ENOENT
	}
	at, done, err := m.lookup(path)
	if err != nil {
		return tracee.Handle{}, err
	}
	defer done()
	h, err := m.req.Thread().Open(&m.who, at, path, unix.O_PATH)
	if err != nil {
		return h, &failure{doing: "look up target", err: errnoOf(err)}
	}
	return h, nil
}

// errnoOf is the errno within an error of the kernel's, or the error.
func errnoOf(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// entitled makes sure that the caller may mount in its mount namespace
// (may_mount of fs/namespace.c): it has the capability where that counts, and
// the mount namespace is one of the container's own.
func (m *mounter) entitled() (err error) {
	if err := m.req.Require(unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"); err != nil {
		return err
	}
	caller := m.req.Caller()
	if m.ns, err = caller.Namespace(pidfd.NSMount); err != nil {
		return err
	}
	if m.user, err = caller.Namespace(pidfd.NSUser); err != nil {
		return err
	}
	owner, err := tracee.Owner(&m.ns)
	if err != nil && !errors.Is(err, unix.EPERM) {
		return err
	}
	if err != nil || owner != m.req.Container().UserNamespace {
		return m.deny("mount namespace belongs to another user namespace", "")
	}
	// What was opened is the container's, and not what the caller has moved to
	// since its capabilities were looked at.
	st, err := m.user.Stat()
	if err != nil {
		return err
	}
	if (pidfd.NSID{Dev: st.Dev, Ino: st.Ino}) != m.req.Container().UserNamespace {
		return m.deny("caller is not in its container's user namespace", "")
	}
	return nil
}

// private says whether the container's user namespace is not the agent's.
func (m *mounter) private() bool { return m.req.InUserNamespace() }

// make makes the mount, detached.
func (m *mounter) make(ctx context.Context) (tracee.Handle, error) {
	if m.rule.Via == viaFUSE {
		return m.serve(ctx)
	}
	b := builder{mounter: m}
	name, dev := cmp.Or(m.from.name, m.from.given), m.from.stat.Rdev
	if m.from.isImage() {
		var device loopDevice
		err := untilFree(ctx, func() (err error) {
			device, err = m.emulator.bench.shop.loops.attach(m)
			return err
		})
		if err != nil {
			return tracee.Handle{}, err
		}
		defer device.close() // the kernel's hold on it is the mount's from then on
		b.device = &device.fd
		name, dev = device.name, device.dev
	}
	if dev != 0 {
		shop := m.emulator.bench.shop
		// With CAP_SYSLOG, in case of kernel.dmesg_restrict.
		err := m.req.Thread().Privileged(func() error {
			b.log = shop.logs.begin(func() string { return shop.kernelName(dev) })
			return nil
		})
		if err != nil {
			return tracee.Handle{}, err
		}
		defer shop.logs.end(b.log)
	}
	return b.build(ctx, name, dev)
}

// attach puts the mount where the caller wants it.
func (m *mounter) attach(tree *tracee.Handle) (err error) {
	if m.made, err = m.identify(tree); err != nil {
		return err
	}
	err = m.req.Thread().InMounts(&m.ns, func() error {
		if err := m.req.Caller().StillWaiting(); err != nil {
			return err
		}
		return mnt.Attach(tree, &m.target)
	})
	if err == nil {
		if m.rule.Via == viaKernel {
			m.emulator.made.learn(m.made, m.rule)
		}
		return nil
	}
	var errno syscall.Errno
	if errors.As(err, &errno) && !errors.Is(err, emulators.ErrGone) && !errors.Is(err, tracee.ErrThread) {
		if st, bad := m.target.Stat(); errno == unix.EINVAL && bad == nil && st.Type != unix.S_IFDIR {
			errno = unix.ENOTDIR // mount(2)'s word for what move_mount(2) finds invalid
		}
		return &failure{doing: "mount on target", err: errno}
	}
	return err
}

// undo takes back a mount that no answer tells of: the call that a signal took
// the caller out of is made anew. What is mounted there by now and is another
// mount stays.
func (m *mounter) undo() {
	m.who.Detach()
	h, err := m.open(m.path)
	if err != nil {
		return
	}
	defer h.Close()
	if now, err := m.identify(&h); err != nil || now != m.made {
		return
	}
	// An error leaves the mount, and nobody to tell.
	_ = m.req.Thread().InMounts(&m.ns, func() error { return mnt.Detach(&h) })
}
