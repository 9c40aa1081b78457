package emulatortest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/tracee"
)

type suite struct {
	testing.TB
	kind emulators.Kind
	o    Options
}

// outcome is what became of one call.
type outcome struct {
	action emulators.Action
	errno  unix.Errno
	err    error
}

func (o outcome) success() bool {
	return o.err == nil && o.action != emulators.ActionFail && o.action != emulators.ActionRefuse
}

func (o outcome) String() string {
	return fmt.Sprintf("action %d, errno %v, error %v", o.action, o.errno, o.err)
}

// emulate runs one call to its end.
func (s *suite) emulate(e emulators.Emulator, c *Caller, delivered bool) (o outcome) {
	defer func() {
		if p := recover(); p != nil {
			s.Errorf("%s panicked: %v\n%s", c.Syscall, p, debug.Stack())
			o.err = fmt.Errorf("panic: %v", p)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	resp, err := e.Emulate(ctx, c.Request())
	o = outcome{resp.Action(), resp.Errno(), err}
	resp.Finish(delivered && err == nil)
	return o
}

// with makes an emulator, and a caller with a thread for each of the calls.
func (s *suite) with(f func(e emulators.Emulator, c *Caller, call *Call)) {
	s.emulator(func(e emulators.Emulator) {
		for i := range s.o.Calls {
			s.caller(func(c *Caller) { f(e, c, &s.o.Calls[i]) })
		}
	})
}

func (s *suite) emulator(f func(e emulators.Emulator)) {
	e, err := s.kind.New(s.o.Policy)
	if err != nil {
		s.Errorf("New of a good policy: %v", err)
		return
	}
	if c, ok := e.(io.Closer); ok {
		defer func() {
			if err := c.Close(); err != nil {
				s.Errorf("Close: %v", err)
			}
		}()
	}
	f(e)
}

func (s *suite) caller(f func(c *Caller)) {
	c := newCaller(s)
	defer c.Close()
	if !s.o.Threads {
		f(c)
		return
	}
	OnThread(s, func(thread *tracee.Thread) {
		c.Thread = thread
		f(c)
	})
}

func (s *suite) prepare(c *Caller, call *Call, n int) {
	c.Clear()
	c.Live()
	c.Patience = emulators.Patient
	c.Syscall, c.Args = call.Syscall, call.Args(c, n)
}

// nothing reports an effect that must not be there, and takes it back.
func (s *suite) nothing(n int, what string) {
	if s.done(n, false) {
		s.Errorf("%s: something was done", what)
		s.undo(n)
	}
}

func (s *suite) undo(n int) {
	if s.o.Undo != nil {
		elsewhere(func() { s.o.Undo(n) })
	}
}

// done asks whether a call's effect is there; unknown is the answer of those
// who cannot tell.
func (s *suite) done(n int, unknown bool) bool {
	if s.o.Done == nil {
		return unknown
	}
	elsewhere(func() { unknown = s.o.Done(n) })
	return unknown
}

// elsewhere runs f on a thread that is nobody's but the program's.
func elsewhere(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

// succeeds runs a call that must.
func (s *suite) succeeds(e emulators.Emulator, c *Caller, n int, what string) {
	o := s.emulate(e, c, true)
	if !o.success() {
		s.Errorf("%s %s: %v", c.Syscall, what, o)
	} else if !s.done(n, true) {
		s.Errorf("%s %s: nothing was done", c.Syscall, what)
	}
	s.undo(n)
}

func (s *suite) kindIsWhole() {
	if s.kind.Name == "" || len(s.kind.Syscalls) == 0 || s.kind.New == nil {
		s.Errorf("kind %+v lacks something", s.kind)
	}
	for _, name := range s.kind.Syscalls {
		if !slices.ContainsFunc(s.o.Calls, func(c Call) bool { return c.Syscall == name }) {
			s.Errorf("the suite was given no call of %s", name)
		}
	}
	if err := emulators.Overlap([]emulators.Kind{s.kind}); err != nil {
		s.Errorf("kind: %v", err)
	}
	var zero emulators.Response
	if zero.Errno() != unix.EPERM {
		s.Errorf("the zero response gives %v", zero.Errno())
	}
}

func (s *suite) policyIsStrict() {
	s.emulator(func(emulators.Emulator) {})
	bad := append([]Policy{"noSuchField: 1\n", s.o.Policy + "\nnoSuchField: 1\n", "just text\n", "- a list\n"}, s.o.BadPolicies...)
	for _, p := range bad {
		e, err := s.kind.New(p)
		if err != nil {
			continue
		}
		s.Errorf("New accepted the policy %q", p)
		if c, ok := e.(io.Closer); ok {
			_ = c.Close()
		}
	}
}

func (s *suite) goodCall() {
	s.with(func(e emulators.Emulator, c *Caller, call *Call) {
		for n := range 3 {
			s.prepare(c, call, n)
			s.succeeds(e, c, n, "with good arguments")
		}
	})
}

func (s *suite) notDelivered() {
	s.with(func(e emulators.Emulator, c *Caller, call *Call) {
		s.prepare(c, call, 0)
		s.emulate(e, c, false)
		if s.o.Idempotent {
			s.undo(0)
			return
		}
		s.nothing(0, call.Syscall+", which was not delivered")
	})
}

func (s *suite) hurry() {
	s.with(func(e emulators.Emulator, c *Caller, call *Call) {
		for range 2 {
			s.prepare(c, call, 0)
			c.Patience = emulators.Hurry
			o := s.emulate(e, c, true)
			if errors.Is(o.err, emulators.ErrBlocks) {
				s.nothing(0, call.Syscall+" that would block")
			} else if !o.success() {
				s.Errorf("%s in a hurry: %v", call.Syscall, o)
			}
			s.undo(0)
			// The second time it may know more.
			s.prepare(c, call, 0)
			s.succeeds(e, c, 0, "after one in a hurry")
		}
	})
}

// death has the caller die at each of the first checks.
func (s *suite) death() {
	s.with(func(e emulators.Emulator, c *Caller, call *Call) {
		for k := range 20 {
			s.prepare(c, call, 0)
			c.DieAfter(k)
			o := s.emulate(e, c, true)
			what := fmt.Sprintf("%s by a caller that died after %d checks", call.Syscall, k)
			switch {
			case errors.Is(o.err, emulators.ErrGone):
				s.nothing(0, what)
			case c.died():
				s.Errorf("%s: %v, want ErrGone", what, o)
			case k == 0 && len(call.Pointers) > 0:
				s.Errorf("%s was not looked at: %v", what, o)
			case !o.success():
				s.Errorf("%s: %v", what, o)
			}
			s.undo(0)
		}
	})
}

func (s *suite) concurrent() {
	const callers, rounds = 4, 10
	s.emulator(func(e emulators.Emulator) {
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				s.caller(func(c *Caller) {
					for round := range rounds {
						call := &s.o.Calls[round%len(s.o.Calls)]
						s.prepare(c, call, i)
						s.succeeds(e, c, i, "among others")
					}
				})
			})
		}
		wg.Wait()
	})
}

func descriptors() map[string]string {
	// Go's poller has descriptors of its own, made with the first pipe.
	if r, w, err := os.Pipe(); err == nil {
		_, _ = r.Close(), w.Close()
	}
	open := make(map[string]string)
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			open[e.Name()] = target
		}
	}
	return open
}

func leaked(before map[string]string) map[string]string {
	extra := make(map[string]string)
	for fd, target := range descriptors() {
		if before[fd] != target {
			extra[fd] = target
		}
	}
	return extra
}
