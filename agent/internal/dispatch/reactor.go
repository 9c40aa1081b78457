package dispatch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/seccompnotify"
)

// reactor is a set of listeners that one thread at a time serves: its turn.
type reactor struct {
	d     *Dispatcher
	epoll int
	wake  int // eventfd, readable for ever once the dispatcher stops
	turn  atomic.Pointer[turn]
}

// wakeID is the wake descriptor's number in the epoll set; sessions count from
// 1.
const wakeID = 0

// turn is one thread's time as the reactor. It ends when the dispatcher stops
// or when the watchdog has given the set to another.
type turn struct {
	reactor *reactor
	runner  *runner
	tid     int
	waited  time.Duration // for a CPU, when last asked
	// since is when the call in hand was received, on the monotonic clock; 0
	// between calls. The watchdog ends the turn by changing it from the
	// number it saw to lost, the thread ends the call by changing it to 0:
	// one of them is first.
	since   atomic.Int64
	retired atomic.Bool
	// job is the call in hand once the watchdog has taken it over; taken is
	// closed when it is set.
	job   *job
	taken chan struct{}
}

const (
	// lost is since's value once the watchdog has taken the reactor away.
	lost = -1
	// receiving is set in the lowest bit of since while there is no call yet;
	// the time stands above it.
	receiving = 1
)

func newReactor(d *Dispatcher) (*reactor, error) {
	r := &reactor{d: d, epoll: -1, wake: -1}
	var err error
	if r.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if r.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		r.close()
		return nil, os.NewSyscallError("eventfd", err)
	}
	err = unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, r.wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: wakeID})
	if err != nil {
		r.close()
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	if err := r.start(); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *reactor) close() {
	if r.epoll >= 0 {
		_ = unix.Close(r.epoll)
	}
	if r.wake >= 0 {
		_ = unix.Close(r.wake)
	}
}

// stop makes the turn end after the call in hand.
func (r *reactor) stop() error {
	_, err := unix.Write(r.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	return os.NewSyscallError("write eventfd", err)
}

// start gives the set to a new thread and returns once it serves.
func (r *reactor) start() error {
	ready := make(chan error)
	r.d.threads.Add(1)
	go func() {
		defer r.d.threads.Done()
		// Never unlocked: the runtime ends a thread whose goroutine ends
		// locked, and this one is changed beyond anybody else's use.
		runtime.LockOSThread()
		run, err := r.d.newRunner()
		if err != nil {
			ready <- err
			return
		}
		defer run.caller.Forget()
		defer run.expire(-1)
		t := &turn{reactor: r, runner: run, tid: unix.Gettid(), taken: make(chan struct{})}
		r.turn.Store(t)
		ready <- nil
		t.serve()
	}()
	return <-ready
}

// restart is start for a set whose thread is stuck or has gone bad.
func (r *reactor) restart() {
	if err := r.start(); err != nil {
		r.d.fail(fmt.Errorf("replace reactor: %w", err))
	}
}

// serve receives and answers until the turn ends.
func (t *turn) serve() {
	var events [32]unix.EpollEvent
	for !t.retired.Load() {
		n, err := unix.EpollWait(t.reactor.epoll, events[:], t.timeout())
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			t.reactor.d.fail(fmt.Errorf("wait for calls: %w", os.NewSyscallError("epoll_wait", err)))
			return
		}
		for _, ev := range events[:n] {
			if ev.Fd == wakeID {
				return
			}
			if !t.event(ev) {
				return
			}
		}
	}
}

// timeout is how many milliseconds there may be nothing to do, -1 for ever.
func (t *turn) timeout() int {
	if len(t.runner.unanswered) == 0 {
		return -1
	}
	left := t.runner.expire(t.reactor.d.monotonic())
	if left < 0 {
		return -1
	}
	return int(left/time.Millisecond) + 1
}

// event deals with one listener. It returns false when the turn is over.
func (t *turn) event(ev unix.EpollEvent) bool {
	s := t.reactor.d.session(ev.Fd)
	if s == nil {
		return true // ended by an event before this one
	}
	if ev.Events&unix.EPOLLIN != 0 {
		return t.receive(s)
	}
	defer s.unhold()
	if ev.Events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		t.reactor.d.end(s)
		t.runner.caller.Forget() // its callers may be the last there were
	}
	return true
}

// receive takes one call and carries it out, here or on a worker. The hold of
// the session goes with the call.
func (t *turn) receive(s *session) bool {
	r := t.runner
	// A listener that somebody else reads from, too, may have nothing left.
	r.session = s
	mark := t.reactor.d.monotonic()<<1 | receiving
	t.since.Store(mark)
	t.reactor.d.dog.wake()
	err := s.listener.Receive(&r.notif)
	if !t.since.CompareAndSwap(mark, 0) {
		t.late(s, err)
		return false
	}
	if err != nil {
		if !errors.Is(err, seccompnotify.ErrGone) { // its caller died in the meantime
			t.reactor.d.fail(fmt.Errorf("receive call of container %q: %w", s.container.ID(), err))
			t.reactor.d.end(s)
		}
		s.unhold()
		return true
	}
	r.begun = time.Now()
	t.reactor.d.inFlight.Add(1)
	if !r.owes(s) && s.container.defers(r) {
		return true
	}
	t.begin()
	done := r.run(context.Background(), emulators.Hurry)
	if !t.finish() {
		// The watchdog has made this call a job meanwhile and the set has a
		// new thread; this one ends with its last call.
		t.last(done)
		return false
	}
	if !done {
		s.container.submit(&job{session: s, notif: r.notif, begun: r.begun})
		return true
	}
	if took := time.Since(r.begun); took > dearTime && took-t.waitedForCPU() > dearTime {
		s.container.dearCall()
	}
	t.reactor.d.inFlight.Add(-1)
	s.unhold()
	if r.thread.Broken() {
		t.replace()
		return false
	}
	return true
}

// waitedForCPU is how long this thread has waited for a CPU since it was last
// asked (the second number of /proc/PID/schedstat): nobody's fault.
func (t *turn) waitedForCPU() time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/schedstat", t.tid))
	if err != nil {
		return 0 // a kernel without CONFIG_SCHED_INFO
	}
	var ran, waited int64
	if _, err := fmt.Sscan(string(text), &ran, &waited); err != nil {
		return 0
	}
	last := t.waited
	t.waited = time.Duration(waited)
	return t.waited - last
}

func (t *turn) begin() {
	t.since.Store(t.reactor.d.monotonic() << 1)
	t.reactor.d.dog.wake()
}

// finish ends the call in hand; false if the reactor was taken away meanwhile.
func (t *turn) finish() bool {
	return t.since.Swap(0) != lost
}

// late deals with what was received after the turn had lost its reactor over
// receiving.
func (t *turn) late(s *session, err error) {
	<-t.taken
	if err != nil {
		s.unhold()
		return
	}
	t.reactor.d.inFlight.Add(1)
	s.container.submit(&job{session: s, notif: t.runner.notif, begun: time.Now()})
}

// last deals with the call that a turn lost its reactor over, and with those
// that waited for its end.
func (t *turn) last(done bool) {
	<-t.taken
	if !done {
		// It took long to find out that it could take long.
		t.runner.run(context.Background(), emulators.Patient)
	}
	d := t.reactor.d
	for j := t.job.session.container.done(t.job, t.runner.thread.Broken()); j != nil; {
		j = d.runJob(t.runner, j)
	}
}

// replace ends a turn whose thread has gone bad.
func (t *turn) replace() {
	t.retired.Store(true)
	t.reactor.restart()
}
