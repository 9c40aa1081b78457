package dispatch

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// stuckTime is how long a call that is not supposed to block may keep a
	// reactor. Other containers' calls wait that long, once.
	stuckTime = 25 * time.Millisecond
	// spinTime is for a thread that is not asleep: on a busy machine it waits
	// for a CPU, which is nobody's fault; one that computes that long is stuck.
	spinTime = time.Second
	// slowTime is for how long a container's calls then go to its workers;
	// twice as long each time that it happens again, up to maxStrikes times:
	// a container that has its memory served by a program (userfaultfd, a FUSE
	// file) can make any call block at the first look.
	slowTime   = 10 * time.Second
	maxStrikes = 10
	// forgiveTime is how long a container has to be quick again.
	forgiveTime = 10 * time.Minute
	// dearTime is what no call should take on a reactor; maxDear of them within
	// a second are taken for intent.
	dearTime = 2 * time.Millisecond
	maxDear  = 5
)

// watchdog relieves reactors that are stuck in a call. It sleeps while there
// are no calls.
type watchdog struct {
	d      *Dispatcher
	awake  atomic.Bool
	notify chan struct{}
}

func newWatchdog(d *Dispatcher) *watchdog {
	return &watchdog{d: d, notify: make(chan struct{}, 1)}
}

// wake is called for every call: one load when the dog is awake.
func (w *watchdog) wake() {
	if w.awake.Load() || w.awake.Swap(true) {
		return
	}
	w.notify <- struct{}{} // room for one, and one is asleep
}

func (w *watchdog) run() {
	for {
		select {
		case <-w.notify:
		case <-w.d.stopped:
			return
		}
		w.watch()
	}
}

// watch looks around until there has been nothing to see for a while.
func (w *watchdog) watch() {
	tick := time.NewTicker(stuckTime / 2)
	defer tick.Stop()
	for quiet := 0; quiet < 80; quiet++ {
		select {
		case <-tick.C:
		case <-w.d.stopped:
			return
		}
		if w.look() {
			quiet = 0
		}
	}
	w.awake.Store(false)
	if w.look() {
		w.wake() // for a call that began when the dog was taken to be awake
	}
}

// look relieves who is stuck, and says whether anybody is at work.
func (w *watchdog) look() bool {
	busy := false
	now := w.d.monotonic()
	for _, r := range w.d.reactors {
		t := r.turn.Load()
		since := t.since.Load()
		if since <= 0 {
			continue
		}
		busy = true
		took := now - since>>1
		if took > int64(spinTime) || took > int64(stuckTime) && asleep(t.tid) {
			w.relieve(t, since)
		}
	}
	return busy
}

// asleep says whether one of this process's threads sleeps in the kernel
// (proc_pid_stat(5), state).
func asleep(tid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", tid))
	if err != nil {
		return true
	}
	// After the command's name, which may hold anything.
	_, state, ok := strings.Cut(string(text[max(bytes.LastIndexByte(text, ')'), 0):]), ") ")
	return !ok || !strings.HasPrefix(state, "R")
}

// relieve gives the stuck turn's set to a new thread, and deals with what it is
// stuck in.
func (w *watchdog) relieve(t *turn, since int64) {
	if !t.since.CompareAndSwap(since, lost) {
		return // it came back just now
	}
	// From here the turn's thread waits for taken once it comes back, and
	// leaves the runner alone until then.
	t.retired.Store(true)
	c := t.runner.session.container
	took := time.Duration(w.d.monotonic() - since>>1)
	if since&receiving != 0 {
		// It was told of a call and there is none: somebody else has the
		// listener and takes calls. The thread comes back with the next one,
		// or with the listener's end.
		w.d.end(t.runner.session)
		w.d.fail(fmt.Errorf("somebody else takes calls of container %q: listener given up after %v", c.ID(), took))
	} else {
		t.job = &job{session: t.runner.session, notif: t.runner.notif, begun: t.runner.begun}
		c.adopt(t.job) // as one of its container's blocked calls
		w.d.fail(fmt.Errorf("reactor stuck for %v in a call of container %q: relieved", took, c.ID()))
	}
	close(t.taken)
	t.reactor.restart()
}

// monotonic is the time since the dispatcher began, in nanoseconds, never 0.
// By way of package time, which asks no system call.
func (d *Dispatcher) monotonic() int64 { return int64(time.Since(d.epoch)) + 1 }
