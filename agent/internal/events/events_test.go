package events

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/callgate/callgate/agent/internal/dispatch"
	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
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

func subscribe(tb testing.TB, h *Hub, container string) *Subscription {
	tb.Helper()
	s, err := h.Subscribe(container)
	must(tb, err)
	tb.Cleanup(s.Close)
	return s
}

// publish publishes calls with these notification ids.
func (h *Hub) publishIDs(container string, from, to int) {
	for id := from; id < to; id++ {
		h.Publish(&dispatch.Outcome{Container: container, ID: uint64(id)})
	}
}

// told reads what is there: "5" for a call, "-3" for three that are missing.
func told(tb testing.TB, s *Subscription) []string {
	tb.Helper()
	var all []string
	for s.More() {
		e, err := s.Next(tb.Context())
		must(tb, err)
		if e.Lost > 0 {
			all = append(all, fmt.Sprint(-int(e.Lost)))
		} else {
			all = append(all, fmt.Sprint(e.Notif))
		}
	}
	return all
}

func wantTold(tb testing.TB, s *Subscription, want ...string) {
	tb.Helper()
	if got := told(tb, s); fmt.Sprint(got) != fmt.Sprint(want) {
		tb.Errorf("told are %v, want %v", got, want)
	}
}

func TestFilter(t *testing.T) {
	var h Hub
	h.publishIDs("c", 0, 5) // nobody's
	all, c, none := subscribe(t, &h, ""), subscribe(t, &h, "c"), subscribe(t, &h, "e")
	h.publishIDs("c", 5, 7)
	h.publishIDs("d", 7, 8)
	h.publishIDs("c", 8, 9)
	wantTold(t, all, "5", "6", "7", "8")
	wantTold(t, c, "5", "6", "8")
	wantTold(t, none)
}

// TestFilterLoss: what a subscriber did not ask for takes none of its room.
func TestFilterLoss(t *testing.T) {
	var h Hub
	c := subscribe(t, &h, "c")
	h.publishIDs("d", 0, 3*room)
	h.publishIDs("c", 1, 2)
	wantTold(t, c, "1")
}

// TestSlowReader: what a reader has no room for is lost to it alone, and is
// told where it is missing.
func TestSlowReader(t *testing.T) {
	var h Hub
	slow, good := subscribe(t, &h, ""), subscribe(t, &h, "")
	h.publishIDs("c", 0, room)
	if got := told(t, good); len(got) != room {
		t.Errorf("the good reader got %d", len(got))
	}
	h.publishIDs("c", room, room+5) // too many for the slow one
	wantTold(t, good, "1024", "1025", "1026", "1027", "1028")
	for i := range 2 {
		e, err := slow.Next(t.Context())
		must(t, err)
		if e.Notif != uint64(i) || e.Lost != 0 {
			t.Errorf("event %d: %+v", i, e)
		}
	}
	h.publishIDs("c", 2000, 2003) // room for two
	got := told(t, slow)
	if len(got) != room+2 {
		t.Fatalf("the slow reader got %d more, want %d", len(got), room+2)
	}
	if tail := fmt.Sprint(got[room-3:]); tail != "[1023 -5 2000 2001 -1]" {
		t.Errorf("the last are %v", tail)
	}
	wantTold(t, slow)
	h.publishIDs("c", 3000, 3001)
	wantTold(t, slow, "3000") // told once
}

// TestLossWakes: a loss is told also if no call comes after it.
func TestLossWakes(t *testing.T) {
	var h Hub
	s := subscribe(t, &h, "")
	h.publishIDs("c", 0, room+1)
	told(t, s)
	<-s.wake
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	next := make(chan Event)
	go func() {
		e, _ := s.Next(ctx)
		next <- e
	}()
	// As a call does that found no room before the queue was emptied.
	s.lost.Add(1)
	s.wake <- struct{}{}
	if e := <-next; e.Lost != 1 {
		t.Errorf("told is %+v", e)
	}
}

