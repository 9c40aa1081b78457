package dispatch

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/agent/internal/metrics"
	"github.com/callgate/callgate/emulators"
)

// gate is an emulator whose calls wait until the test lets them through.
type gate struct {
	in      chan uint64 // first argument of a call that has come
	out     chan emulators.Response
	running atomic.Int32
	most    atomic.Int32
	hurry   bool // waits there and then, instead of saying that it blocks
}

func newGate(hurry bool) *gate {
	return &gate{in: make(chan uint64, 1024), out: make(chan emulators.Response), hurry: hurry}
}

func (g *gate) Emulate(_ context.Context, req *emulators.Request) (emulators.Response, error) {
	if !g.hurry && req.Patience() == emulators.Hurry {
		return emulators.Response{}, emulators.ErrBlocks
	}
	n := g.running.Add(1)
	defer g.running.Add(-1)
	for most := g.most.Load(); n > most && !g.most.CompareAndSwap(most, n); most = g.most.Load() {
	}
	g.in <- req.Uint64(0)
	return <-g.out, nil
}

// TestStuck: an emulator that sleeps where it must not. Another container's
// call on the same reactor is answered before the stuck one ends.
func TestStuck(t *testing.T) {
	s := newStage(t)
	stuck := newGate(true)
	a, b := newCaller(t), newCaller(t)
	s.serve(s.container("a", stuck), a.listener)
	s.serve(s.container("b", answering(emulators.Return(2))), b.listener)

	first := a.start(unix.SYS_MKNODAT, 1)
	within(t, "the call that is stuck", stuck.in)
	b.want(0, result{value: 2})
	b.want(0, result{value: 2})
	select {
	case r := <-first:
		t.Fatalf("the stuck call was answered: %+v", r)
	default:
	}
	within(t, "room for its answer", sent(stuck.out, emulators.Return(3)))
	if r := within(t, "the stuck call's answer", first); r.errno != 0 || r.value != 3 {
		t.Errorf("the stuck call gave %+v, want 3", r)
	}
	// The container goes to its workers from now on, and so keeps no reactor.
	second := a.start(unix.SYS_MKNODAT, 2)
	within(t, "the second call", stuck.in)
	b.want(0, result{value: 2})
	within(t, "room for its answer", sent(stuck.out, emulators.Return(4)))
	if r := within(t, "the second call's answer", second); r.value != 4 {
		t.Errorf("the second call gave %+v, want 4", r)
	}
	eventually(t, "outcomes", func() bool { return len(s.told()) == 5 })
	relieved := s.failures()
	if len(relieved) != 1 {
		t.Errorf("failures: %v, want one, of the reactor that was relieved", relieved)
	}
}

// sent sends in the background and closes what it returns.
func sent(c chan<- emulators.Response, r emulators.Response) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		c <- r
	}()
	return done
}

// TestStuckThenBlocks: it took long to say that it could take long.
func TestStuckThenBlocks(t *testing.T) {
	s := newStage(t)
	in, out := make(chan struct{}), make(chan struct{})
	var runs atomic.Int32
	a, b := newCaller(t), newCaller(t)
	s.serve(s.container("a", emulator(func(_ context.Context, req *emulators.Request) (emulators.Response, error) {
		runs.Add(1)
		if req.Patience() == emulators.Patient {
			return emulators.Return(8), nil
		}
		in <- struct{}{}
		<-out
		return emulators.Response{}, emulators.ErrBlocks
	})), a.listener)
	s.serve(s.container("b", answering(emulators.Return(2))), b.listener)
	first := a.start(unix.SYS_MKNODAT, 0)
	within(t, "the call that is stuck", in)
	b.want(0, result{value: 2})
	close(out)
	if r := within(t, "the stuck call's answer", first); r.value != 8 || runs.Load() != 2 {
		t.Errorf("the call gave %+v after %d runs, want 8 after 2", r, runs.Load())
	}
}

