package dispatch

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

func newDyingCaller(tb testing.TB) *notifytest.Child {
	tb.Helper()
	return notifytest.Start(tb, notifytest.Options{Flags: unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV})
}

// TestCloseDrains: calls in flight are answered, those that wait for a worker
// too; nothing is received any more.
func TestCloseDrains(t *testing.T) {
	for name, hurry := range map[string]bool{"worker": false, "reactor": true} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, func(o *Options) { o.Limits.WorkersPerContainer = 1 })
			g := newGate(hurry)
			c := s.container("c", g)
			var calls []<-chan result
			for range 3 {
				caller := newCaller(t)
				must(t, hold(c))
				s.serve(c, caller.listener)
				calls = append(calls, caller.start(unix.SYS_MKNODAT, 0))
			}
			c.Release()
			within(t, "a call", g.in)
			eventually(t, "all in flight", func() bool { return s.InFlight() == len(calls) })
			closed := make(chan error)
			go func() { closed <- s.Close(context.Background()) }()
			for range calls {
				within(t, "room for an answer", sent(g.out, emulators.Return(4)))
			}
			for _, call := range calls {
				if r := within(t, "an answer", call); r.value != 4 {
					t.Errorf("a call in flight gave %+v", r)
				}
			}
			must(t, within(t, "Close", closed))
			eventually(t, "end of container", func() bool { return s.ended("c") })
		})
	}
}

// TestCloseGivesUp: a call that is stuck keeps Close no longer than ctx, and is
// answered all the same when it comes back. Then nothing is left.
func TestCloseGivesUp(t *testing.T) {
	for name, hurry := range map[string]bool{"worker": false, "reactor": true} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			g := newGate(hurry)
			caller, idle := newCaller(t), newCaller(t)
			s.serve(s.container("c", g), caller.listener)
			s.serve(s.container("idle", g), idle.listener)
			call := caller.start(unix.SYS_MKNODAT, 0)
			within(t, "a call", g.in)
			ctx, cancel := context.WithCancel(context.Background())
			closed := make(chan error)
			go func() { closed <- s.Close(ctx) }()
			cancel()
			if err := within(t, "Close", closed); !errors.Is(err, context.Canceled) {
				t.Errorf("Close: %v, want %v", err, context.Canceled)
			}
			if r := idle.call(0); r.errno != unix.ENOSYS {
				t.Errorf("a call after Close: %v, want ENOSYS", r.errno)
			}
			within(t, "room for an answer", sent(g.out, emulators.Return(6)))
			if r := within(t, "an answer", call); r.value != 6 {
				t.Errorf("the stuck call gave %+v", r)
			}
			eventually(t, "end of container", func() bool { return s.ended("c") })
		})
	}
}

// TestCloseUnderLoad: Close while calls and listeners come. Every call has an
// end: an answer, or ENOSYS.
func TestCloseUnderLoad(t *testing.T) {
	s := newStage(t, func(o *Options) { o.Reactors = 2 })
	var n atomic.Int32
	e := emulator(func(_ context.Context, req *emulators.Request) (emulators.Response, error) {
		n.Add(1)
		if req.Uint64(0)%2 == 0 && req.Patience() == emulators.Hurry {
			return emulators.Response{}, emulators.ErrBlocks
		}
		return emulators.Return(1), nil
	})
	const callers = 8
	ended := make(chan error, callers)
	for range callers {
		caller := newCaller(t)
		s.serve(s.container("c", e), caller.listener)
		go func() {
			for i := uint64(0); ; i++ {
				switch r := <-caller.start(unix.SYS_MKNODAT, i); {
				case r.errno == unix.ENOSYS:
					ended <- nil
					return
				case r.errno != 0 || r.value != 1:
					ended <- errors.New("wrong answer")
					return
				}
			}
		}()
	}
	eventually(t, "calls", func() bool { return n.Load() > 500 })
	must(t, s.Close(context.Background()))
	for range callers {
		must(t, within(t, "end of caller", ended))
	}
	if fails := s.failures(); len(fails) != 0 {
		t.Errorf("failures: %v", fails)
	}
}
