// Package filter turns a resolved OCI seccomp section into a BPF program and loads it on a thread.
//
// It exists for `callgate run`, which has no OCI runtime to do this. [Build] makes the same rules, in the same order, as runc
// and crun do, so that a profile means the same whoever loads it, and adds a hint that makes it faster; the tests of hooks/profile simulate its programs for that reason. libseccomp
// only builds here: the program is loaded with seccomp(2) itself, because seccomp_load(3) gives a process one listener ever
// and libseccomp-golang forces SECCOMP_FILTER_FLAG_TSYNC.
//
// Nothing in the package keeps state; all functions may be called concurrently.
package filter

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// maxInstructions is the kernel's BPF_MAXINSNS (include/uapi/linux/bpf_common.h).
const maxInstructions = 4096

// Build compiles a profile for the running architecture (and whichever more the profile names) into a program for [Load].
//
// The profile must be pure OCI: rules conditional on capabilities and the like have been resolved already (package profile does it). As in
// runc and crun: a syscall name that libseccomp does not know is skipped; a rule whose action is the default one is
// skipped; a rule with more than one condition on the same argument matches when *any* of its conditions does.
// Flags and listenerPath are not the program's business and are ignored, see [Flags].
func Build(profile *specs.LinuxSeccomp) ([]unix.SockFilter, error) {
	def, err := action(profile.DefaultAction, profile.DefaultErrnoRet)
	if err != nil {
		return nil, fmt.Errorf("default action: %w", err)
	}
	f, err := libseccomp.NewFilter(def)
	if err != nil {
		return nil, fmt.Errorf("create filter: %w", err)
	}
	defer f.Release()

	for _, name := range profile.Architectures {
		arch, err := architecture(name)
		if err != nil {
			return nil, err
		}
		if err := f.AddArch(arch); err != nil {
			return nil, fmt.Errorf("add architecture %s: %w", name, err)
		}
	}
	for i, rule := range profile.Syscalls {
		if err := addRule(f, def, rule); err != nil {
			return nil, fmt.Errorf("syscalls[%d]: %w", i, err)
		}
	}
	if err := conditionalFirst(f, profile.Syscalls); err != nil {
		return nil, err
	}
	return export(f)
}

// conditionalFirst has the program look first for the calls that have
// conditions. libseccomp puts them last, behind hundreds of others, whereas
// those others, if they are always allowed, never run the program at all (the
// kernel keeps a bitmap of them since Linux 5.11). It decides nothing.
func conditionalFirst(f *libseccomp.ScmpFilter, rules []specs.LinuxSyscall) error {
	const first = 255
	for _, rule := range rules {
		if len(rule.Args) == 0 {
			continue
		}
		for _, name := range rule.Names {
			nr, err := libseccomp.GetSyscallFromName(name)
			if err != nil {
				continue // newer than this libseccomp
			}
			if err := f.SetSyscallPriority(nr, first); err != nil {
				return fmt.Errorf("set priority of %s: %w", name, err)
			}
		}
	}
	return nil
}

func addRule(f *libseccomp.ScmpFilter, def libseccomp.ScmpAction, rule specs.LinuxSyscall) error {
	act, err := action(rule.Action, rule.ErrnoRet)
	if err != nil {
		return err
	}
	if act == def {
		return nil // libseccomp refuses such a rule with EACCES
	}
	alternatives, err := conditions(rule.Args)
	if err != nil {
		return err
	}
	for _, name := range rule.Names {
		nr, err := libseccomp.GetSyscallFromName(name)
		if err != nil {
			continue // newer than this libseccomp
		}
		for _, conds := range alternatives {
			if len(conds) == 0 {
				err = f.AddRule(nr, act)
			} else {
				err = f.AddRuleConditional(nr, act, conds)
			}
			if err != nil {
				return fmt.Errorf("add rule for %s: %w", name, err)
			}
		}
	}
	return nil
}

// conditions gives the sets of conditions of which one has to hold. libseccomp cannot compare one argument twice in
// a rule; runc and crun then make a rule of every condition, and so must we.
func conditions(args []specs.LinuxSeccompArg) ([][]libseccomp.ScmpCondition, error) {
	seen := make(map[uint]bool)
	repeated := false
	var all []libseccomp.ScmpCondition
	for _, a := range args {
		op, err := operator(a.Op)
		if err != nil {
			return nil, err
		}
		cond, err := libseccomp.MakeCondition(a.Index, op, a.Value, a.ValueTwo)
		if err != nil {
			return nil, fmt.Errorf("condition on argument %d: %w", a.Index, err)
		}
		repeated = repeated || seen[a.Index]
		seen[a.Index] = true
		all = append(all, cond)
	}
	if !repeated {
		return [][]libseccomp.ScmpCondition{all}, nil
	}
	var each [][]libseccomp.ScmpCondition
	for _, cond := range all {
		each = append(each, []libseccomp.ScmpCondition{cond})
	}
	return each, nil
}

