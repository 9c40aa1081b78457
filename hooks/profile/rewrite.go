package profile

import (
	"fmt"
	"reflect"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// intercept takes the emulators' names out of all rules and puts new ones at the head.
func (c *compiler) intercept(emulators []string) error {
	chosen, err := selected(emulators)
	if err != nil {
		return err
	}
	var added []specs.LinuxSyscall
	for _, e := range chosen {
		for _, call := range e.calls {
			rules, err := c.rewrite(call, c.strip(call.name))
			if err != nil {
				return err
			}
			added = append(added, rules...)
		}
		for _, name := range e.enosys {
			c.strip(name)
		}
		enosys := action{specs.ActErrno, errnoRet(unix.ENOSYS)}
		if len(e.enosys) > 0 && !enosys.equal(c.def()) {
			added = append(added, enosys.rule(e.enosys))
		}
	}
	if len(chosen) > 0 {
		c.warnForeign()
	}
	c.out.Syscalls = append(added, c.out.Syscalls...)
	return nil
}

// warnForeign looks at the rules that are left once the emulators' names are stripped.
func (c *compiler) warnForeign() {
	for _, rule := range c.out.Syscalls {
		if rule.Action == specs.ActNotify {
			c.warn("the base notifies %q, which none of the chosen emulators asks for; the agent will refuse them", rule.Names)
		}
	}
}

// strip removes a name from every rule, drops the rules that had no other, and gives what was removed, in order.
func (c *compiler) strip(name string) []specs.LinuxSyscall {
	var removed, left []specs.LinuxSyscall
	for _, rule := range c.out.Syscalls {
		if !slices.Contains(rule.Names, name) {
			left = append(left, rule)
			continue
		}
		only := rule
		only.Names = []string{name}
		removed = append(removed, only)

		rule.Names = slices.DeleteFunc(slices.Clone(rule.Names), func(n string) bool { return n == name })
		if len(rule.Names) > 0 {
			left = append(left, rule)
		}
	}
	c.out.Syscalls = left
	return removed
}

// rewrite gives the rules for an intercepted call, given those that the base had for it.
func (c *compiler) rewrite(call call, base []specs.LinuxSyscall) ([]specs.LinuxSyscall, error) {
	// The first unconditional rule decides, wherever it stands; libseccomp drops the conditional ones.
	for _, rule := range base {
		if len(rule.Args) == 0 {
			return c.rules(call, actionOf(rule)), nil
		}
	}
	if len(base) == 0 {
		return c.rules(call, c.def()), nil
	}
	if rest, ok := c.compiledBefore(call, base); ok {
		return c.rules(call, rest), nil
	}
	c.warn("the base has conditional rules for %s; where the call is intercepted the agent's policy decides instead", call.name)
	return c.conditional(call, base)
}

// rules gives those for a call that the base treats alike whatever its arguments.
func (c *compiler) rules(call call, rest action) []specs.LinuxSyscall {
	notify := action{specs.ActNotify, nil}
	names := []string{call.name}
	if len(call.match) == 0 {
		return []specs.LinuxSyscall{notify.rule(names)}
	}
	exempts := rest.act == specs.ActAllow
	var out, after []specs.LinuxSyscall
	for _, m := range call.match {
		where := m.condition(call.arg)
		if m.unlessZero == nil || !exempts {
			out = append(out, notify.rule(names, where))
			continue
		}
		out = append(out, notify.rule(names, where, specs.LinuxSeccompArg{Index: *m.unlessZero, Op: specs.OpNotEqual}))
		after = append(after, rest.rule(names, where, specs.LinuxSeccompArg{Index: *m.unlessZero, Op: specs.OpEqualTo}))
	}
	if rest.equal(c.def()) {
		return out // what no rule matches gets the default action; libseccomp refuses a rule that says so
	}
	out = append(out, after...)
	for _, b := range others(call.sets()) {
		out = append(out, rest.rule(names, b.condition(call.arg)))
	}
	return out
}

// compiledBefore recognises the rules that this package itself made, and gives what was the base's action then.
func (c *compiler) compiledBefore(call call, base []specs.LinuxSyscall) (action, bool) {
	candidates := []action{c.def()}
	for _, rule := range base {
		candidates = append(candidates, actionOf(rule))
	}
	for _, rest := range candidates {
		if reflect.DeepEqual(c.rules(call, rest), base) {
			return rest, true
		}
	}
	return action{}, false
}

// conditional keeps the base's conditional rules for the calls that are not notified: each is narrowed to the values of the deciding argument
// that are left. There is no exemption here: whether the base allowed the exempted calls is not known.
func (c *compiler) conditional(call call, base []specs.LinuxSyscall) ([]specs.LinuxSyscall, error) {
	names := []string{call.name}
	notify := action{specs.ActNotify, nil}
	if len(call.match) == 0 {
		return []specs.LinuxSyscall{notify.rule(names)}, nil
	}
	var out []specs.LinuxSyscall
	for _, m := range call.match {
		out = append(out, notify.rule(names, m.condition(call.arg)))
	}
	left := others(call.sets())
	for _, rule := range base {
		for _, args := range alternatives(rule.Args) {
			narrowed, ok := narrow(args, call.arg, left)
			if !ok && !actionOf(rule).permits() { // to leave it out could allow more than the base did
				return nil, fmt.Errorf("base profile: a rule refuses %s on a condition on argument %d that cannot be combined with interception; use SCMP_CMP_MASKED_EQ or remove it", call.name, call.arg)
			}
			if !ok {
				c.warn("a rule of the base for %s on a condition on argument %d is dropped: it cannot be combined with interception", call.name, call.arg)
			}
			for _, args := range narrowed {
				out = append(out, actionOf(rule).rule(names, args...))
			}
		}
	}
	return out, nil
}

// alternatives undoes what runtimes make of a rule that has two conditions on one argument: it holds where any of its conditions does.
func alternatives(args []specs.LinuxSeccompArg) [][]specs.LinuxSeccompArg {
	seen := make(map[uint]bool)
	for _, a := range args {
		seen[a.Index] = true
	}
	if len(seen) == len(args) {
		return [][]specs.LinuxSeccompArg{args}
	}
	var each [][]specs.LinuxSeccompArg
	for _, a := range args {
		each = append(each, []specs.LinuxSeccompArg{a})
	}
	return each
}

// narrow adds "and the argument is in one of the sets" to a rule's conditions, as one rule for each set where that can be true. It
// gives false if the rule compares the argument in a way that has no intersection with bits.
func narrow(args []specs.LinuxSeccompArg, index uint, sets []bits) ([][]specs.LinuxSeccompArg, bool) {
	var has bits // no condition: everything
	var rest []specs.LinuxSeccompArg
	for _, a := range args {
		switch {
		case a.Index != index:
			rest = append(rest, a)
		case a.Op == specs.OpMaskedEqual:
			has = bits{a.Value, a.ValueTwo}
		case a.Op == specs.OpEqualTo:
			has = bits{^uint64(0), a.Value}
		default:
			return nil, false
		}
	}
	if has.value&^has.mask != 0 {
		return nil, true // never true
	}
	var possible []bits
	for _, set := range sets {
		if both, ok := has.intersect(set); ok {
			possible = append(possible, both)
		}
	}
	var out [][]specs.LinuxSeccompArg
	for _, b := range widest(possible) {
		out = append(out, append([]specs.LinuxSeccompArg{b.condition(index)}, rest...))
	}
	return out, true
}

func (c call) sets() []bits {
	var out []bits
	for _, m := range c.match {
		out = append(out, m.bits)
	}
	return out
}

// condition says "the argument is in the set". The specification has the mask in value and the datum in valueTwo.
func (b bits) condition(index uint) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: index, Value: b.mask, ValueTwo: b.value, Op: specs.OpMaskedEqual}
}
