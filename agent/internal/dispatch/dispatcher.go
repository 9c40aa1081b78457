package dispatch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/agent/internal/metrics"
	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/pidfd"
	"github.com/callgate/callgate/pkg/seccompnotify"
	"github.com/callgate/callgate/pkg/tracee"
)

// Options are what a Dispatcher is made of.
type Options struct {
	Kinds   []emulators.Kind // all that there are
	Proc    *tracee.Proc     // borrowed
	Metrics *metrics.Metrics
	Limits  Limits
	// Reactors is how many threads receive; 0 or less means 2.
	Reactors int
	// Report is told how each call ended, Fail what went wrong outside of
	// calls. Both are called from the threads that other calls wait for and
	// must not block.
	Report func(Outcome)
	Fail   func(error)
	// Anchor finds the user namespace of a caller's container where its
	// runtime could not say. It may block.
	Anchor func(*tracee.Tracee) (pidfd.NSID, error)
	// Ended is told of a container that has no listener and no holder any
	// more, with what went wrong when its emulators were closed.
	Ended func(*Container, error)
}

// Limits bound what one container takes.
type Limits struct {
	CallsPerContainer   int           // in flight
	WorkersPerContainer int           // of them blocked, each on a thread
	CallTimeout         time.Duration // deadline of a call that may block
}

// Dispatcher serves listeners. Its methods may be called concurrently.
type Dispatcher struct {
	kinds  []emulators.Kind
	proc   *tracee.Proc
	home   *tracee.Home
	host   pidfd.NSID // the agent's own user namespace
	routes *routes
	limits Limits
	epoch  time.Time
	report func(Outcome)
	fail   func(error)
	anchor func(*tracee.Tracee) (pidfd.NSID, error)
	ended  func(*Container, error)

	reactors []*reactor
	dog      *watchdog
	parking  parking
	inFlight atomic.Int64
	threads  sync.WaitGroup
	stopped  chan struct{}

	mu       sync.RWMutex // guards the rest
	sessions map[int32]*session
	files    files
	next     int32
	closing  bool
}

// ErrClosed says that the dispatcher takes no more listeners.
var ErrClosed = errors.New("agent is stopping")

// New starts a dispatcher. Close ends it.
func New(o Options) (*Dispatcher, error) {
	r, err := buildRoutes(o.Kinds, o.Metrics)
	if err != nil {
		return nil, err
	}
	home, err := tracee.OpenHome()
	if err != nil {
		return nil, err
	}
	host, err := ownUserNamespace()
	if err != nil {
		home.Close()
		return nil, err
	}
	d := &Dispatcher{
		home:  home,
		host:  host,
		kinds: o.Kinds, proc: o.Proc, routes: r, limits: o.Limits, epoch: time.Now(),
		report: o.Report, fail: o.Fail, anchor: o.Anchor, ended: o.Ended,
		stopped:  make(chan struct{}),
		sessions: make(map[int32]*session),
		next:     wakeID + 1,
	}
	d.dog = newWatchdog(d)
	if o.Reactors <= 0 {
		o.Reactors = 2
	}
	for range o.Reactors {
		r, err := newReactor(d)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("start reactor: %w", err), d.Close(context.Background()))
		}
		d.reactors = append(d.reactors, r)
	}
	d.threads.Go(d.dog.run)
	return d, nil
}

func ownUserNamespace() (pidfd.NSID, error) {
	self, err := pidfd.Open(os.Getpid())
	if err != nil {
		return pidfd.NSID{}, err
	}
	defer func() { _ = self.Close() }()
	return self.NamespaceID(pidfd.NSUser)
}

// Add serves a listener for a container, which must be held meanwhile. It
// takes ownership of the listener, also when it fails. released is called once
// it has been closed; it may be nil.
func (d *Dispatcher) Add(c *Container, l *seccompnotify.Listener, released func()) error {
	// A kernel without the flag (before 6.6) answers as well, only slower.
	_ = l.SetFlags(seccompnotify.SyncWakeUp)
	s := &session{listener: l, container: c, released: released}
	s.refs.Store(1)
	if err := d.enter(s); err != nil {
		_ = l.Close()
		return err
	}
	return nil
}

// enter makes a session one of those that are served. All of it happens under
// the lock: Close finds the session whole or not at all, and so does the
// reactor that hears of its first call.
func (d *Dispatcher) enter(s *session) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing {
		return ErrClosed
	}
	if err := d.files.add(s); err != nil {
		return err
	}
	s.id = d.number()
	s.reactor = d.reactors[int(s.id)%len(d.reactors)]
	if err := s.container.attach(s); err != nil {
		d.files.remove(s)
		return err
	}
	d.sessions[s.id] = s
	return nil
}

// number finds a free session number. d.mu is held.
func (d *Dispatcher) number() int32 {
	for {
		n := d.next
		if d.next++; d.next < 0 {
			d.next = wakeID + 1
		}
		if d.sessions[n] == nil {
			return n
		}
	}
}

// session finds a session and holds it; nil if it has ended.
func (d *Dispatcher) session(id int32) *session {
	d.mu.RLock()
	defer d.mu.RUnlock()
	s := d.sessions[id]
	if s != nil {
		s.hold() // before end can take it out and let go of it
	}
	return s
}

// end stops serving a listener; what is in flight is answered first.
func (d *Dispatcher) end(s *session) {
	d.mu.Lock()
	mine := d.sessions[s.id] == s
	if mine {
		delete(d.sessions, s.id)
		d.files.remove(s)
	}
	d.mu.Unlock()
	if !mine {
		return
	}
	// It is there: enter put it there.
	_ = unix.EpollCtl(s.reactor.epoll, unix.EPOLL_CTL_DEL, s.listener.FD(), nil)
	s.unhold()
}

// Listeners is how many are served.
func (d *Dispatcher) Listeners() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.sessions)
}

// InFlight is how many calls are received and not yet answered.
func (d *Dispatcher) InFlight() int { return int(d.inFlight.Load()) }

// Close stops receiving, waits until what is in flight is answered or ctx is
// done, and closes every listener: what a container calls after that fails
// with ENOSYS, unless somebody else holds its listener.
func (d *Dispatcher) Close(ctx context.Context) error {
	d.mu.Lock()
	if d.closing {
		d.mu.Unlock()
		return nil
	}
	d.closing = true
	d.mu.Unlock()
	var errs []error
	for _, r := range d.reactors {
		errs = append(errs, r.stop())
	}
	if err := d.drain(ctx); err != nil {
		errs = append(errs, err)
	}
	close(d.stopped)
	d.parking.close()
	d.mu.RLock()
	all := make([]*session, 0, len(d.sessions))
	for _, s := range d.sessions {
		all = append(all, s)
	}
	d.mu.RUnlock()
	for _, s := range all {
		d.end(s)
	}
	d.join(ctx)
	return errors.Join(errs...)
}

func (d *Dispatcher) drain(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for d.inFlight.Load() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d calls in flight given up: %w", d.inFlight.Load(), ctx.Err())
		}
	}
	return nil
}

// join waits for the threads until ctx is done. What they use goes with the
// last of them, be it later: one may be stuck in the kernel.
func (d *Dispatcher) join(ctx context.Context) {
	ended := make(chan struct{})
	go func() {
		d.threads.Wait()
		for _, r := range d.reactors {
			r.close()
		}
		d.home.Close()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
}
