package main

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/hooks/filter"
	"github.com/callgate/callgate/hooks/profile"
)

// kind is the filter that a subject has.
type kind string

const (
	filterNone     kind = ""
	filterTrap     kind = "trap"     // the calls of this bench and no others
	filterStock    kind = "stock"    // the built-in profile, without callgate
	filterCallgate kind = "callgate" // the same, compiled for all emulators measured here
)

// listens says whether there is a listener to hand over.
func (k kind) listens() bool { return k == filterTrap || k == filterCallgate }

// load puts the filter on the thread and hands its listener over.
func (k kind) load(conn int) error {
	if k == filterNone {
		return nil
	}
	program, err := k.program()
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	if !k.listens() {
		return loadAlone(program)
	}
	listener, err := filter.Load(program, 0)
	if err != nil {
		return err
	}
	err = sendTo(conn, struct{}{}, unix.UnixRights(listener))
	_ = unix.Close(listener)
	return err
}

// program is built as `callgate run` has it: as runc 1.1 and crun 1.8 build
// theirs.
func (k kind) program() ([]unix.SockFilter, error) {
	var options profile.Options
	switch k {
	case filterTrap:
		return trapProgram(), nil
	case filterCallgate:
		options.Emulators = []string{"mknod", "mount"}
	}
	compiled, err := profile.Compile(nil, options)
	if err != nil {
		return nil, err
	}
	return filter.Build(compiled.Seccomp)
}

func trapProgram() []unix.SockFilter {
	jump := func(nr uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: skip, K: nr}
	}
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // nr
		jump(trivial, 2),
		jump(unix.SYS_MKNODAT, 1),
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
	}
}

// loadAlone loads a filter that has no listener.
func loadAlone(program []unix.SockFilter) error {
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&fprog)))
	return os.NewSyscallError("seccomp", verdict(errno))
}
