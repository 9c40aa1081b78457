package mount

import (
	"errors"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/mnt"
	"github.com/callgate/callgate/pkg/tracee"
)

// workshop is where filesystems are made: a mount namespace without any of the
// host's files, in which the kernel looks up the sources that it is given. It
// is made when the first mount needs it, and goes with the last container that
// needed it.
type workshop struct {
	mu      sync.Mutex // guards the rest
	room    *mnt.Room
	sealer  *mnt.Sealer
	fds     tracee.Handle // /proc/self/fd
	devices tracee.Handle // /sys/dev/block; -1 where there is none
	benches int           // in use; the rest is open while there are any

	next  atomic.Uint64
	loops loops
	logs  kernelLogs
	types types
	jails jails
}

// bench is one container's use of the workshop.
type bench struct {
	shop *workshop
	// born is a mount id that was new when the container was registered; the
	// container's own mounts have higher ones. 0 if it is not known.
	born uint64

	mu    sync.Mutex // guards the rest; taken before the workshop's
	ready bool
	done  bool
}

func (w *workshop) bench() *bench { return &bench{shop: w, born: newestMount()} }

// newestMount makes a mount that nobody sees and returns its id.
func newestMount() uint64 {
	tree, err := mnt.Tmpfs(mnt.TmpfsOptions{})
	if err != nil {
		return 0 // an agent without the rights for that has none to mount with
	}
	defer tree.Close()
	st, err := tree.Stat()
	if err != nil || !st.Unique {
		return 0
	}
	return st.MountID
}

// open sees to it that the workshop is there for as long as the bench is.
func (b *bench) open() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.done:
		return os.ErrClosed
	case b.ready:
		return nil
	}
	if err := b.shop.enter(); err != nil {
		return err
	}
	b.ready = true
	return nil
}

func (b *bench) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done = true
	if b.ready {
		b.ready = false
		b.shop.leave()
	}
}

func (w *workshop) enter() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.benches == 0 {
		if err := w.build(); err != nil {
			w.dismantle()
			return err
		}
	}
	w.benches++
	return nil
}

func (w *workshop) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.benches--; w.benches == 0 {
		w.dismantle()
	}
}

func (w *workshop) build() (err error) {
	fds, err := unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/proc/self/fd", Err: err}
	}
	w.fds = tracee.NewHandle(fds)
	if fd, err := unix.Open("/sys/dev/block", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
		w.devices = tracee.NewHandle(fd)
	}
	if w.room, err = mnt.OpenRoom(); err != nil {
		return err
	}
	w.sealer, err = mnt.OpenSealer(w.room)
	return err
}

func (w *workshop) dismantle() {
	if w.sealer != nil {
		w.sealer.Close()
	}
	if w.room != nil {
		w.room.Close()
	}
	w.fds.Close()
	w.devices.Close()
	w.logs.close()
	w.closeJails()
	w.sealer, w.room = nil, nil
}

// name is what the thread, with its root at a caller's, calls the file behind
// h: the path that the container sees. "" if there is none.
func (w *workshop) name(thread *tracee.Thread, root, h *tracee.Handle) (string, error) {
	var buf [tracee.PathMax]byte
	n := 0
	err := thread.In(root, func() (err error) {
		n, err = unix.Readlinkat(w.fds.FD(), strconv.Itoa(h.FD()), buf[:])
		return os.NewSyscallError("readlinkat", err)
	})
	if err != nil {
		return "", err
	}
	name := string(buf[:n])
	// Also "(unreachable)…" and "… (deleted)", which a glob might take for a name.
	if n == len(buf) || !strings.HasPrefix(name, "/") || strings.HasSuffix(name, " (deleted)") {
		return "", nil
	}
	return name, nil
}

// jail is a root directory with one device node in it, for the time that a
// filesystem is made: no path of a container's or of an option's leads anywhere
// else from there, and the node is the agent's.
type jail struct {
	name string // in the room
	dir  tracee.Handle
	dirs []string // that were made below dir
}

// jails keeps those that are not in use. Safe for concurrent use.
type jails struct {
	mu   sync.Mutex // guards the rest
	free []*jail
	next int
}

const maxFreeJails = 4

