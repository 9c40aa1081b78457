package dispatch

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/agent/internal/metrics"
	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

// order remembers what happened in which order.
type order struct {
	mu     sync.Mutex
	events []string
}

func (o *order) add(what string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.events = append(o.events, what)
}

func (o *order) index(what string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i, e := range o.events {
		if e == what {
			return i
		}
	}
	return -1
}

// TestMadeAnew: a signal takes a caller out of its call while a worker carries
// it out, and the call is made anew. The second waits until what the first did
// is undone.
func TestMadeAnew(t *testing.T) {
	for name, hurry := range map[string]bool{"worker": false, "stuck reactor": true} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			child := notifytest.Start(t, notifytest.Options{})
			var events order
			var mu sync.Mutex
			calls := 0
			in, out := make(chan struct{}), make(chan struct{})
			c := s.container("c", emulator(func(_ context.Context, req *emulators.Request) (emulators.Response, error) {
				if !hurry && req.Patience() == emulators.Hurry {
					return emulators.Response{}, emulators.ErrBlocks
				}
				mu.Lock()
				calls++
				n := calls
				mu.Unlock()
				if n > 1 {
					events.add("second begins")
					return emulators.Return(2), nil
				}
				in <- struct{}{}
				<-out
				return emulators.Return(1).After(func(delivered bool) {
					if delivered {
						events.add("first delivered")
					} else {
						events.add("first undone")
					}
				}), nil
			}))
			s.serve(c, child.Listener)
			child.Go(t, unix.SYS_MKNODAT)
			within(t, "first call", in)
			child.Signal(t, unix.SIGURG)
			eventually(t, "second call", func() bool { return c.Snapshot().InFlight == 2 })
			if events.index("second begins") >= 0 {
				t.Error("the second call began beside the first")
			}
			close(out)
			if r, errno := child.Result(t); r != 2 || errno != 0 {
				t.Errorf("the call gave %d, %v; want 2", r, errno)
			}
			undone, begins := events.index("first undone"), events.index("second begins")
			if undone < 0 || begins < undone {
				t.Errorf("order of events: %v", events.events)
			}
			eventually(t, "outcomes", func() bool { return len(s.told()) == 2 })
			if told := s.told(); told[0].Outcome != metrics.Gone || told[0].Errno != 0 || told[1].Outcome != metrics.Answered {
				t.Errorf("outcomes: %+v", told)
			}
		})
	}
}

// TestMadeAnewOften: signals keep coming; every call made anew waits for the
// one before, and only the last is answered.
func TestMadeAnewOften(t *testing.T) {
	const signals = 5
	s := newStage(t, func(o *Options) { o.Limits.WorkersPerContainer = 1 })
	child := notifytest.Start(t, notifytest.Options{})
	g := newGate(false)
	c := s.container("c", g)
	s.serve(c, child.Listener)
	child.Go(t, unix.SYS_MKNODAT)
	within(t, "first call", g.in)
	for i := range signals {
		child.Signal(t, unix.SIGURG)
		eventually(t, "call made anew", func() bool { return c.Snapshot().InFlight == i+2 })
	}
	for i := range signals + 1 {
		if i > 0 {
			within(t, "next call", g.in)
		}
		within(t, "room for its answer", sent(g.out, emulators.Return(int64(i))))
	}
	if r, errno := child.Result(t); r != signals || errno != 0 {
		t.Errorf("the call gave %d, %v; want %d", r, errno, signals)
	}
	if g.most.Load() != 1 {
		t.Errorf("%d of one thread's calls ran at once", g.most.Load())
	}
}