// TestStuckTogether: many containers are stuck at once, each costs its reactor
// once.
func TestStuckTogether(t *testing.T) {
	s := newStage(t)
	const n = 8
	stuck := newGate(true)
	var calls []<-chan result
	for range n {
		c := newCaller(t)
		s.serve(s.container("stuck", stuck), c.listener)
		calls = append(calls, c.start(unix.SYS_MKNODAT, 0))
		within(t, "a call that is stuck", stuck.in)
	}
	b := newCaller(t)
	s.serve(s.container("b", answering(emulators.Return(2))), b.listener)
	b.want(0, result{value: 2})
	for range n {
		within(t, "room for an answer", sent(stuck.out, emulators.Return(3)))
	}
	for _, c := range calls {
		if r := within(t, "an answer", c); r.value != 3 {
			t.Errorf("a stuck call gave %+v", r)
		}
	}
}

// TestWorkers: blocked calls of one container take no more threads than it may
// have; the others wait; another container does not.
func TestWorkers(t *testing.T) {
	const workers, callers = 2, 9
	s := newStage(t, func(o *Options) { o.Limits.WorkersPerContainer = workers })
	g := newGate(false)
	c := s.container("a", g)
	var calls []<-chan result
	for range callers {
		caller := newCaller(t)
		must(t, hold(c))
		s.serve(c, caller.listener)
		calls = append(calls, caller.start(unix.SYS_MKNODAT, 0))
	}
	c.Release()
	eventually(t, "all calls in flight", func() bool { return c.Snapshot().InFlight == callers })
	b := newCaller(t)
	s.serve(s.container("b", emulator(func(_ context.Context, req *emulators.Request) (emulators.Response, error) {
		if req.Patience() == emulators.Hurry {
			return emulators.Response{}, emulators.ErrBlocks
		}
		return emulators.Return(2), nil
	})), b.listener)
	b.want(0, result{value: 2})
	for range callers {
		within(t, "a call", g.in)
		within(t, "room for an answer", sent(g.out, emulators.Return(1)))
	}
	for _, call := range calls {
		if r := within(t, "an answer", call); r.value != 1 {
			t.Errorf("a call gave %+v", r)
		}
	}
	if most := g.most.Load(); most != workers {
		t.Errorf("%d calls ran at once, want %d", most, workers)
	}
}

func hold(c *Container) error {
	if !c.Hold() {
		return errors.New("container is gone")
	}
	return nil
}

// TestPause: a container with enough in flight is not received from; in the
// end all of its calls are answered. A listener that comes meanwhile waits,
// too.
func TestPause(t *testing.T) {
	const most, callers = 4, 15
	s := newStage(t, func(o *Options) {
		o.Limits.CallsPerContainer = most
		o.Limits.WorkersPerContainer = 1
	})
	g := newGate(false)
	c := s.container("a", g)
	var calls []<-chan result
	for i := range callers {
		caller := newCaller(t)
		must(t, hold(c))
		s.serve(c, caller.listener)
		calls = append(calls, caller.start(unix.SYS_MKNODAT, 0))
		want := min(i+1, most)
		eventually(t, "calls in flight", func() bool { return c.Snapshot().InFlight == want })
	}
	c.Release()
	// Another container's calls pass the reactor: this one's would have, too.
	b := newCaller(t)
	s.serve(s.container("b", answering(emulators.Return(2))), b.listener)
	b.want(0, result{value: 2})
	if n := c.Snapshot().InFlight; n != most {
		t.Errorf("%d calls in flight, want %d", n, most)
	}
	for range callers {
		within(t, "a call", g.in)
		within(t, "room for an answer", sent(g.out, emulators.Return(1)))
	}
	for _, call := range calls {
		if r := within(t, "an answer", call); r.value != 1 {
			t.Errorf("a call gave %+v", r)
		}
	}
	// The last answer is out a moment before it is counted.
	eventually(t, "the end of all calls", func() bool {
		end := c.Snapshot()
		return end.InFlight == 0 && end.Counts[metrics.Answered.String()] == callers
	})
}
