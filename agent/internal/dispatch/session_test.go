package dispatch

import (
	"context"
	"errors"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/agent/internal/metrics"
	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/seccompnotify"
)

// closing is an emulator that is closed.
type closing struct {
	emulator
	closed atomic.Int32
	err    error
	during func()
}

func (c *closing) Close() error {
	c.closed.Add(1)
	if c.during != nil {
		c.during()
	}
	return c.err
}

// TestHangup: the end of its last caller ends a listener; the last listener's
// end ends the container and closes its emulators, once.
func TestHangup(t *testing.T) {
	s := newStage(t)
	e := &closing{emulator: answering(emulators.Return(1)), err: errors.New("not quite")}
	c := s.container("c", e)
	var released atomic.Int32
	var callers []*caller
	for range 3 {
		caller := newCaller(t)
		l, err := seccompnotify.NewListener(caller.listener)
		must(t, err)
		must(t, s.Add(c, l, func() { released.Add(1) }))
		callers = append(callers, caller)
		caller.want(0, result{value: 1})
	}
	c.Release()
	for i, caller := range callers {
		if e.closed.Load() != 0 || !c.Hold() {
			t.Fatal("the container ended before its last listener")
		}
		c.Release()
		caller.end()
		eventually(t, "end of listener", func() bool { return released.Load() == int32(i+1) })
	}
	eventually(t, "end of container", func() bool { return s.ended("c") })
	if e.closed.Load() != 1 {
		t.Errorf("emulator closed %d times", e.closed.Load())
	}
	if c.Hold() {
		t.Error("a container that ended can be held")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !errors.Is(s.over["c"], e.err) {
		t.Errorf("ended with %v, want %v", s.over["c"], e.err)
	}
}

// TestCloseAfterLastCall: emulators are closed after the last call, though its
// caller and so the listener went before.
func TestCloseAfterLastCall(t *testing.T) {
	for name, hurry := range map[string]bool{"worker": false, "stuck reactor": true} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			g := newGate(hurry)
			e := &closing{emulator: g.Emulate}
			e.during = func() {
				if g.running.Load() != 0 {
					t.Error("closed during a call")
				}
			}
			caller := newDyingCaller(t)
			s.serve(s.container("c", e), caller.Listener)
			caller.Go(t, unix.SYS_MKNODAT)
			within(t, "call", g.in)
			caller.Kill()
			eventually(t, "end of listener", func() bool { return s.Listeners() == 0 })
			if s.ended("c") || e.closed.Load() != 0 {
				t.Error("the container ended before its last call")
			}
			within(t, "room for an answer", sent(g.out, emulators.Return(1)))
			eventually(t, "end of container", func() bool { return s.ended("c") })
			if e.closed.Load() != 1 {
				t.Errorf("closed %d times", e.closed.Load())
			}
		})
	}
}

// TestTwice: a listener is served once, under whatever number it comes.
func TestTwice(t *testing.T) {
	s := newStage(t)
	c := s.container("c", answering(emulators.Return(1)))
	defer c.Release()
	var callers []*caller
	twice := func(of *caller) {
		t.Helper()
		n, err := unix.FcntlInt(uintptr(of.listener), unix.F_DUPFD_CLOEXEC, 0)
		must(t, err)
		l, err := seccompnotify.NewListener(n)
		must(t, err)
		if err := s.Add(c, l, func() { t.Error("released, though never served") }); !errors.Is(err, ErrTwice) {
			t.Errorf("a listener for the second time: %v, want ErrTwice", err)
		}
		if l.FD() >= 0 {
			t.Error("the second descriptor is still open")
		}
	}
	const listeners = 200
	for range listeners {
		caller := newCaller(t)
		must(t, hold(c))
		s.serve(c, caller.listener)
		if callers == nil {
			twice(caller)
		}
		callers = append(callers, caller)
	}
	for _, i := range []int{0, 1, listeners / 2, listeners - 1} {
		twice(callers[i])
		callers[i].want(0, result{value: 1})
	}
	// One that has gone makes room, in whatever order they are kept.
	for i := 0; i < listeners; i += 2 {
		callers[i].end()
	}
	eventually(t, "end of half of them", func() bool { return s.Listeners() == listeners/2 })
	twice(callers[1])
	twice(callers[listeners-1])
}

// TestNotServed: a listener that cannot be served is closed.
func TestNotServed(t *testing.T) {
	s := newStage(t)
	c := s.container("c", nil)
	defer c.Release()
	caller := newCaller(t)
	l, err := seccompnotify.NewListener(caller.listener)
	must(t, err)
	must(t, s.Close(context.Background()))
	if err := s.Add(c, l, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("%v, want ErrClosed", err)
	}
	if r := caller.call(0); r.errno != unix.ENOSYS {
		t.Errorf("a call with nobody to answer: %v", r.errno)
	}
}

func threads(tb testing.TB) int {
	tb.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	must(tb, err)
	return len(tasks)
}

// TestComeAndGo: listeners by the hundred, with calls of all kinds, leave
// nothing behind.
func TestComeAndGo(t *testing.T) {
	const listeners, together = 500, 10
	s := newStage(t, func(o *Options) { o.Reactors = 2; o.Limits.CallsPerContainer = 3 })
	mixed := emulator(func(_ context.Context, req *emulators.Request) (emulators.Response, error) {
		switch a := req.Uint64(0) % 4; {
		case a == 0 && req.Patience() == emulators.Hurry:
			return emulators.Response{}, emulators.ErrBlocks
		case a == 1:
			return emulators.Response{}, emulators.Denied{Reason: "odd"}
		case a == 2:
			runtime.Gosched()
			return emulators.Return(2).After(func(bool) {}), nil
		}
		return emulators.Return(int64(req.Uint64(0))), nil
	})
	before := threads(t)
	left := make(chan int, listeners)
	for i := range listeners {
		left <- i
	}
	close(left)
	ended := make(chan struct{})
	for range together {
		go func() {
			defer func() { ended <- struct{}{} }()
			for i := range left {
				e := &closing{emulator: mixed}
				e.during = func() {
					if e.closed.Load() != 1 {
						t.Error("closed twice")
					}
				}
				caller := newCaller(t)
				l, err := seccompnotify.NewListener(caller.listener)
				if err != nil {
					t.Error(err)
					return
				}
				c := s.container("c", e)
				if err := s.Add(c, l, nil); err != nil {
					t.Error(err)
				}
				c.Release()
				for a := range uint64(4) {
					if r := caller.call(a + 4*uint64(i)); a == 3 && r.value != int64(a)+4*int64(i) {
						t.Errorf("call gave %+v", r)
					}
				}
				caller.end()
			}
		}()
	}
	for range together {
		select {
		case <-ended:
		case <-time.After(4 * patience):
			t.Fatal("the callers do not come to an end")
		}
	}
	eventually(t, "end of all listeners", func() bool { return s.Listeners() == 0 && s.InFlight() == 0 })
	if n := len(s.told()); n != 4*listeners {
		t.Errorf("%d outcomes, want %d", n, 4*listeners)
	}
	for _, o := range s.told() {
		if o.Outcome == metrics.Failed || o.Outcome == metrics.Gone {
			t.Errorf("outcome %+v", o)
		}
	}
	// The Go runtime keeps some threads for itself.
	eventually(t, "end of their threads", func() bool { return threads(t) <= before+together })
}
