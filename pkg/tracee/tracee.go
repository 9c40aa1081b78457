package tracee

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/pidfd"
)

// ErrGone says that the caller no longer waits: it was killed, or a signal
// took it out of the call. Nobody is left to act for.
var ErrGone = errors.New("caller is gone")

// ErrBlocks says that going on could put the calling thread to sleep for as
// long as the caller likes, and that the operation was told not to.
var ErrBlocks = errors.New("operation could block")

// Tracee is one stopped caller. It is for one goroutine at a time and is
// meant to be used again: [Tracee.Reset] begins with the next caller.
type Tracee struct {
	proc    *Proc
	tid     int
	waiting func() error

	pid    *pidfd.FD // pinned on first use
	pins   pins
	status Status
	known  bool // status has been read
	buf    []byte
}

// New makes a Tracee that reads from proc, which it borrows.
func New(proc *Proc) *Tracee {
	return &Tracee{proc: proc, buf: make([]byte, 4096)}
}

// Reset lets go of the last caller and begins with the thread tid. waiting
// returns nil as long as that thread waits for its answer, [ErrGone] (or an
// error that wraps it) afterwards.
func (t *Tracee) Reset(tid int, waiting func() error) {
	t.Release()
	t.tid, t.waiting, t.known = tid, waiting, false
}

// Release lets go of the caller's pidfd. What makes a thread's next call
// cheaper is kept until Forget.
func (t *Tracee) Release() {
	if t.pid != nil {
		_ = t.pid.Close() // only says that it was closed before
		t.pid = nil
	}
}

// Forget lets go of everything.
func (t *Tracee) Forget() {
	t.Release()
	t.pins.forget()
}

// TID is the caller's thread id in the supervisor's pid namespace.
func (t *Tracee) TID() int { return t.tid }

// StillWaiting returns nil as long as the caller waits for its answer.
func (t *Tracee) StillWaiting() error { return t.waiting() }

// settle turns the error of a read by number into the caller's death, if it
// is dead, for then the number may have been somebody else's.
func (t *Tracee) settle(err error) error {
	if gone := t.waiting(); gone != nil {
		return gone
	}
	return err
}

// Pidfd pins the caller, once, and lends its pidfd. Where the kernel has no
// thread pidfds it is the process's.
func (t *Tracee) Pidfd() (*pidfd.FD, error) {
	if t.pid != nil {
		return t.pid, nil
	}
	if t.tid <= 0 {
		return nil, fmt.Errorf("thread id %d: caller is not visible in this pid namespace", t.tid)
	}
	fd, err := pidfd.OpenThread(t.tid)
	if err = t.settle(err); err != nil {
		if fd != nil {
			_ = fd.Close()
		}
		return nil, fmt.Errorf("pin caller: %w", err)
	}
	t.pid = fd
	return fd, nil
}

// Status reads the caller's ids, groups, umask and capabilities, all at one
// moment, once per call. It is the caller's to change: decide on this copy.
// Takes some 9 µs; the value is valid until the next Reset.
func (t *Tracee) Status() (*Status, error) {
	if t.known {
		return &t.status, nil
	}
	text, err := t.readStatus()
	if err != nil {
		return nil, fmt.Errorf("read caller's status: %w", t.settle(err))
	}
	if err := t.status.parse(text); err != nil {
		return nil, fmt.Errorf("read caller's status: %w", err)
	}
	t.known = true
	return &t.status, nil
}

func (t *Tracee) readStatus() ([]byte, error) {
	return pinned(t, func(p *pin) ([]byte, error) {
		f, err := p.statusFile()
		if err != nil {
			return nil, err
		}
		// The kernel writes all of it at once: a read that leaves room has it.
		n, err := unix.Pread(f.FD(), t.buf, 0)
		if err != nil || n < len(t.buf) {
			return t.buf[:max(n, 0)], os.NewSyscallError("pread", err)
		}
		t.buf, err = f.readAll(t.buf, maxStatus)
		return t.buf, err
	})
}

// CatchesSignals says whether the caller has signal handlers, as far as its
// status has been read for this call.
func (t *Tracee) CatchesSignals() bool { return t.known && t.status.Catches != 0 }

// Asleep says whether the caller sleeps, as one does that waits. One that is
// awake has been woken by a signal and is about to leave its call. Where the
// kernel does not tell it is taken to sleep.
func (t *Tracee) Asleep() bool {
	asleep, err := pinned(t, (*pin).asleep)
	return asleep || err != nil
}

// Dying says whether the caller was killed: it is gone, on its way out, or has
// SIGKILL pending (which is what every signal becomes that ends a process
// without a core dump). Unlike the other looks it is for a caller that waits no
// more, moments ago though it was: it goes by the thread's number.
func (t *Tracee) Dying() bool {
	f, err := t.proc.open(t.tid, "stat", unix.O_RDONLY)
	if err != nil {
		return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH)
	}
	defer f.Close()
	var buf [1024]byte // proc_pid_stat(5): 52 numbers and a name of at most 64
	n, err := unix.Pread(f.FD(), buf[:], 0)
	if err != nil {
		return errors.Is(err, unix.ESRCH)
	}
	flags, pending, ok := taskStat(buf[:n])
	const (
		exiting = 0x4 // PF_EXITING, linux/sched.h
		kill    = 1 << (unix.SIGKILL - 1)
	)
	// A group's death puts SIGKILL among the pending signals of each thread.
	return ok && (flags&exiting != 0 || pending&kill != 0)
}

