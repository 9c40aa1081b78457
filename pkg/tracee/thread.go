package tracee

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrThread says that a thread's credentials or root could not be put back.
// The thread must not run anything else: let its goroutine end while it is
// locked, and the runtime ends the thread.
var ErrThread = errors.New("thread is stuck in a caller's identity")

// Identity is what the kernel asks about when a task makes or looks up a file.
type Identity struct {
	FSUID, FSGID uint32
	Groups       []uint32
	Umask        uint32
}

// Identity is the caller's, for [Thread.As].
func (s *Status) Identity() Identity {
	return Identity{FSUID: s.FSUID, FSGID: s.FSGID, Groups: s.Groups, Umask: s.Umask}
}

// Thread is an OS thread that can act as a caller. It has its own root,
// working directory and umask (CLONE_FS), apart from the rest of the program.
//
// Between two calls of As it keeps the last caller's filesystem ids, groups
// and umask and the capabilities of that call: whatever matters is done within
// As, In, InMounts or Privileged.
type Thread struct {
	home *Home
	full [2]unix.CapUserData

	caps  Capabilities // in force, if known
	known bool

	fsuid, fsgid uint32
	groups       []uint32
	umask        int
	broken       bool
}

// standing are the capabilities that a Thread keeps whoever it is.
const standing = Capabilities(1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<unix.CAP_SYS_PTRACE)

// Home is where Threads come back to: the root directory, the mount namespace
// and the network namespace that the program has. One serves any number of Threads.
type Home struct {
	root    Handle
	mounts  Handle
	network Handle
}

// OpenHome takes the calling thread's, which must not be changed yet.
func OpenHome() (*Home, error) {
	root, err := openat(unix.AT_FDCWD, "/", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	mounts, err := openat(unix.AT_FDCWD, "/proc/thread-self/ns/mnt", unix.O_RDONLY)
	if err != nil {
		root.Close()
		return nil, err
	}
	network, err := openat(unix.AT_FDCWD, "/proc/thread-self/ns/net", unix.O_RDONLY)
	if err != nil {
		root.Close()
		mounts.Close()
		return nil, err
	}
	return &Home{root: root, mounts: mounts, network: network}, nil
}

// Close gives back what it holds; no Thread of it may be used after.
func (h *Home) Close() {
	h.root.Close()
	h.mounts.Close()
	h.network.Close()
}

// NewThread makes the calling OS thread one, with a home that it borrows. The
// goroutine must be locked to it (runtime.LockOSThread) and must never unlock
// it: the OS thread ends with it, and is for no other use.
func NewThread(home *Home) (*Thread, error) {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return nil, os.NewSyscallError("unshare CLONE_FS", err)
	}
	// setfsuid(2) would take away capabilities behind the back of As, which
	// sets them itself. Where this is not allowed (no CAP_SETPCAP), As is
	// still right: it sets capabilities last.
	const noSetuidFixup = 1 << 2 // SECBIT_NO_SETUID_FIXUP, linux/securebits.h
	_ = unix.Prctl(unix.PR_SET_SECUREBITS, noSetuidFixup, 0, 0, 0)
	t := &Thread{home: home, umask: -1, fsuid: ^uint32(0), fsgid: ^uint32(0), groups: []uint32{^uint32(0)}}
	hdr := capHeader()
	if err := unix.Capget(&hdr, &t.full[0]); err != nil {
		return nil, os.NewSyscallError("capget", err)
	}
	return t, nil
}

// As runs f on this thread with the filesystem ids, groups and umask of id, and
// with caps (as far as the program has them). Besides those the thread keeps
// CAP_SETUID and CAP_SETGID, to become somebody else, and CAP_SYS_PTRACE, to
// read callers: no permission of a filesystem depends on them.
//
// Nothing is put back afterwards: whatever comes next that matters is done
// within As, too, and a caller that calls again and again costs no switch.
func (t *Thread) As(id *Identity, caps Capabilities, f func() error) error {
	if t.broken {
		return ErrThread
	}
	if err := t.become(id); err != nil {
		return err
	}
	if err := t.limit(standing | caps); err != nil {
		return err
	}
	return f()
}

// Privileged runs f with every capability that the program has, for work on
// namespaces and the like: for nothing that looks a caller's path up.
func (t *Thread) Privileged(f func() error) error {
	if t.broken {
		return ErrThread
	}
	if err := t.limit(^Capabilities(0)); err != nil {
		return err
	}
	return f()
}

