// Package events tells whoever wants to watch how each call ended, and never
// keeps a call waiting for it.
package events

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/callgate/callgate/agent/internal/dispatch"
)

const (
	// room is how many events may wait for one subscriber.
	room = 1024
	// maxSubscribers bounds what a call can cost, and the memory.
	maxSubscribers = 16
)

var (
	// ErrFull says that there are as many subscribers as there may be.
	ErrFull = errors.New("too many subscribers")
	// ErrClosed says that the agent ends.
	ErrClosed = errors.New("agent is stopping")
)

// Hub is one agent's. The zero value is one without subscribers. Safe for
// concurrent use.
type Hub struct {
	// subscribers is nil where there are none. A list is replaced and never
	// changed: Publish takes no lock.
	subscribers atomic.Pointer[[]*Subscription]

	mu     sync.Mutex // guards replacing the list, and the rest
	closed bool
}

// Publish tells the subscribers of a call. It never blocks: a subscriber that
// has no room loses the event, and is told so. o is borrowed.
func (h *Hub) Publish(o *dispatch.Outcome) {
	if list := h.subscribers.Load(); list != nil {
		publish(*list, o)
	}
}

// publish is apart so that Publish is inlined: without a subscriber it is a
// load and a branch of the hot path.
func publish(list []*Subscription, o *dispatch.Outcome) {
	now := time.Now()
	for _, s := range list {
		if s.container == "" || s.container == o.Container {
			s.offer(now, o)
		}
	}
}

// Subscribe asks for the events of one container, or with "" of all, from now
// on. The subscription must be closed.
func (h *Hub) Subscribe(container string) (*Subscription, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := h.list()
	switch {
	case h.closed:
		return nil, ErrClosed
	case len(list) >= maxSubscribers:
		return nil, ErrFull
	}
	s := &Subscription{
		hub:       h,
		container: container,
		queue:     make(chan entry, room),
		wake:      make(chan struct{}, 1),
		over:      make(chan struct{}),
	}
	h.replace(append(slices.Clone(list), s))
	return s, nil
}

// Close ends all subscriptions, and takes no more.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for _, s := range h.list() {
		close(s.over)
	}
	h.replace(nil)
}

func (h *Hub) list() []*Subscription {
	if list := h.subscribers.Load(); list != nil {
		return *list
	}
	return nil
}

func (h *Hub) replace(list []*Subscription) {
	if len(list) == 0 {
		h.subscribers.Store(nil)
		return
	}
	h.subscribers.Store(&list)
}

// Subscription is what one subscriber reads from. Next is for one goroutine at
// a time.
type Subscription struct {
	hub       *Hub
	container string // "": all
	queue     chan entry
	lost      atomic.Uint64 // not told yet
	wake      chan struct{} // something was lost
	over      chan struct{} // closed with the hub

	held *entry // Next's: taken from the queue, to be told next
}

// entry is an event in waiting. It becomes an Event in the subscriber's time,
// not in the call's.
type entry struct {
	at   time.Time
	lost uint64 // how many should have come before it
	call dispatch.Outcome
}

func (s *Subscription) offer(now time.Time, o *dispatch.Outcome) {
	lost := s.lost.Load()
	if lost > 0 {
		lost = s.lost.Swap(0)
	}
	select {
	case s.queue <- entry{at: now, lost: lost, call: *o}:
		return
	default:
	}
	s.lost.Add(lost + 1)
	// The subscriber may have emptied the queue since, and sleep.
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Next waits for an event, until ctx is done or, with ErrClosed, the hub is
// closed and what was waiting has been told.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		if e, ok := s.take(); ok {
			return e, nil
		}
		select {
		case e := <-s.queue:
			s.held = &e
		case <-s.wake:
		case <-s.over:
			return Event{}, ErrClosed
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}

// More says whether Next would return an event at once.
func (s *Subscription) More() bool {
	return s.held != nil || len(s.queue) > 0 || s.lost.Load() > 0
}

// take is the next event, if there is one.
func (s *Subscription) take() (Event, bool) {
	if s.held == nil {
		select {
		case e := <-s.queue:
			s.held = &e
		default:
			// Nothing that is in the queue is younger than what was lost.
			lost := s.lost.Swap(0)
			return Event{Lost: lost}, lost > 0
		}
	}
	if lost := s.held.lost; lost > 0 {
		s.held.lost = 0
		return Event{Lost: lost}, true
	}
	e := s.held
	s.held = nil
	return newEvent(e.at, &e.call), true
}

// Close ends the subscription. It may be called more than once.
func (s *Subscription) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.hub.replace(slices.DeleteFunc(slices.Clone(s.hub.list()), func(other *Subscription) bool { return other == s }))
}