// UserNamespace identifies the caller's user namespace: the one in which its
// capabilities mean anything.
func (t *Tracee) UserNamespace() (pidfd.NSID, error) {
	return t.linked(pidfd.NSUser, (*pin).userNamespace)
}

// MountNamespace identifies the caller's mount namespace.
func (t *Tracee) MountNamespace() (pidfd.NSID, error) {
	return t.linked(pidfd.NSMount, (*pin).mountNamespace)
}

func (p *pin) userNamespace() (uint64, error)  { return p.namespace("user") }
func (p *pin) mountNamespace() (uint64, error) { return p.namespace("mnt") }

func (t *Tracee) linked(ns pidfd.NS, look func(*pin) (uint64, error)) (pidfd.NSID, error) {
	ino, err := pinned(t, look)
	if err == nil {
		return pidfd.NSID{Dev: t.proc.nsfs, Ino: ino}, nil
	}
	return t.NamespaceID(ns)
}

// NamespaceID identifies one of the caller's namespaces.
func (t *Tracee) NamespaceID(ns pidfd.NS) (pidfd.NSID, error) {
	fd, err := t.Pidfd()
	if err != nil {
		return pidfd.NSID{}, err
	}
	id, err := fd.NamespaceID(ns)
	if err = t.settle(err); err != nil {
		return pidfd.NSID{}, fmt.Errorf("identify caller's namespace: %w", err)
	}
	return id, nil
}

// Namespace opens one of the caller's namespaces; whoever asked
// closes the handle.
func (t *Tracee) Namespace(ns pidfd.NS) (Handle, error) {
	fd, err := t.Pidfd()
	if err != nil {
		return Handle{}, err
	}
	n, err := fd.Namespace(ns)
	if err != nil {
		return Handle{}, fmt.Errorf("open caller's namespace: %w", t.settle(err))
	}
	h := NewHandle(n)
	if gone := t.waiting(); gone != nil {
		h.Close()
		return Handle{}, gone
	}
	return h, nil
}

// Root lends a reference to the caller's root directory: the container's, or
// below it where the caller has chrooted. It is valid until the next Reset.
func (t *Tracee) Root() (*Handle, error) {
	h, err := pinned(t, (*pin).rootDir)
	if err != nil {
		return nil, fmt.Errorf("open caller's root: %w", t.settle(err))
	}
	return h, nil
}

// Cwd refers to the caller's working directory.
func (t *Tracee) Cwd() (Handle, error) {
	h, err := pinned(t, func(p *pin) (Handle, error) {
		return openat(p.dir.FD(), "cwd", unix.O_PATH|unix.O_DIRECTORY)
	})
	if err != nil {
		return Handle{}, fmt.Errorf("open caller's working directory: %w", t.settle(err))
	}
	return h, nil
}

// File takes the caller's descriptor n: the same open file description.
// EBADF if it has none. Beware of O_NONBLOCK and the file position: they are
// shared.
func (t *Tracee) File(n int32) (Handle, error) {
	fd, err := t.Pidfd()
	if err != nil {
		return Handle{}, err
	}
	if !fd.IsThread() {
		shared, err := t.sharesTable()
		if err != nil {
			return Handle{}, err
		}
		if !shared {
			return Handle{}, fmt.Errorf("take caller's descriptor: thread %d has a descriptor table of its own and this kernel no thread pidfds: %w", t.tid, unix.EOPNOTSUPP)
		}
	}
	got, err := fd.GetFD(int(n))
	if err != nil {
		return Handle{}, t.settle(err)
	}
	h := NewHandle(got)
	if gone := t.waiting(); gone != nil {
		h.Close()
		return Handle{}, gone
	}
	return h, nil
}

// Dir refers to the directory that a call's dirfd argument names: the working
// directory for AT_FDCWD. EBADF if there is none, ENOTDIR if it is something
// else. It takes the right to look into other processes' /proc/PID/fd.
//
// The descriptor itself is not taken, unlike by [Tracee.File]: closing a
// second descriptor of a file that a container's own program serves (FUSE)
// asks that program, and waits for it as nothing and nobody can end.
func (t *Tracee) Dir(dirfd int32) (Handle, error) {
	if dirfd == unix.AT_FDCWD {
		return t.Cwd()
	}
	if dirfd < 0 {
		return Handle{}, unix.EBADF
	}
	h, err := pinned(t, func(p *pin) (Handle, error) {
		return openat(p.dir.FD(), "fd/"+strconv.Itoa(int(dirfd)), unix.O_PATH|unix.O_DIRECTORY)
	})
	if err == nil {
		return h, nil
	}
	if gone := t.waiting(); gone != nil {
		return Handle{}, gone
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		return Handle{}, unix.EBADF
	case errors.Is(err, unix.ENOTDIR):
		return Handle{}, unix.ENOTDIR
	default:
		return Handle{}, fmt.Errorf("open caller's directory: %w", err)
	}
}

// sharesTable says whether the caller uses its leader's descriptor table.
func (t *Tracee) sharesTable() (bool, error) {
	const kcmpFiles = 2 // KCMP_FILES, linux/kcmp.h
	status, err := t.Status()
	if err != nil {
		return false, err
	}
	if status.TGID == t.tid {
		return true, nil
	}
	r, _, errno := unix.RawSyscall6(unix.SYS_KCMP, uintptr(t.tid), uintptr(status.TGID), kcmpFiles, 0, 0, 0)
	if gone := t.waiting(); gone != nil {
		return false, gone
	}
	if errno != 0 {
		return false, fmt.Errorf("compare descriptor tables: %w", errno)
	}
	return r == 0, nil
}
