package emulatortest

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/tracee"
)

// pointers replaces each pointer of each call by bad ones, and by good ones
// where memory ends.
func (s *suite) pointers() {
	s.with(func(e emulators.Emulator, c *Caller, call *Call) {
		for _, p := range call.Pointers {
			s.badPointers(e, c, call, p)
			s.edges(e, c, call, p)
		}
	})
}

func (s *suite) badPointers(e emulators.Emulator, c *Caller, call *Call, p Pointer) {
	for name, addr := range map[string]uint64{
		"NULL": 0, "in the first page": 8, "not mapped": c.Unmapped(), "the kernel's": 0xffffffff81000000,
		"the last byte": ^uint64(0), "above 47 bits": 1 << 52,
	} {
		if name == "NULL" && p.Optional {
			continue
		}
		s.prepare(c, call, 0)
		c.Args[p.Index] = addr
		s.fails(e, c, p, "is "+name, unix.EFAULT)
	}
	if p.Size != 0 {
		return
	}
	tooLong := p.TooLong
	if tooLong == 0 {
		tooLong = unix.ENAMETOOLONG
	}
	for _, n := range []int{tracee.PathMax, tracee.PathMax + 1, 2 * tracee.PathMax} {
		s.prepare(c, call, 0)
		c.Args[p.Index] = c.Long(n)
		s.fails(e, c, p, fmt.Sprintf("has %d bytes", n), tooLong)
	}
}

// edges moves what the argument points to.
func (s *suite) edges(e emulators.Emulator, c *Caller, call *Call, p Pointer) {
	s.prepare(c, call, 0)
	what := c.at(c.Args[p.Index], p.Size)
	c.Args[p.Index] = c.AtEdge(what)
	s.succeeds(e, c, 0, fmt.Sprintf("with argument %d before the edge of a page", p.Index))

	s.prepare(c, call, 0)
	c.Args[p.Index] = c.AtEdge(what[:len(what)-1])
	s.fails(e, c, p, "is cut off by the edge of a page", unix.EFAULT)
}

// fails runs a call that must, by the argument's fault.
func (s *suite) fails(e emulators.Emulator, c *Caller, p Pointer, why string, want unix.Errno) {
	o := s.emulate(e, c, true)
	what := fmt.Sprintf("%s whose argument %d %s", c.Syscall, p.Index, why)
	var bad emulators.BadArgument
	switch {
	case errors.As(o.err, &bad):
		if bad.Index != p.Index || bad.Errno != want {
			s.Errorf("%s: %v, want %v of argument %d", what, bad, want, p.Index)
		}
	case o.err == nil && o.action == emulators.ActionFail && o.errno == want:
	default:
		s.Errorf("%s: %v, want %v", what, o, want)
	}
	s.nothing(0, what)
}
