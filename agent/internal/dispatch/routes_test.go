package dispatch

import (
	"context"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/agent/internal/metrics"
	"github.com/callgate/callgate/emulators"
)

func TestRoutes(t *testing.T) {
	zero := func() float64 { return 0 }
	m := metrics.New(zero, zero)
	kinds := []emulators.Kind{
		{Name: "a", Syscalls: []string{"mknod", "mknodat"}},
		{Name: "b", Syscalls: []string{"mount"}},
	}
	r, err := buildRoutes(kinds, m)
	must(t, err)
	for _, test := range []struct {
		arch uint32
		nr   int32
		name string // of the kind
		call string
		kind int
	}{
		{unix.AUDIT_ARCH_X86_64, 133, "a", "mknod", 0},
		{unix.AUDIT_ARCH_X86_64, 259, "a", "mknodat", 0},
		{unix.AUDIT_ARCH_X86_64, 165, "b", "mount", 1},
		{unix.AUDIT_ARCH_I386, 21, "b", "mount", 1},
		{unix.AUDIT_ARCH_X86_64, 21, "none", "unknown", -1},
		{unix.AUDIT_ARCH_AARCH64, 33, "none", "unknown", -1},
		{0, 0, "none", "unknown", -1},
		{unix.AUDIT_ARCH_X86_64, -1, "none", "unknown", -1},
	} {
		got := r.find(test.arch, test.nr)
		if got.name != test.name || got.syscall != test.call || got.kind != test.kind || got.absent {
			t.Errorf("%#x, %d: %+v, want %+v", test.arch, test.nr, got, test)
		}
	}
	if got := r.find(unix.AUDIT_ARCH_X86_64, x32Bit|133); got.absent == hasX32() {
		t.Errorf("x32 mknod is absent: %v; the kernel has x32: %v", got.absent, hasX32())
	}
}

func TestRoutesRefuse(t *testing.T) {
	zero := func() float64 { return 0 }
	for want, kinds := range map[string][]emulators.Kind{
		`both claim mknod`:           {{Name: "a", Syscalls: []string{"mknod"}}, {Name: "b", Syscalls: []string{"mount", "mknod"}}},
		`two kinds are named "a"`:    {{Name: "a"}, {Name: "a"}},
		`kind "a": system call "no"`: {{Name: "a", Syscalls: []string{"no"}}},
	} {
		if _, err := buildRoutes(kinds, metrics.New(zero, zero)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		o := testOptions(t)
		o.Kinds = kinds
		if d, err := New(o); err == nil {
			t.Errorf("%s: New gave a dispatcher", want)
			_ = d.Close(context.Background())
		}
	}
}

// TestUnknown: a call that is nobody's is answered as by a kernel without it,
// and the listener lives on.
func TestUnknown(t *testing.T) {
	s := newStage(t)
	c := newCaller(t)
	s.serve(s.container("c", answering(emulators.Return(7))), c.listener)
	for range 3 {
		if got := within(t, "unknown call", c.start(unix.SYS_ACCT, 0)); got.errno != unix.ENOSYS {
			t.Errorf("acct: %v, want ENOSYS", got.errno)
		}
		c.want(0, result{value: 7})
	}
	// A call of an ABI that the kernel lacks does not get to the emulator.
	if !hasX32() {
		to := s.routes.find(unix.AUDIT_ARCH_X86_64, x32Bit|unix.SYS_MKNODAT)
		r := &runner{d: s.Dispatcher, session: &session{container: s.container("x32", nil)}}
		resp, err := r.emulate(t.Context(), to)
		if err != nil || resp.Errno() != unix.ENOSYS {
			t.Errorf("x32: %v, %v, want ENOSYS", resp.Errno(), err)
		}
		r.session.container.Release()
	}
}

// answering is an emulator with one answer.
func answering(resp emulators.Response) emulator {
	return func(context.Context, *emulators.Request) (emulators.Response, error) { return resp, nil }
}