func TestManySubscribers(t *testing.T) {
	var h Hub
	var all []*Subscription
	for range maxSubscribers {
		all = append(all, subscribe(t, &h, ""))
	}
	if _, err := h.Subscribe(""); !errors.Is(err, ErrFull) {
		t.Errorf("one more: %v", err)
	}
	all[3].Close()
	all[3].Close()
	all[3] = subscribe(t, &h, "")
	if _, err := h.Subscribe(""); !errors.Is(err, ErrFull) {
		t.Errorf("one more, after one has gone: %v", err)
	}
	h.publishIDs("c", 1, 2)
	for _, s := range all {
		wantTold(t, s, "1")
		s.Close()
	}
	h.publishIDs("c", 2, 3)
	for _, s := range all {
		wantTold(t, s)
	}
	if h.subscribers.Load() != nil {
		t.Error("calls still look at an empty list")
	}
}

func TestNextEnds(t *testing.T) {
	var h Hub
	s, gone := subscribe(t, &h, ""), subscribe(t, &h, "")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	wait := func(s *Subscription, ctx context.Context) { _, err := s.Next(ctx); ended <- err }
	go wait(gone, ctx)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("a client that is gone: %v", err)
	}
	go wait(s, t.Context())
	h.Close()
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("an agent that ends: %v", err)
	}
}

// TestClose: what happened before the end is told before the end.
func TestClose(t *testing.T) {
	var h Hub
	s := subscribe(t, &h, "")
	h.publishIDs("c", 0, room+2)
	h.Close()
	h.Close()
	h.publishIDs("c", 5000, 5001) // nobody's
	got := told(t, s)
	if len(got) != room+1 || got[room-1] != "1023" || got[room] != "-2" {
		t.Errorf("told are %d, the last %v", len(got), got[len(got)-2:])
	}
	if _, err := s.Next(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("next: %v", err)
	}
	if _, err := h.Subscribe(""); !errors.Is(err, ErrClosed) {
		t.Errorf("subscribe: %v", err)
	}
	s.Close()
}

// TestConcurrent: whatever meets whatever, each call is told or counted.
func TestConcurrent(t *testing.T) {
	const publishers, each, readers = 4, 10000, 6
	var h Hub
	var reading, publishing sync.WaitGroup
	for i := range readers {
		s := subscribe(t, &h, "")
		reading.Go(func() {
			var calls, lost uint64
			for {
				e, err := s.Next(t.Context())
				if errors.Is(err, ErrClosed) {
					break
				}
				if err != nil {
					t.Error(err)
					return
				}
				calls, lost = calls+1, lost+e.Lost
				if e.Lost > 0 {
					calls--
				}
				if i%2 == 1 && calls%64 == 0 {
					time.Sleep(100 * time.Microsecond)
				}
			}
			if calls+lost != publishers*each {
				t.Errorf("reader %d: %d calls told and %d lost of %d", i, calls, lost, publishers*each)
			}
		})
	}
	for range publishers {
		publishing.Go(func() { h.publishIDs("c", 0, each) })
	}
	publishing.Go(func() { // comes and goes
		for range 200 {
			s, err := h.Subscribe("c")
			if err != nil {
				t.Error(err)
				return
			}
			s.More()
			s.Close()
		}
	})
	publishing.Wait()
	h.Close()
	reading.Wait()
}

// TestAllocates: calls leave the garbage collector nothing to do, with a
// subscriber that does not read and without one.
func TestAllocates(t *testing.T) {
	var h Hub
	o := dispatch.Outcome{Container: "c"}
	publish := func() { h.Publish(&o) }
	if n := testing.AllocsPerRun(100, publish); n != 0 {
		t.Errorf("without subscriber: %v allocations", n)
	}
	subscribe(t, &h, "")
	if n := testing.AllocsPerRun(2*room, publish); n != 0 {
		t.Errorf("with a subscriber: %v allocations", n)
	}
}

func BenchmarkPublish(b *testing.B) {
	for _, bench := range []struct {
		name    string
		prepare func(*Hub)
	}{
		{"nobody", func(*Hub) {}},
		{"stuck", func(h *Hub) { subscribe(b, h, "") }},
		{"other container", func(h *Hub) { subscribe(b, h, "d") }},
		{"reader", func(h *Hub) {
			s := subscribe(b, h, "")
			b.Cleanup(h.Close)
			go func() {
				for {
					if _, err := s.Next(context.Background()); err != nil {
						return
					}
				}
			}()
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			var h Hub
			bench.prepare(&h)
			o := dispatch.Outcome{Container: "c"}
			b.ReportAllocs()
			for b.Loop() {
				h.Publish(&o)
			}
		})
	}
}
