package dispatch

import (
	"context"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/agent/internal/metrics"
	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/pidfd"
	"github.com/callgate/callgate/pkg/seccompnotify"
	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
	"github.com/callgate/callgate/pkg/tracee"
)

func TestMain(m *testing.M) { notifytest.Main(m) }

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// patience is for what must happen, however slow the machine is.
const patience = 8 * time.Second

// within fails the test unless c is closed, or sent to, before patience ends.
func within[T any](tb testing.TB, what string, c <-chan T) T {
	tb.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		stacks := make([]byte, 1<<18)
		tb.Fatalf("%s: not within %v\n%s", what, patience, stacks[:runtime.Stack(stacks, true)])
		panic("unreachable")
	}
}

func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// emulator is a function that is one.
type emulator func(ctx context.Context, req *emulators.Request) (emulators.Response, error)

func (f emulator) Emulate(ctx context.Context, req *emulators.Request) (emulators.Response, error) {
	return f(ctx, req)
}

// stage is a dispatcher whose one kind, "test", has mknodat, and what it told.
type stage struct {
	*Dispatcher
	tb testing.TB

	mu       sync.Mutex // guards the rest
	outcomes []Outcome
	fails    []error
	over     map[string]error // containers that ended
}

func testKinds() []emulators.Kind {
	return []emulators.Kind{{Name: "test", Syscalls: []string{"mknodat"}}}
}

func testOptions(tb testing.TB) Options {
	tb.Helper()
	proc, err := tracee.OpenProc()
	must(tb, err)
	tb.Cleanup(proc.Close)
	zero := func() float64 { return 0 }
	return Options{
		Kinds: testKinds(), Proc: proc, Metrics: metrics.New(zero, zero), Reactors: 1,
		Limits: Limits{CallsPerContainer: 256, WorkersPerContainer: 4, CallTimeout: patience},
		Anchor: func(c *tracee.Tracee) (pidfd.NSID, error) { return c.UserNamespace() },
	}
}

// newStage starts a dispatcher, which must end well when the test does.
func newStage(tb testing.TB, change ...func(*Options)) *stage {
	tb.Helper()
	notifytest.NeedRoot(tb)
	notifytest.NoLeak(tb)
	o := testOptions(tb)
	for _, f := range change {
		f(&o)
	}
	s := &stage{tb: tb, over: make(map[string]error)}
	o.Report = func(out Outcome) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.outcomes = append(s.outcomes, out)
	}
	o.Fail = func(err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.fails = append(s.fails, err)
	}
	o.Ended = func(c *Container, err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.over[c.ID()] = err
	}
	var err error
	s.Dispatcher, err = New(o)
	must(tb, err)
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			tb.Error("close:", err)
		}
		if n := s.InFlight(); n != 0 {
			tb.Errorf("%d calls in flight at the end", n)
		}
		if n := s.Listeners(); n != 0 {
			tb.Errorf("%d listeners at the end", n)
		}
	})
	return s
}

// container makes a container whose kind is carried out by e; nil: it is off.
func (s *stage) container(id string, e emulators.Emulator) *Container {
	s.tb.Helper()
	on := map[string]emulators.Emulator{}
	if e != nil {
		on["test"] = e
	}
	return s.NewContainer(ContainerConfig{ID: id, Profile: "p", Emulators: on, UserNamespace: s.host})
}

// serve adds a listener to a container and lets go of it.
func (s *stage) serve(c *Container, fd int) {
	s.tb.Helper()
	l, err := seccompnotify.NewListener(fd)
	must(s.tb, err)
	must(s.tb, s.Add(c, l, nil))
	c.Release()
}

// told is what was reported so far.
func (s *stage) told() []Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Outcome(nil), s.outcomes...)
}

func (s *stage) failures() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]error(nil), s.fails...)
}

func (s *stage) ended(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ended := s.over[id]
	return ended
}

// caller is a thread of this process with a filter: cheaper than a process.
// Signals wait for its answers, as the Go runtime sends itself some.
type caller struct {
	tb       testing.TB
	listener int
	tid      int
	calls    chan func()
	stop     sync.Once
	gone     chan struct{}
}

func newCaller(tb testing.TB) *caller {
	tb.Helper()
	c := &caller{tb: tb, calls: make(chan func()), gone: make(chan struct{})}
	ready := make(chan error)
	go c.live(ready)
	must(tb, within(tb, "start caller", ready))
	tb.Cleanup(c.end)
	return c
}

// live is the thread, which ends with its goroutine.
func (c *caller) live(ready chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		go c.live(ready) // the leader does not end
		<-c.gone
		runtime.UnlockOSThread()
		return
	}
	defer close(c.gone)
	var err error
	c.tid = unix.Gettid()
	c.listener, err = notifytest.Filter(unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, notifytest.Notified()...)
	ready <- err
	for f := range c.calls {
		f()
	}
}

// end ends the thread, and with it the listener.
func (c *caller) end() {
	c.stop.Do(func() { close(c.calls) })
	within(c.tb, "end of caller", c.gone)
}

// result is how a system call ended.
type result struct {
	value int64
	errno syscall.Errno
}

// start has the caller make a call; what comes of it is sent.
func (c *caller) start(nr uintptr, arg uint64) <-chan result {
	done := make(chan result, 1)
	c.calls <- func() {
		v, _, errno := unix.Syscall6(nr, uintptr(arg), 0, 0, 0, 0, 0)
		done <- result{int64(v), errno}
	}
	return done
}

// call has the caller make mknodat with a first argument and waits for its end.
func (c *caller) call(arg uint64) result {
	c.tb.Helper()
	return within(c.tb, "call", c.start(unix.SYS_MKNODAT, arg))
}

func (c *caller) want(arg uint64, want result) {
	c.tb.Helper()
	if got := c.call(arg); got.errno != want.errno || want.errno == 0 && got.value != want.value {
		c.tb.Errorf("call %d gave %d, %v; want %d, %v", arg, got.value, got.errno, want.value, want.errno)
	}
}
