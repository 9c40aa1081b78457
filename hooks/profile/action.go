package profile

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// action is an action together with the number it carries.
type action struct {
	act specs.LinuxSeccompAction
	ret *uint
}

func (c *compiler) def() action { return action{c.out.DefaultAction, c.out.DefaultErrnoRet} }

func actionOf(rule specs.LinuxSyscall) action { return action{rule.Action, rule.ErrnoRet} }

func errnoRet(e unix.Errno) *uint {
	n := uint(e)
	return &n
}

// equal tells whether libseccomp sees the same action in both: a missing errnoRet is EPERM, and only ERRNO and TRACE look at it.
func (a action) equal(o action) bool {
	return a.normal() == o.normal()
}

type plainAction struct {
	act specs.LinuxSeccompAction
	ret uint
}

func (a action) normal() plainAction {
	switch a.act {
	case specs.ActKill:
		return plainAction{act: specs.ActKillThread}
	case specs.ActErrno, specs.ActTrace:
		if a.ret == nil {
			return plainAction{a.act, uint(unix.EPERM)}
		}
		return plainAction{a.act, *a.ret}
	}
	return plainAction{act: a.act}
}

// permits tells whether the kernel carries the call out.
func (a action) permits() bool {
	return a.act == specs.ActAllow || a.act == specs.ActLog
}

func (a action) rule(names []string, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
	return specs.LinuxSyscall{Names: slices.Clone(names), Action: a.act, ErrnoRet: a.ret, Args: args}
}
