// Package systab maps what a notification says, an architecture and a number,
// to the call that it is. It is the agent's only user of libseccomp's tables.
package systab

import (
	"errors"
	"fmt"
	"runtime"

	seccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// Key is how a filter sees a call. An x32 call has the architecture of x86_64
// and bit 30 set in its number.
type Key struct {
	Arch uint32 // AUDIT_ARCH_*
	NR   int32
}

// ABI is one way into the kernel.
type ABI struct {
	Name  string // libseccomp's
	audit uint32
	arch  seccomp.ScmpArch
}

// abis are those that a kernel of an architecture can serve.
func abis(goarch string) ([]ABI, error) {
	switch goarch {
	case "amd64":
		return []ABI{
			{"x86_64", unix.AUDIT_ARCH_X86_64, seccomp.ArchAMD64},
			{"x86", unix.AUDIT_ARCH_I386, seccomp.ArchX86},
			{"x32", unix.AUDIT_ARCH_X86_64, seccomp.ArchX32},
		}, nil
	case "arm64":
		return []ABI{
			{"aarch64", unix.AUDIT_ARCH_AARCH64, seccomp.ArchARM64},
			{"arm", unix.AUDIT_ARCH_ARM, seccomp.ArchARM},
		}, nil
	case "riscv64":
		return []ABI{{"riscv64", unix.AUDIT_ARCH_RISCV64, seccomp.ArchRISCV64}}, nil
	case "ppc64le":
		return []ABI{{"ppc64le", unix.AUDIT_ARCH_PPC64LE, seccomp.ArchPPC64LE}}, nil
	case "s390x":
		return []ABI{{"s390x", unix.AUDIT_ARCH_S390X, seccomp.ArchS390X}, {"s390", unix.AUDIT_ARCH_S390, seccomp.ArchS390}}, nil
	default:
		return nil, fmt.Errorf("architecture %q has no system call tables here", goarch)
	}
}

// Table says which of the calls asked for a notification is. It does not
// change once made.
type Table struct {
	calls map[Key]string
}

// Build makes the table of the running architecture for the calls named.
func Build(names []string) (*Table, error) { return BuildFor(runtime.GOARCH, names) }

// BuildFor makes the table for an architecture by Go's name. A call that one
// of its ABIs lacks (mknod on arm64) is left out there; one that all lack is
// an error.
func BuildFor(goarch string, names []string) (*Table, error) {
	list, err := abis(goarch)
	if err != nil {
		return nil, err
	}
	t := &Table{calls: make(map[Key]string)}
	for _, name := range names {
		known := false
		for _, abi := range list {
			nr, err := seccomp.GetSyscallFromNameByArch(name, abi.arch)
			if errors.Is(err, seccomp.ErrSyscallDoesNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("look up %s on %s: %w", name, abi.Name, err)
			}
			known = true
			if nr >= 0 { // a pseudo number: libseccomp knows the name, the ABI lacks the call
				t.calls[Key{abi.audit, int32(nr)}] = name
			}
		}
		if !known {
			return nil, fmt.Errorf("system call %q is unknown", name)
		}
	}
	return t, nil
}

// Calls lists the table: for the router, which reads it once.
func (t *Table) Calls() map[Key]string { return t.calls }
