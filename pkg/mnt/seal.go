package mnt

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

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

func (s *Sealer) build() error {
	proc, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/proc", Err: err}
	}
	defer func() { _ = unix.Close(proc) }()
	program, err := neverRuns()
	if err != nil {
		return err
	}
	if err := enter(&s.upper.ns); err != nil {
		return err
	}
	if err := propagate(&s.upper.dir, unix.MS_SHARED); err != nil {
		return err
	}
	// The child takes a copy of this thread's mount namespace along: the room's,
	// of which nothing can be had, and not the host's.
	if s.lower.ns, err = s.foreignNamespace(proc, program); err != nil {
		return err
	}
	if err := unix.Setns(s.lower.ns.FD(), unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("setns CLONE_NEWNS", err)
	}
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/", Err: err}
	}
	s.lower.dir = tracee.NewHandle(root)
	return nil
}

// enter moves the thread, which is for nothing else, into a mount namespace.
func enter(ns *tracee.Handle) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare CLONE_FS", err)
	}
	return os.NewSyscallError("setns CLONE_NEWNS", unix.Setns(ns.FD(), unix.CLONE_NEWNS))
}

// foreignNamespace makes a mount namespace that belongs to a new user
// namespace, out of the thread's. That takes a process of one thread, which
// this one is not: a child is made there and killed before its first
// instruction (a traced child stops at execve). The thread must be locked.
func (s *Sealer) foreignNamespace(proc int, program []byte) (tracee.Handle, error) {
	const name = "never"
	if err := s.place(name, program); err != nil {
		return tracee.Handle{}, err
	}
	defer s.displace(name)
	attr := &syscall.ProcAttr{
		Env: []string{},
		Sys: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
			Ptrace:     true,
			Pdeathsig:  unix.SIGKILL,
		},
	}
	pid, err := syscall.ForkExec("/"+name+"/"+name, []string{"callgate-namespace"}, attr)
	for tries := 0; errors.Is(err, unix.ETXTBSY) && tries < 100; tries++ {
		// Another thread has forked while the program was being written, and its
		// child has not executed anything yet.
		time.Sleep(time.Millisecond)
		pid, err = syscall.ForkExec("/"+name+"/"+name, []string{"callgate-namespace"}, attr)
	}
	if err != nil {
		return tracee.Handle{}, fmt.Errorf("start a child in a new user namespace: %w", err)
	}
	path := strconv.Itoa(pid) + "/ns/mnt"
	fd, err := unix.Openat(proc, path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		err = &os.PathError{Op: "openat", Path: "/proc/" + path, Err: err}
	}
	kill := unix.Kill(pid, unix.SIGKILL) // not reaped yet: its number is its own
	// Its end, or first that it stopped.
	for range 3 {
		var status unix.WaitStatus
		_, wait := unix.Wait4(pid, &status, unix.WALL, nil)
		if wait == unix.EINTR || wait == nil && status.Stopped() {
			continue
		}
		break
	}
	if err != nil {
		return tracee.Handle{}, errors.Join(err, kill)
	}
	return tracee.NewHandle(fd), nil
}

// place puts a program into the room, on a filesystem that allows programs.
func (s *Sealer) place(name string, program []byte) error {
	fs, err := New("tmpfs")
	if err != nil {
		return err
	}
	defer fs.Close()
	if err := fs.Create(); err != nil {
		return err
	}
	tree, err := fs.Mount(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return err
	}
	defer tree.Close()
	fd, err := unix.Openat(tree.FD(), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return os.NewSyscallError("openat", err)
	}
	_, err = unix.Write(fd, program)
	// Whatever the umask: the child is nobody to this user namespace. And closed
	// before it is executed (ETXTBSY).
	err = errors.Join(os.NewSyscallError("write", err), os.NewSyscallError("fchmod", unix.Fchmod(fd, 0o755)), unix.Close(fd))
	if err != nil {
		return err
	}
	if err := unix.Chmod("/", 0o711); err != nil { // the room's
		return os.NewSyscallError("fchmod", err)
	}
	return s.upper.Mount(&tree, name)
}

// displace takes it away again, here and below. What fails leaves an empty
// folder with a program that does nothing, for nobody to see.
func (s *Sealer) displace(name string) {
	_ = unix.Chmod("/", 0o700)
	_ = unix.Unmount("/"+name, unix.MNT_DETACH)
	_ = unix.Unlinkat(s.upper.dir.FD(), name, unix.AT_REMOVEDIR)
}

// neverRuns is the smallest program of this machine's kind: an ELF header like
// that of the running program, with a segment of nothing but itself.
func neverRuns() ([]byte, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer func() { _ = self.Close() }()
	var head elf.Header64
	if err := binary.Read(self, binary.NativeEndian, &head); err != nil {
		return nil, fmt.Errorf("read /proc/self/exe: %w", err)
	}
	if head.Ident[elf.EI_CLASS] != byte(elf.ELFCLASS64) {
		return nil, errors.New("this program is not a 64-bit one")
	}
	const base = 1 << 22
	size := uint64(binary.Size(elf.Header64{}) + binary.Size(elf.Prog64{}))
	var program bytes.Buffer
	for _, part := range []any{
		elf.Header64{
			Ident: head.Ident, Type: uint16(elf.ET_EXEC), Machine: head.Machine, Version: head.Version, Flags: head.Flags,
			Entry: base, Phoff: uint64(binary.Size(elf.Header64{})), Ehsize: head.Ehsize, Phentsize: head.Phentsize, Phnum: 1,
		},
		elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: base, Paddr: base, Filesz: size, Memsz: size, Align: 1 << 16},
	} {
		_ = binary.Write(&program, binary.NativeEndian, part) // a Buffer takes everything
	}
	return program.Bytes(), nil
}

// Seal makes a copy of a detached mount, whose flags are locked. The thread must
// be in the upper room ([Sealer.Enter]), with all capabilities. tree is borrowed
// and no longer detached afterwards, but unmounted: close it.
func (s *Sealer) Seal(tree *tracee.Handle) (sealed tracee.Handle, err error) {
	name := "seal" + strconv.FormatUint(s.next.Add(1), 10)
	if err := s.upper.Mount(tree, name); err != nil {
		return tracee.Handle{}, err
	}
	sealed, err = s.below(name)
	// And, by propagation, below.
	err = errors.Join(err, Detach(tree))
	_ = unix.Unlinkat(s.upper.dir.FD(), name, unix.AT_REMOVEDIR)
	if err != nil {
		sealed.Close()
		return tracee.Handle{}, err
	}
	return sealed, nil
}

// below clones what has arrived in the lower room.
func (s *Sealer) below(name string) (sealed tracee.Handle, err error) {
	if err := unix.Setns(s.lower.ns.FD(), unix.CLONE_NEWNS); err != nil {
		return tracee.Handle{}, os.NewSyscallError("setns CLONE_NEWNS", err)
	}
	sealed, err = cloneAt(&s.lower.dir, name)
	back := unix.Setns(s.upper.ns.FD(), unix.CLONE_NEWNS)
	return sealed, errors.Join(err, os.NewSyscallError("setns CLONE_NEWNS", back))
}

// Enter runs f with the thread in the upper room, where filesystems may as well
// be made that are to be sealed.
func (s *Sealer) Enter(thread *tracee.Thread, f func() error) error {
	return thread.InMounts(&s.upper.ns, f)
}