// within runs f on a thread that is in a jail with the device under a name; with
// no device if dev is 0.
func (w *workshop) within(thread *tracee.Thread, name string, dev uint64, f func() error) error {
	return w.sealer.Enter(thread, func() (err error) {
		j, err := w.takeJail()
		if err != nil {
			return err
		}
		defer w.putJail(j)
		if dev != 0 {
			below := strings.TrimPrefix(name, "/")
			if err := j.node(below, dev); err != nil {
				return err
			}
			// What fails leaves a name on a tmpfs of the agent's own.
			defer func() { _ = unix.Unlinkat(j.dir.FD(), below, 0) }()
		}
		if err := unix.Fchdir(j.dir.FD()); err != nil {
			return os.NewSyscallError("fchdir", err)
		}
		if err := unix.Chroot("."); err != nil {
			return os.NewSyscallError("chroot", err)
		}
		return f()
	})
}

// takeJail gives a jail without nodes. The thread is in the room.
func (w *workshop) takeJail() (*jail, error) {
	w.jails.mu.Lock()
	defer w.jails.mu.Unlock()
	if n := len(w.jails.free); n > 0 {
		j := w.jails.free[n-1]
		w.jails.free = w.jails.free[:n-1]
		return j, nil
	}
	w.jails.next++
	j := &jail{name: "jail" + strconv.Itoa(w.jails.next)}
	top := w.room.Dir().FD()
	if err := unix.Mkdirat(top, j.name, 0o700); err != nil {
		return nil, os.NewSyscallError("mkdirat", err)
	}
	fd, err := unix.Openat(top, j.name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("openat", err), unix.Unlinkat(top, j.name, unix.AT_REMOVEDIR))
	}
	j.dir = tracee.NewHandle(fd)
	return j, nil
}

// putJail keeps a jail, or takes it down.
func (w *workshop) putJail(j *jail) {
	w.jails.mu.Lock()
	defer w.jails.mu.Unlock()
	keep := len(w.jails.free) < maxFreeJails
	for _, dir := range slices.Backward(j.dirs) {
		// What a caller made up is in no other caller's way.
		if !keep || dir != "dev" {
			_ = unix.Unlinkat(j.dir.FD(), dir, unix.AT_REMOVEDIR)
		}
	}
	if keep {
		j.dirs = slices.DeleteFunc(j.dirs, func(dir string) bool { return dir != "dev" })
		w.jails.free = append(w.jails.free, j)
		return
	}
	j.dir.Close()
	_ = unix.Unlinkat(w.room.Dir().FD(), j.name, unix.AT_REMOVEDIR)
}

func (w *workshop) closeJails() {
	for _, j := range w.jails.free {
		j.dir.Close() // and the room goes, with all in it
	}
	w.jails.free = nil
}

// node makes a block device under a relative name.
func (j *jail) node(name string, dev uint64) error {
	for i := range len(name) {
		if name[i] != '/' || slices.Contains(j.dirs, name[:i]) {
			continue
		}
		if err := unix.Mkdirat(j.dir.FD(), name[:i], 0o700); err != nil {
			return os.NewSyscallError("mkdirat", err)
		}
		j.dirs = append(j.dirs, name[:i])
	}
	err := unix.Mknodat(j.dir.FD(), name, unix.S_IFBLK|0o600, int(dev))
	if err == unix.EEXIST {
		// The folder /dev, which is kept, and empty.
		j.dirs = slices.DeleteFunc(j.dirs, func(dir string) bool { return dir == name })
		if err = unix.Unlinkat(j.dir.FD(), name, unix.AT_REMOVEDIR); err == nil {
			err = unix.Mknodat(j.dir.FD(), name, unix.S_IFBLK|0o600, int(dev))
		}
	}
	return os.NewSyscallError("mknodat", err)
}

const (
	// maxDepth bounds the directories that a jail gets.
	maxDepth = 8
	// maxValue is the longest string that fsconfig(2) takes.
	maxValue = 255
)

// presentable says whether a device can stand in a jail under the name that the
// caller has for it, which is what /proc/mounts then shows.
func presentable(name string) bool {
	if len(name) < 2 || len(name) > maxValue || name[0] != '/' || path.Clean(name) != name || strings.Count(name, "/") > maxDepth {
		return false
	}
	return true
}

// kernelName is what the kernel calls a block device, in its messages and in
// /dev: "" if it has none such. It works wherever the thread's root is.
func (w *workshop) kernelName(dev uint64) string {
	var buf [256]byte
	number := strconv.Itoa(int(unix.Major(dev))) + ":" + strconv.Itoa(int(unix.Minor(dev)))
	n, err := unix.Readlinkat(w.devices.FD(), number, buf[:])
	if err != nil {
		return ""
	}
	return path.Base(string(buf[:n]))
}
