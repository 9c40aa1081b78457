package dispatch

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/agent/internal/metrics"
	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/pidfd"
	"github.com/callgate/callgate/pkg/tracee"
)

// Container is one container's share of the dispatcher: its policy, its
// identity, and what it has in flight, through however many listeners.
type Container struct {
	d         *Dispatcher
	shared    emulators.Container
	emulators []emulators.Emulator // by index of kind; nil: off
	counts    counts

	mu        sync.Mutex // guards the rest
	sessions  map[*session]struct{}
	held      int // holders that are no sessions
	anchored  atomic.Bool
	inFlight  int // calls on workers and in the queue
	running   int // calls on workers, and on reactors that were given up
	queue     []*job
	busy      map[uint32]*job // by thread id: what a call made anew has to wait for
	strikes   int             // how often its calls have been sent to workers for being slow
	dear      int             // calls of long duration since dearSince (monotonic)
	dearSince int64
	paused    bool
	closed    bool
	busyCount atomic.Int32 // len(busy), for the hot path
	slowUntil atomic.Int64 // (monotonic) calls go to workers at once; 0: never been
}

type counts [6]atomic.Uint64

func (c *counts) add(o metrics.Outcome) { c[o].Add(1) }

// ContainerConfig is what a container is made of.
type ContainerConfig struct {
	ID      string
	Profile string
	// Emulators by name of kind; the dispatcher closes those that can be.
	Emulators map[string]emulators.Emulator
	// UserNamespace is the container's; the zero value has it found by the
	// first call.
	UserNamespace pidfd.NSID
}

// NewContainer makes a container that is held until Release and until its last
// listener is gone.
func (d *Dispatcher) NewContainer(cfg ContainerConfig) *Container {
	c := &Container{
		d:         d,
		emulators: make([]emulators.Emulator, len(d.kinds)),
		sessions:  make(map[*session]struct{}),
		held:      1,
		busy:      make(map[uint32]*job),
	}
	c.shared.ID, c.shared.Profile = cfg.ID, cfg.Profile
	for i, kind := range d.kinds {
		c.emulators[i] = cfg.Emulators[kind.Name]
	}
	if cfg.UserNamespace != (pidfd.NSID{}) {
		c.shared.UserNamespace = cfg.UserNamespace
		c.anchored.Store(true)
	}
	return c
}

// ID is what the runtime calls it.
func (c *Container) ID() string { return c.shared.ID }

// anchor finds out which user namespace is the container's, if the runtime
// could not say.
func (c *Container) anchor(caller *tracee.Tracee, patience emulators.Patience) error {
	if c.anchored.Load() {
		return nil
	}
	if patience == emulators.Hurry {
		return emulators.ErrBlocks
	}
	ns, err := c.d.anchor(caller)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.anchored.Load() {
		c.shared.UserNamespace = ns
		c.anchored.Store(true)
	}
	return nil
}

// Hold keeps the container for a listener that is about to come. False if it
// is gone already.
func (c *Container) Hold() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.held++
	return true
}

// Release ends a Hold.
func (c *Container) Release() {
	c.mu.Lock()
	c.held--
	c.closeIfUnused()
}

// attach adds a session and has its reactor hear of it: of its calls, unless
// the container has enough in flight.
func (c *Container) attach(s *session) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.watch(unix.EPOLL_CTL_ADD, !c.paused); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	c.sessions[s] = struct{}{}
	return nil
}

// drop takes a session away and closes its listener, under the lock: limit goes
// by descriptors, and the number could be another listener's by then.
func (c *Container) drop(s *session) {
	c.mu.Lock()
	delete(c.sessions, s)
	_ = s.listener.Close() // nothing to flush
	c.closeIfUnused()
}

// closeIfUnused unlocks c.mu.
func (c *Container) closeIfUnused() {
	last := !c.closed && c.held == 0 && len(c.sessions) == 0
	c.closed = c.closed || last
	c.mu.Unlock()
	if !last {
		return
	}
	// On a thread of its own: this one may be a reactor's, or be somebody.
	c.d.threads.Go(func() {
		var errs []error
		for _, e := range c.emulators {
			if closer, ok := e.(io.Closer); ok {
				errs = append(errs, closer.Close())
			}
		}
		c.d.ended(c, errors.Join(errs...))
	})
}

// Snapshot is what can be told about a container at one moment.
type Snapshot struct {
	Listeners int
	InFlight  int
	Counts    map[string]uint64 // calls by outcome
}

// Snapshot takes one.
func (c *Container) Snapshot() Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Snapshot{Listeners: len(c.sessions), InFlight: c.inFlight, Counts: make(map[string]uint64)}
	for i := range c.counts {
		s.Counts[metrics.Outcome(i).String()] = c.counts[i].Load()
	}
	return s
}

// Profile is the name of its profile.
func (c *Container) Profile() string { return c.shared.Profile }
