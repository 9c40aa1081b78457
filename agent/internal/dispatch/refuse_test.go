package dispatch

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/agent/internal/metrics"
	"github.com/callgate/callgate/pkg/seccompnotify"
)

// TestRefuse: where no thread can be made for a worker, its call is refused,
// and so are those that would have come after it there.
func TestRefuse(t *testing.T) {
	s := newStage(t, func(o *Options) { o.Limits.WorkersPerContainer = 1 })
	c := s.container("c", nil)
	var jobs []*job
	var calls []<-chan result
	for range 3 {
		caller := newCaller(t)
		l, err := seccompnotify.NewListener(caller.listener)
		must(t, err)
		j := &job{session: &session{listener: l, container: c}, begun: time.Now()}
		j.session.hold()
		calls = append(calls, caller.start(unix.SYS_MKNODAT, 0))
		must(t, l.Receive(&j.notif))
		jobs = append(jobs, j)
	}
	// The first was to run, with the second behind it; the third is queued.
	jobs[0].next = jobs[1]
	c.queue = jobs[2:]
	c.running, c.inFlight = 1, len(jobs)
	s.inFlight.Add(int64(len(jobs)))

	why := errors.New("no more threads")
	s.refuse(jobs[0], why)
	for _, call := range calls {
		if r := within(t, "an answer", call); r.errno != unix.EPERM {
			t.Errorf("refused with %v, want EPERM", r.errno)
		}
	}
	if c.running != 0 || c.inFlight != 0 || len(c.queue) != 0 {
		t.Errorf("%d run, %d in flight, %d queued", c.running, c.inFlight, len(c.queue))
	}
	for _, o := range s.told() {
		if o.Outcome != metrics.Failed || !errors.Is(o.Err, why) {
			t.Errorf("outcome %+v", o)
		}
	}
	if n := len(s.told()); n != len(jobs) {
		t.Errorf("%d outcomes, want %d", n, len(jobs))
	}
	c.Release()
}