// export goes through a memfd: seccomp_export_bpf_mem(3) came with libseccomp 2.6.0, and a pipe would block at 64 KiB.
func export(f *libseccomp.ScmpFilter) ([]unix.SockFilter, error) {
	fd, err := unix.MemfdCreate("callgate-filter", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	mem := os.NewFile(uintptr(fd), "callgate-filter")
	defer func() { _ = mem.Close() }() // memory only

	if err := f.ExportBPF(mem); err != nil {
		return nil, fmt.Errorf("export program: %w", err)
	}
	raw, err := io.ReadAll(io.NewSectionReader(mem, 0, math.MaxInt64))
	if err != nil {
		return nil, fmt.Errorf("read program: %w", err)
	}
	return decode(raw)
}

// decode reads an array of struct sock_filter (include/uapi/linux/filter.h).
func decode(raw []byte) ([]unix.SockFilter, error) {
	const size = 8
	if len(raw) == 0 || len(raw)%size != 0 {
		return nil, fmt.Errorf("read program: %d bytes are no array of instructions", len(raw))
	}
	if len(raw)/size > maxInstructions {
		return nil, fmt.Errorf("program has %d instructions, the kernel takes %d", len(raw)/size, maxInstructions)
	}
	prog := make([]unix.SockFilter, len(raw)/size)
	for i := range prog {
		b := raw[i*size:]
		prog[i] = unix.SockFilter{
			Code: binary.NativeEndian.Uint16(b),
			Jt:   b[2],
			Jf:   b[3],
			K:    binary.NativeEndian.Uint32(b[4:]),
		}
	}
	return prog, nil
}

func architecture(name specs.Arch) (libseccomp.ScmpArch, error) {
	short, ok := strings.CutPrefix(string(name), "SCMP_ARCH_")
	if !ok {
		return libseccomp.ArchInvalid, fmt.Errorf("unknown architecture %q", name)
	}
	arch, err := libseccomp.GetArchFromString(short)
	if err != nil {
		return libseccomp.ArchInvalid, fmt.Errorf("unknown architecture %q", name)
	}
	return arch, nil
}

func operator(op specs.LinuxSeccompOperator) (libseccomp.ScmpCompareOp, error) {
	switch op {
	case specs.OpNotEqual:
		return libseccomp.CompareNotEqual, nil
	case specs.OpLessThan:
		return libseccomp.CompareLess, nil
	case specs.OpLessEqual:
		return libseccomp.CompareLessOrEqual, nil
	case specs.OpEqualTo:
		return libseccomp.CompareEqual, nil
	case specs.OpGreaterEqual:
		return libseccomp.CompareGreaterEqual, nil
	case specs.OpGreaterThan:
		return libseccomp.CompareGreater, nil
	case specs.OpMaskedEqual:
		return libseccomp.CompareMaskedEqual, nil
	}
	return libseccomp.CompareInvalid, fmt.Errorf("unknown operator %q", op)
}

// action follows config-linux.md: ERRNO and TRACE carry errnoRet, which defaults to EPERM.
func action(act specs.LinuxSeccompAction, ret *uint) (libseccomp.ScmpAction, error) {
	code := int16(unix.EPERM)
	if ret != nil {
		if *ret > math.MaxInt16 {
			return libseccomp.ActInvalid, fmt.Errorf("errnoRet %d out of range", *ret)
		}
		code = int16(*ret)
	}
	switch act {
	case specs.ActKill, specs.ActKillThread:
		return libseccomp.ActKillThread, nil
	case specs.ActKillProcess:
		return libseccomp.ActKillProcess, nil
	case specs.ActTrap:
		return libseccomp.ActTrap, nil
	case specs.ActErrno:
		return libseccomp.ActErrno.SetReturnCode(code), nil
	case specs.ActTrace:
		return libseccomp.ActTrace.SetReturnCode(code), nil
	case specs.ActAllow:
		return libseccomp.ActAllow, nil
	case specs.ActLog:
		return libseccomp.ActLog, nil
	case specs.ActNotify:
		return libseccomp.ActNotify, nil
	}
	return libseccomp.ActInvalid, fmt.Errorf("unknown action %q", act)
}
