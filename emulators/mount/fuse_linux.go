package mount

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/emulators/mount/internal/fuseserver"
	"github.com/callgate/callgate/pkg/mnt"
	"github.com/callgate/callgate/pkg/pidfd"
	"github.com/callgate/callgate/pkg/tracee"
)

// served counts one container's FUSE programs. They end with their mounts,
// which may outlive the agent. Safe for concurrent use.
type served struct {
	mu      sync.Mutex // guards running
	running int
}

// maxServed bounds a container's FUSE programs.
const maxServed = 16

func (s *served) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running >= maxServed {
		return false
	}
	s.running++
	return true
}

func (s *served) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
}

// serve has a FUSE program of the host read the image, and makes its mount.
func (m *mounter) serve(ctx context.Context) (tracee.Handle, error) {
	if !m.private() {
		return tracee.Handle{}, emulators.Denied{Reason: "via: fuse is for containers with a user namespace of their own"}
	}
	s := &m.emulator.served
	if !s.begin() {
		return tracee.Handle{}, emulators.Denied{Reason: "container has as many FUSE programs as one may have"}
	}
	server, err := m.start(ctx)
	if err != nil {
		s.end()
		return tracee.Handle{}, err
	}
	go func() {
		<-server.Done()
		s.end()
	}()
	m.warning = server.Warning
	tree := server.Tree()
	flags := mnt.Attributes{Set: attributes(m.call.flags | m.rule.forced())}
	if times := atime(m.call.flags); times != 0 {
		flags.Set |= times
		flags.Clear = unix.MOUNT_ATTR__ATIME
	}
	if err := m.req.Thread().Privileged(func() error { return flags.Change(&tree) }); err != nil {
		tree.Close() // and the program with it
		return tracee.Handle{}, &failure{doing: "set flags", err: errnoOf(err)}
	}
	return tree, nil
}

// programs numbers the FUSE programs of this agent.
var programs atomic.Uint64 //nolint:gochecknoglobals // a number that no two may share

// start starts the program on the source.
func (m *mounter) start(ctx context.Context) (*fuseserver.Server, error) {
	source, writable, err := m.sourceTree()
	if err != nil {
		return nil, err
	}
	defer source.Close()
	c := fuseserver.Config{
		Program:  strings.Fields(m.rule.Program),
		Source:   &source,
		ReadOnly: !writable,
		User:     &m.user,
		Cgroup:   "callgate-fuse-" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatUint(programs.Add(1), 10),
	}
	for _, p := range m.params {
		if p.key != "loop" && p.key != "ro" && p.key != "rw" {
			c.Options = append(c.Options, p.String())
		}
	}
	for _, ns := range []struct {
		kind pidfd.NS
		into **tracee.Handle
	}{{pidfd.NSNet, &c.Net}, {pidfd.NSIPC, &c.IPC}, {pidfd.NSUTS, &c.UTS}, {pidfd.NSPID, &c.PID}} {
		h, err := m.req.Caller().Namespace(ns.kind)
		if err != nil {
			return nil, err
		}
		defer h.Close()
		*ns.into = &h
	}
	if err := m.req.Caller().StillWaiting(); err != nil {
		return nil, err
	}
	server, err := fuseserver.Start(ctx, c)
	switch {
	case err == nil:
		return server, nil
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist):
		return nil, notVerdict(err) // policy's program, or callgate itself
	default:
		return nil, &failure{doing: err.Error(), err: unix.EINVAL}
	}
}

// sourceTree makes a detached mount of the image or of a device node, for the
// program, and says whether it may be written to.
func (m *mounter) sourceTree() (tree tracee.Handle, writable bool, err error) {
	thread := m.req.Thread()
	if m.from.isImage() {
		// The caller's right to it, not its container's root's, decides.
		file, writable, err := m.openImage()
		if err != nil {
			return tree, false, err
		}
		file.Close()
		err = thread.InMounts(&m.ns, func() (err error) {
			tree, err = mnt.Clone(&m.from.file)
			return err
		})
		if err != nil {
			return tree, false, &failure{doing: "take image", err: errnoOf(err)}
		}
		return tree, writable, nil
	}
	writable = (m.call.flags|m.rule.forced())&unix.MS_RDONLY == 0
	tree, err = m.emulator.bench.shop.node(thread, m.from.stat.Rdev)
	return tree, writable, err
}

// node makes a block device that anybody may open, as a detached mount. It is on
// a tmpfs of its own, which goes with the mount: a node without a name cannot be
// mounted anywhere.
func (w *workshop) node(thread *tracee.Thread, dev uint64) (tree tracee.Handle, err error) {
	const name = "device"
	err = w.sealer.Enter(thread, func() error {
		fs, err := mnt.Tmpfs(mnt.TmpfsOptions{Bytes: 1 << 12, Inodes: 4})
		if err != nil {
			return err
		}
		defer fs.Close()
		if err := unix.Mknodat(fs.FD(), name, unix.S_IFBLK|0o600, int(dev)); err != nil {
			return os.NewSyscallError("mknodat", err)
		}
		if err := unix.Fchmodat(fs.FD(), name, 0o666, 0); err != nil {
			return os.NewSyscallError("fchmodat", err)
		}
		// A clone can be had of what is mounted in the thread's namespace only.
		place := "node" + strconv.FormatUint(w.next.Add(1), 10)
		if err := w.room.Mount(&fs, place); err != nil {
			return err
		}
		defer func() {
			_ = mnt.Detach(&fs)
			_ = unix.Unlinkat(w.room.Dir().FD(), place, unix.AT_REMOVEDIR)
		}()
		fd, err := unix.Openat(fs.FD(), name, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("openat", err)
		}
		h := tracee.NewHandle(fd)
		defer h.Close()
		tree, err = mnt.Clone(&h)
		return err
	})
	return tree, err
}
