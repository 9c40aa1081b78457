package dispatch

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/seccompnotify"
)

// job is a call that runs, or waits to run, on a worker.
type job struct {
	session *session
	notif   seccompnotify.Notification
	begun   time.Time
	next    *job // the same thread's next call: it waits for this one's end
}

// idleWorkers is how many threads are kept for the next call, and
// idleTime for how long.
const (
	idleWorkers = 4
	idleTime    = 300 * time.Millisecond
)

// defers takes a just received call to a worker if that is where it has to go:
// the container has been slow of late, or the same thread's last call has not
// ended yet. That happens when a signal takes a caller out of its call and the
// call is made anew: what the first one did must be undone first.
func (c *Container) defers(r *runner) bool {
	until := c.slowUntil.Load()
	if c.busyCount.Load() == 0 && until == 0 {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	last, busy := c.busy[r.notif.PID]
	slow := c.d.monotonic() < until || c.running >= c.d.limits.WorkersPerContainer
	if !busy && !slow {
		return false
	}
	j := &job{session: r.session, notif: r.notif, begun: r.begun}
	if !busy {
		c.enqueue(j)
		return true
	}
	for last.next != nil {
		last = last.next
	}
	last.next = j
	c.inFlight++
	c.limit()
	return true
}

// submit runs a job on a worker, now or when the container has one free. The
// job brings a hold of its session.
func (c *Container) submit(j *job) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.enqueue(j)
}

// enqueue is submit with c.mu held.
func (c *Container) enqueue(j *job) {
	c.inFlight++
	c.setBusy(j)
	c.limit()
	if c.running >= c.d.limits.WorkersPerContainer {
		c.queue = append(c.queue, j)
		return
	}
	c.running++
	c.d.employ(j)
}

// adopt counts a call that a reactor was given up over.
func (c *Container) adopt(j *job) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inFlight++
	c.running++
	c.setBusy(j)
	c.strike(slowTime)
	c.limit()
}

// strike has the container's calls go to workers for a while, twice as long
// each time. One that has been good for long begins anew. c.mu is held.
func (c *Container) strike(first time.Duration) {
	now := c.d.monotonic()
	if now-c.slowUntil.Load() > int64(forgiveTime) {
		c.strikes = 0
	}
	c.slowUntil.Store(now + int64(first)<<min(c.strikes, maxStrikes))
	c.strikes++
}

// dearCall counts a call that kept a reactor for long, if not long enough for
// the watchdog. A few of them happen to anybody, on a busy machine or disk.
func (c *Container) dearCall() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.d.monotonic()
	if now-c.dearSince > int64(time.Second) {
		c.dearSince, c.dear = now, 0
	}
	if c.dear++; c.dear >= maxDear {
		c.dear = 0
		c.strike(time.Second)
	}
}

func (c *Container) setBusy(j *job) {
	c.busy[j.notif.PID] = j
	c.busyCount.Store(int32(len(c.busy)))
}

// limit stops receiving from a container that has enough in flight, and starts
// again when half of it is answered. c.mu is held.
func (c *Container) limit() {
	most := c.d.limits.CallsPerContainer
	switch {
	case !c.paused && c.inFlight >= most:
		c.paused = true
	case c.paused && c.inFlight <= most/2:
		c.paused = false
	default:
		return
	}
	for s := range c.sessions {
		if err := s.watch(unix.EPOLL_CTL_MOD, !c.paused); err != nil {
			// Taken out of the set: the listener is at its end.
			continue
		}
	}
}

// done ends a job and gives the worker the next one, if there is one, and if
// its thread is good for another; the same thread's next calls run here, in
// their order.
func (c *Container) done(j *job, broken bool) *job {
	c.mu.Lock()
	next := j.next
	if next != nil {
		c.busy[j.notif.PID] = next
	} else if c.busy[j.notif.PID] == j {
		delete(c.busy, j.notif.PID)
	}
	c.busyCount.Store(int32(len(c.busy)))
	c.inFlight--
	if next == nil {
		if len(c.queue) > 0 && c.running <= c.d.limits.WorkersPerContainer {
			next = c.queue[0]
			c.queue = c.queue[1:]
		} else {
			c.running--
		}
	}
	if next != nil && broken {
		c.d.employ(next)
		next = nil
	}
	c.limit()
	c.mu.Unlock()
	c.d.inFlight.Add(-1)
	j.session.unhold()
	return next
}

// employ gives a job to an idle worker or to a new one.
func (d *Dispatcher) employ(j *job) {
	if !d.parking.hand(j) {
		d.threads.Add(1)
		go d.work(j)
	}
}

// work is a worker's life.
func (d *Dispatcher) work(j *job) {
	defer d.threads.Done()
	runtime.LockOSThread() // never unlocked; see reactor.start
	r, err := d.newRunner()
	if err != nil {
		d.refuse(j, fmt.Errorf("make worker: %w", err))
		return
	}
	place, err := newPlace()
	if err == nil {
		defer place.close()
	}
	for j != nil {
		j = d.runJob(r, j)
		// Without a place to wait, for want of descriptors, it is its last.
		if j == nil && place != nil && !r.thread.Broken() {
			j = d.parking.wait(place)
		}
	}
}

func (d *Dispatcher) runJob(r *runner, j *job) *job {
	ctx, cancel := context.WithTimeout(context.Background(), d.limits.CallTimeout)
	defer cancel()
	r.session, r.notif, r.begun = j.session, j.notif, j.begun
	r.run(ctx, emulators.Patient)
	r.caller.Forget() // a worker's next call is anybody's
	return j.session.container.done(j, r.thread.Broken())
}

// refuse answers a job for which there is no thread, and those that it would
// have gone on to.
func (d *Dispatcher) refuse(j *job, why error) {
	r := &runner{d: d}
	for j != nil {
		r.session, r.notif, r.begun = j.session, j.notif, j.begun
		r.settle(d.routes.find(j.notif.Data.Arch, j.notif.Data.NR), emulators.Response{}, why)
		j = j.session.container.done(j, false)
	}
}
