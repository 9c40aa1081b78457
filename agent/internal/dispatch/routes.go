package dispatch

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/agent/internal/metrics"
	"github.com/callgate/callgate/agent/internal/systab"
	"github.com/callgate/callgate/emulators"
)

// route is where a call goes. Routes are built once, for all containers.
type route struct {
	syscall string
	kind    int // index into the kinds; -1: nobody's
	name    string
	absent  bool // the kernel has no such call: x32 where it is not built in
	metrics *metrics.Call
}

type routes struct {
	byKey   map[systab.Key]*route
	unknown *route
}

const x32Bit = 0x40000000 // __X32_SYSCALL_BIT of asm/unistd.h

func buildRoutes(kinds []emulators.Kind, m *metrics.Metrics) (*routes, error) {
	if err := emulators.Overlap(kinds); err != nil {
		return nil, err
	}
	r := &routes{
		byKey:   make(map[systab.Key]*route),
		unknown: &route{syscall: "unknown", kind: -1, name: "none", metrics: m.For("none", "unknown")},
	}
	x32 := hasX32()
	for i, kind := range kinds {
		table, err := systab.Build(kind.Syscalls)
		if err != nil {
			return nil, fmt.Errorf("kind %q: %w", kind.Name, err)
		}
		calls := make(map[string]*metrics.Call)
		for key, name := range table.Calls() {
			if calls[name] == nil {
				calls[name] = m.For(kind.Name, name)
			}
			absent := !x32 && key.Arch == unix.AUDIT_ARCH_X86_64 && key.NR&x32Bit != 0
			r.byKey[key] = &route{syscall: name, kind: i, name: kind.Name, absent: absent, metrics: calls[name]}
		}
	}
	return r, nil
}

func (r *routes) find(arch uint32, nr int32) *route {
	if found := r.byKey[systab.Key{Arch: arch, NR: nr}]; found != nil {
		return found
	}
	return r.unknown
}

// hasX32 asks the kernel for a call of its x32 ABI (CONFIG_X86_X32_ABI).
func hasX32() bool {
	if runtime.GOARCH != "amd64" {
		return false
	}
	_, _, errno := unix.RawSyscall(x32Bit|unix.SYS_GETPID, 0, 0, 0)
	return errno == 0
}
