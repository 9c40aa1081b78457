package mnt

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/tracee"
)

// Sealer makes the flags of mounts stay. The root of a user namespace may
// remount what it finds in its mount namespace and take nosuid and nodev away,
// unless they are locked, and the kernel locks them in one place that we get
// to: on a mount that propagates into a mount namespace of another user
// namespace (lock_mnt_tree of fs/namespace.c, called by
// attach_recursive_mnt). So there are two: a room with a shared mount, and
// below it, in a user namespace of no meaning, a room with that mount's slave.
// What is mounted in the first appears in the second locked, and a clone of
// that is as locked and goes wherever it is wanted. Locked are the flags that
// are set, and the atime ones in any case.
//
// Safe for concurrent use, each with a thread of its own.
type Sealer struct {
	upper *Room
	lower Room // in the other user namespace
	next  atomic.Uint64
}

// OpenSealer makes one on a room, which it borrows and which must not be
// closed before it. It takes some milliseconds: a child process is made that
// never runs.
func OpenSealer(upper *Room) (*Sealer, error) {
	s := &Sealer{upper: upper}
	if err := elsewhere(s.build); err != nil {
		s.Close()
		return nil, fmt.Errorf("make a place to seal mounts: %w", err)
	}
	return s, nil
}

// Close gives it up; mounts that it sealed stay so.
func (s *Sealer) Close() { s.lower.Close() }

func (s *Sealer) build() (err error) {
	if s.lower.ns, err = foreignNamespace(); err != nil {
		return err
	}
	if err := enter(&s.upper.ns); err != nil {
		return err
	}
	if err := propagate(&s.upper.dir, unix.MS_SHARED); err != nil {
		return err
	}
	if s.lower.dir, err = Clone(&s.upper.dir); err != nil {
		return err
	}
	if err := propagate(&s.lower.dir, unix.MS_SLAVE); err != nil {
		return err
	}
	if err := enter(&s.lower.ns); err != nil {
		return err
	}
	return becomeRoot(&s.lower.dir)
}

// enter moves the thread, which is for nothing else, into a mount namespace.
func enter(ns *tracee.Handle) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare CLONE_FS", err)
	}
	return os.NewSyscallError("setns CLONE_NEWNS", unix.Setns(ns.FD(), unix.CLONE_NEWNS))
}

// foreignNamespace makes a mount namespace that belongs to a new user
// namespace. That takes a process of one thread, which this one is not: a
// child is made there and killed before its first instruction (a traced child
// stops at execve). The thread must be locked.
func foreignNamespace() (tracee.Handle, error) {
	id := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
	gid := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	child := exec.Cmd{
		Path: "/proc/self/exe",
		Args: []string{"callgate-namespace"},
		Env:  []string{},
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
			UidMappings: id,
			GidMappings: gid,
			Ptrace:      true,
			Pdeathsig:   unix.SIGKILL,
		},
	}
	if err := child.Start(); err != nil {
		return tracee.Handle{}, fmt.Errorf("start a child in a new user namespace: %w", err)
	}
	path := "/proc/" + strconv.Itoa(child.Process.Pid) + "/ns/mnt"
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		err = &os.PathError{Op: "open", Path: path, Err: err}
	}
	kill := child.Process.Kill()
	// Its end, or first that it stopped.
	for range 3 {
		var status unix.WaitStatus
		_, wait := unix.Wait4(child.Process.Pid, &status, unix.WALL, nil)
		if wait == unix.EINTR || wait == nil && status.Stopped() {
			continue
		}
		break
	}
	_ = child.Process.Release()
	if err != nil {
		return tracee.Handle{}, errors.Join(err, kill)
	}
	return tracee.NewHandle(fd), nil
}

// Seal makes a copy of a detached mount, whose flags are locked. tree is
// borrowed and no longer detached afterwards, but unmounted: close it.
func (s *Sealer) Seal(thread *tracee.Thread, tree *tracee.Handle) (sealed tracee.Handle, err error) {
	name := "seal" + strconv.FormatUint(s.next.Add(1), 10)
	err = thread.InMounts(&s.upper.ns, func() error {
		return s.upper.Mount(tree, name)
	})
	if err != nil {
		return tracee.Handle{}, err
	}
	err = thread.InMounts(&s.lower.ns, func() (err error) {
		sealed, err = cloneAt(&s.lower.dir, name)
		return err
	})
	remove := thread.InMounts(&s.upper.ns, func() error {
		err := Detach(tree) // and, by propagation, below
		_ = unix.Unlinkat(s.upper.dir.FD(), name, unix.AT_REMOVEDIR)
		return err
	})
	if err = errors.Join(err, remove); err != nil {
		sealed.Close()
		return tracee.Handle{}, err
	}
	return sealed, nil
}