// TestKilled: a caller is killed in each phase of its call.
func TestKilled(t *testing.T) {
	phases := map[string]func(t *testing.T, s *stage, child *notifytest.Child, g *gate){
		"on a worker": func(t *testing.T, _ *stage, child *notifytest.Child, g *gate) {
			child.Go(t, unix.SYS_MKNODAT)
			within(t, "call", g.in)
			child.Kill()
			within(t, "room for its answer", sent(g.out, emulators.Return(1)))
		},
		"answered with a descriptor": func(t *testing.T, _ *stage, child *notifytest.Child, g *gate) {
			child.Go(t, unix.SYS_MKNODAT)
			within(t, "call", g.in)
			child.Kill()
			resp, err := files0(emulators.CloseOnExec)(t.Context(), nil)
			must(t, err)
			within(t, "room for its answer", sent(g.out, resp))
		},
		"between calls": func(t *testing.T, _ *stage, child *notifytest.Child, g *gate) {
			child.Go(t, unix.SYS_MKNODAT)
			within(t, "call", g.in)
			within(t, "room for its answer", sent(g.out, emulators.Return(1)))
			child.Result(t)
			child.Kill()
		},
	}
	for name, phase := range phases {
		for reactor, hurry := range map[string]bool{"": false, ", stuck reactor": true} {
			t.Run(name+reactor, func(t *testing.T) {
				s := newStage(t)
				child := notifytest.Start(t, notifytest.Options{})
				g := newGate(hurry)
				s.serve(s.container("c", g), child.Listener)
				phase(t, s, child, g)
				eventually(t, "end of the listener", func() bool { return s.Listeners() == 0 && s.ended("c") })
				if n := s.InFlight(); n != 0 {
					t.Errorf("%d calls in flight", n)
				}
			})
		}
	}
}

// TestKilledStands: what was done for a caller that was killed is not undone,
// as little as the kernel undoes it; what was done for one that a signal took
// out of its call, and that does not come back with it, is.
func TestKilledStands(t *testing.T) {
	for name, worker := range map[string]bool{"hurry": false, "worker": true} {
		for _, killed := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, killed %t", name, killed), func(t *testing.T) {
				s := newStage(t)
				child := notifytest.Start(t, notifytest.Options{})
				in, out := make(chan struct{}), make(chan struct{})
				stands := make(chan bool, 2)
				first := true
				s.serve(s.container("c", emulator(func(_ context.Context, req *emulators.Request) (emulators.Response, error) {
					if worker && req.Patience() == emulators.Hurry {
						return emulators.Response{}, emulators.ErrBlocks
					}
					if !first {
						return emulators.Return(2), nil
					}
					first = false
					if _, err := req.Caller().Status(); err != nil {
						return emulators.Response{}, err
					}
					in <- struct{}{}
					<-out
					return emulators.Return(1).After(func(delivered bool) { stands <- delivered }).
						Repeating(func() {}, func(*emulators.Request) bool { return false }), nil
				})), child.Listener)
				child.Go(t, unix.SYS_MKNODAT)
				within(t, "call", in)
				if killed {
					child.Kill()
				} else {
					child.Signal(t, unix.SIGURG)
				}
				close(out)
				if got := within(t, "end of the call", stands); got != killed {
					t.Errorf("what was done stands: %t", got)
				}
				if !killed {
					child.Result(t)
				}
			})
		}
	}
}

// TestKilledQueued: killed while the call waits to be received, and while it
// waits for a worker.
func TestKilledQueued(t *testing.T) {
	s := newStage(t, func(o *Options) {
		o.Limits.WorkersPerContainer = 1
		o.Limits.CallsPerContainer = 2
	})
	g := newGate(false)
	c := s.container("c", g)
	var children []*notifytest.Child
	for i := range 3 { // one runs, one is queued, one is not received
		child := notifytest.Start(t, notifytest.Options{})
		must(t, hold(c))
		s.serve(c, child.Listener)
		child.Go(t, unix.SYS_MKNODAT)
		eventually(t, "call in flight", func() bool { return c.Snapshot().InFlight == min(i+1, 2) })
		children = append(children, child)
	}
	c.Release()
	within(t, "first call", g.in)
	children[1].Kill()
	children[2].Kill()
	within(t, "room for an answer", sent(g.out, emulators.Return(1)))
	if r, errno := children[0].Result(t); r != 1 || errno != 0 {
		t.Errorf("the call that runs gave %d, %v", r, errno)
	}
	within(t, "queued call", g.in) // its caller is dead
	within(t, "room for an answer", sent(g.out, emulators.Return(1)))
	eventually(t, "end of two listeners", func() bool { return s.Listeners() == 1 })
	children[0].Go(t, unix.SYS_MKNODAT)
	within(t, "next call", g.in)
	within(t, "room for an answer", sent(g.out, emulators.Return(5)))
	if r, errno := children[0].Result(t); r != 5 || errno != 0 {
		t.Errorf("the next call gave %d, %v", r, errno)
	}
}