func (t *Thread) become(id *Identity) error {
	if !slices.Equal(t.groups, id.Groups) {
		if err := setgroups(id.Groups); err != nil {
			return err
		}
		t.groups = append(t.groups[:0], id.Groups...)
	}
	if t.fsgid != id.FSGID {
		if err := setfsid("setfsgid", unix.SYS_SETFSGID, id.FSGID); err != nil {
			return err
		}
		t.fsgid = id.FSGID
	}
	if t.fsuid != id.FSUID {
		if err := setfsid("setfsuid", unix.SYS_SETFSUID, id.FSUID); err != nil {
			return err
		}
		t.fsuid = id.FSUID
		// Without SECBIT_NO_SETUID_FIXUP it has changed the capabilities.
		t.known = false
	}
	if t.umask != int(id.Umask) {
		unix.RawSyscall(unix.SYS_UMASK, uintptr(id.Umask), 0, 0) // cannot fail
		t.umask = int(id.Umask)
	}
	return nil
}

// limit sets the effective capabilities.
func (t *Thread) limit(caps Capabilities) error {
	if t.known && t.caps == caps {
		return nil
	}
	limited := t.full
	limited[0].Effective &= uint32(caps)
	limited[1].Effective &= uint32(caps >> 32)
	if err := setcap(&limited); err != nil {
		return err
	}
	t.caps, t.known = caps, true
	return nil
}

// In runs f with the thread's root directory at root, for lookups that must
// stop there, and puts it back. It may block where root is.
func (t *Thread) In(root *Handle, f func() error) error {
	return t.Privileged(func() (err error) {
		defer func() { err = t.goHome(err) }()
		if err := chroot(root); err != nil {
			return fmt.Errorf("enter root: %w", err)
		}
		return f()
	})
}

// InMounts runs f with the thread in the mount namespace ns, its root and
// working directory at that namespace's root, and puts them back.
func (t *Thread) InMounts(ns *Handle, f func() error) error {
	return t.Privileged(func() (err error) {
		if err := unix.Setns(ns.FD(), unix.CLONE_NEWNS); err != nil {
			return os.NewSyscallError("setns CLONE_NEWNS", err)
		}
		defer func() { err = t.goBack(err) }()
		return f()
	})
}

// InNetwork runs f with the thread in the network namespace ns and puts it
// back. It may be used within InMounts.
func (t *Thread) InNetwork(ns *Handle, f func() error) error {
	return t.Privileged(func() (err error) {
		if err := unix.Setns(ns.FD(), unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("setns CLONE_NEWNET", err)
		}
		defer func() {
			back := t.limit(^Capabilities(0))
			if back == nil {
				back = os.NewSyscallError("setns CLONE_NEWNET", unix.Setns(t.home.network.FD(), unix.CLONE_NEWNET))
			}
			if back != nil {
				t.broken = true
				err = errors.Join(err, fmt.Errorf("%w: %w", ErrThread, back))
			}
		}()
		return f()
	})
}

// goBack puts the mount namespace back, and what comes with it.
func (t *Thread) goBack(err error) error {
	back := t.limit(^Capabilities(0))
	if back == nil {
		back = os.NewSyscallError("setns CLONE_NEWNS", unix.Setns(t.home.mounts.FD(), unix.CLONE_NEWNS))
	}
	if back != nil {
		t.broken = true
		return errors.Join(err, fmt.Errorf("%w: %w", ErrThread, back))
	}
	return t.goHome(err)
}

// goHome puts the root directory back.
func (t *Thread) goHome(err error) error {
	back := t.limit(^Capabilities(0))
	if back == nil {
		back = chroot(&t.home.root)
	}
	if back != nil {
		t.broken = true
		return errors.Join(err, fmt.Errorf("%w: %w", ErrThread, back))
	}
	return err
}

// Broken says that the thread must not be used any more: see [ErrThread].
func (t *Thread) Broken() bool { return t.broken }

// chroot changes root and working directory by descriptor: "." after fchdir
// is the directory itself, whatever is mounted or renamed meanwhile.
func chroot(dir *Handle) error {
	if err := unix.Fchdir(dir.FD()); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	return os.NewSyscallError("chroot", unix.Chroot("."))
}

// setgroups, setfsid and setcap are raw: the wrappers of package syscall
// change every thread of the program.
func setgroups(groups []uint32) error {
	var first unsafe.Pointer
	if len(groups) > 0 {
		first = unsafe.Pointer(&groups[0])
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(first), 0)
	if errno != 0 {
		return os.NewSyscallError("setgroups", errno)
	}
	return nil
}

// setfsid sets one of the two ids that report no error: it asks, with an id
// that cannot be, which one is in force.
func setfsid(name string, call uintptr, id uint32) error {
	unix.RawSyscall(call, uintptr(id), 0, 0)
	now, _, _ := unix.RawSyscall(call, uintptr(^uint32(0)), 0, 0)
	if uint32(now) != id {
		return os.NewSyscallError(name, unix.EPERM)
	}
	return nil
}

func capHeader() unix.CapUserHeader {
	return unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
}

func setcap(data *[2]unix.CapUserData) error {
	hdr := capHeader()
	_, _, errno := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(data)), 0)
	if errno != 0 {
		return os.NewSyscallError("capset", errno)
	}
	return nil
}
