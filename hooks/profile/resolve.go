package profile

import (
	"errors"
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxErrno is the kernel's MAX_ERRNO (include/linux/err.h): a greater number is no error to libc.
const maxErrno = 4095

// resolve makes the pure OCI form for one container and host: conditions are decided, names and numbers checked.
func (d *document) resolve(t target) (*specs.LinuxSeccomp, error) {
	def, err := resolveAction(d.DefaultAction, d.DefaultErrnoRet, d.DefaultErrno)
	if err != nil {
		return nil, fmt.Errorf("defaultAction: %w", err)
	}
	arches, err := d.architectures(t)
	if err != nil {
		return nil, err
	}
	out := &specs.LinuxSeccomp{
		DefaultAction:    def.act,
		DefaultErrnoRet:  def.ret,
		Architectures:    arches,
		ListenerPath:     d.ListenerPath,
		ListenerMetadata: d.ListenerMetadata,
	}
	for _, f := range d.Flags {
		out.Flags = append(out.Flags, specs.LinuxSeccompFlag(f))
	}
	for i, rule := range d.Syscalls {
		resolved, err := rule.resolve()
		if err != nil {
			return nil, fmt.Errorf("syscalls[%d]: %w", i, err)
		}
		applies, err := rule.applies(t)
		if err != nil {
			return nil, fmt.Errorf("syscalls[%d]: %w", i, err)
		}
		// A rule with the default action has no effect: libseccomp takes none, so runtimes skip it.
		if applies && !actionOf(resolved).equal(def) {
			out.Syscalls = append(out.Syscalls, resolved)
		}
	}
	return out, nil
}

func (d *document) architectures(t target) ([]specs.Arch, error) {
	if len(d.Architectures) > 0 && len(d.ArchMap) > 0 {
		return nil, errors.New("architectures and archMap are both given, use one")
	}
	names := d.Architectures
	for _, entry := range d.ArchMap {
		if specs.Arch(entry.Architecture) == t.arches[0] {
			names = append([]string{entry.Architecture}, entry.SubArchitectures...)
			break
		}
	}
	if len(names) == 0 {
		return slices.Clone(t.arches), nil
	}
	var out []specs.Arch
	for _, name := range names {
		arch := specs.Arch(name)
		if !slices.Contains(knownArches(), arch) {
			return nil, fmt.Errorf("architectures: unknown architecture %q", name)
		}
		if !slices.Contains(out, arch) {
			out = append(out, arch)
		}
	}
	return out, nil
}

func (r *docRule) resolve() (specs.LinuxSyscall, error) {
	var out specs.LinuxSyscall
	names := r.Names
	if r.Name != "" {
		if len(names) > 0 {
			return out, errors.New("name and names are both given, use one")
		}
		names = []string{r.Name}
	}
	if len(names) == 0 || slices.Contains(names, "") {
		return out, errors.New("names: a system call's name is missing")
	}
	act, err := resolveAction(r.Action, r.ErrnoRet, r.Errno)
	if err != nil {
		return out, fmt.Errorf("action: %w", err)
	}
	var args []specs.LinuxSeccompArg
	for i, a := range r.Args {
		if a.Index > 5 {
			return out, fmt.Errorf("args[%d]: index %d, but a system call has six arguments", i, a.Index)
		}
		op := specs.LinuxSeccompOperator(a.Op)
		if !slices.Contains(knownOperators(), op) {
			return out, fmt.Errorf("args[%d]: unknown operator %q", i, a.Op)
		}
		args = append(args, specs.LinuxSeccompArg{Index: a.Index, Value: a.Value, ValueTwo: a.ValueTwo, Op: op})
	}
	return act.rule(names, args...), nil
}

// applies decides includes and excludes as Docker and podman do.
func (r *docRule) applies(t target) (bool, error) {
	in, ex := r.Includes, r.Excludes
	if len(ex.Arches) > 0 && slices.Contains(ex.Arches, t.name) ||
		len(in.Arches) > 0 && !slices.Contains(in.Arches, t.name) ||
		slices.ContainsFunc(ex.Caps, t.holds) ||
		slices.ContainsFunc(in.Caps, func(c string) bool { return !t.holds(c) }) {
		return false, nil
	}
	if ex.MinKernel != "" {
		atLeast, err := t.kernelAtLeast(ex.MinKernel)
		if err != nil || atLeast {
			return false, err
		}
	}
	if in.MinKernel != "" {
		return t.kernelAtLeast(in.MinKernel)
	}
	return true, nil
}

// resolveAction checks an action and its number, which podman's format can also have as a name.
func resolveAction(name string, ret *uint, errno string) (action, error) {
	act := specs.LinuxSeccompAction(name)
	if !slices.Contains(knownActions(), act) {
		return action{}, fmt.Errorf("unknown action %q", name)
	}
	if errno != "" {
		n, ok := errnoNumber(errno)
		if !ok {
			return action{}, fmt.Errorf("unknown errno %q", errno)
		}
		ret = &n
	}
	if act != specs.ActErrno && act != specs.ActTrace {
		return action{act: act}, nil
	}
	if ret != nil && *ret > maxErrno {
		return action{}, fmt.Errorf("errnoRet %d is greater than %d", *ret, maxErrno)
	}
	return action{act, ret}, nil
}

func errnoNumber(name string) (uint, bool) {
	for n := unix.Errno(1); n < 256; n++ {
		if unix.ErrnoName(n) == name {
			return uint(n), true
		}
	}
	return 0, false
}

func knownActions() []specs.LinuxSeccompAction {
	return []specs.LinuxSeccompAction{
		specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActTrap, specs.ActErrno,
		specs.ActTrace, specs.ActAllow, specs.ActLog, specs.ActNotify,
	}
}

func knownOperators() []specs.LinuxSeccompOperator {
	return []specs.LinuxSeccompOperator{
		specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo,
		specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual,
	}
}
