package filter

import (
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/hooks/internal/bpfsim"
)

func TestBuildErrors(t *testing.T) {
	rule := func(r specs.LinuxSyscall) *specs.LinuxSeccomp {
		r.Names = []string{"read"}
		return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{r}}
	}
	large := uint(1 << 15)
	for want, profile := range map[string]*specs.LinuxSeccomp{
		`default action: unknown action ""`:              {},
		`unknown architecture "x86"`:                     {DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"x86"}},
		`unknown architecture "SCMP_ARCH_VAX"`:           {DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"SCMP_ARCH_VAX"}},
		`syscalls[0]: unknown action "x"`:                rule(specs.LinuxSyscall{Action: "x"}),
		`syscalls[0]: errnoRet 32768 out of range`:       rule(specs.LinuxSyscall{Action: specs.ActErrno, ErrnoRet: &large}),
		`syscalls[0]: unknown operator ""`:               rule(specs.LinuxSyscall{Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{}}}),
		`syscalls[0]: condition on argument 6: syscalls`: rule(specs.LinuxSyscall{Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}),
	} {
		if _, err := Build(profile); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// TestRuntimeSemantics is for what runtimes do with a profile beyond the specification's text.
func TestRuntimeSemantics(t *testing.T) {
	arg := func(index uint, v uint64) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Index: index, Value: v, Op: specs.OpEqualTo}
	}
	enosys := uint(unix.ENOSYS)
	prog, err := Build(&specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno,
		Syscalls: []specs.LinuxSyscall{
			{Names: []string{"write"}, Action: specs.ActErrno}, // the default: skipped, so that the next counts
			{Names: []string{"write"}, Action: specs.ActAllow},
			{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{arg(0, 1), arg(0, 2), arg(1, 3)}},
			{Names: []string{"close"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{arg(0, 1), arg(1, 3)}},
			{Names: []string{"dup"}, Action: specs.ActErrno, ErrnoRet: &enosys},
			{Names: []string{"fsync"}, Action: specs.ActKillProcess},
			{Names: []string{"flock"}, Action: specs.ActTrace, ErrnoRet: &enosys},
			{Names: []string{"umask"}, Action: specs.ActLog},
			{Names: []string{"chdir"}, Action: specs.ActTrap},
			{Names: []string{"fchdir"}, Action: specs.ActKill},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	const allow, eperm = 0x7fff0000, 0x00050001
	for name, c := range map[string]struct {
		nr   uint32
		args [6]uint64
		want uint32
	}{
		"default":              {unix.SYS_GETPID, [6]uint64{}, eperm},
		"redundant is skipped": {unix.SYS_WRITE, [6]uint64{}, allow},
		"any of, first":        {unix.SYS_READ, [6]uint64{1}, allow},
		"any of, second":       {unix.SYS_READ, [6]uint64{2}, allow},
		"any of, third":        {unix.SYS_READ, [6]uint64{9, 3}, allow},
		"any of, none":         {unix.SYS_READ, [6]uint64{9, 9}, eperm},
		"all of":               {unix.SYS_CLOSE, [6]uint64{1, 3}, allow},
		"all of, one":          {unix.SYS_CLOSE, [6]uint64{1, 9}, eperm},
		"errno":                {unix.SYS_DUP, [6]uint64{}, 0x00050000 | uint32(unix.ENOSYS)},
		"kill process":         {unix.SYS_FSYNC, [6]uint64{}, 0x80000000},
		"trace":                {unix.SYS_FLOCK, [6]uint64{}, 0x7ff00000 | uint32(unix.ENOSYS)},
		"log":                  {unix.SYS_UMASK, [6]uint64{}, 0x7ffc0000},
		"trap":                 {unix.SYS_CHDIR, [6]uint64{}, 0x00030000},
		"kill":                 {unix.SYS_FCHDIR, [6]uint64{}, 0},
	} {
		got, err := bpfsim.Run(prog, bpfsim.Call{Nr: c.nr, Arch: auditArch(t), Args: c.args})
		if err != nil || got != c.want {
			t.Errorf("%s: %#x, %v, want %#x", name, got, err, c.want)
		}
	}
}

func TestDecode(t *testing.T) {
	for _, n := range []int{0, 7, 9, 8 * (maxInstructions + 1)} {
		if _, err := decode(make([]byte, n)); err == nil {
			t.Errorf("%d bytes are a program", n)
		}
	}
}
