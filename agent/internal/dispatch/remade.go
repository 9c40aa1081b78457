package dispatch

import (
	"errors"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/agent/internal/metrics"
	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/pidfd"
	"github.com/callgate/callgate/pkg/seccompnotify"
)

// A signal takes a caller out of its wait, and after the signal's handler the
// same call is made anew (without SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV).
// What the first one did could be undone at once; but a caller whose signals
// come faster than its call is carried out would then never come to an end.
// So what was done stands for a moment, and the call made anew gets the answer
// that the first one did not. If none comes it is undone.

// unanswered is a call that was carried out and whose answer nobody took.
type unanswered struct {
	session *session // held
	notif   seccompnotify.Notification
	resp    emulators.Response
	until   int64     // monotonic
	caller  *pidfd.FD // owned; nil if it could not be had
}

const (
	// graceTime is how long a caller may take to come back: a signal handler's
	// time.
	graceTime = 50 * time.Millisecond
	// maxUnanswered bounds what one thread keeps.
	maxUnanswered = 16
)

// keep leaves what was done standing, if its emulator can tell the call made
// anew from another.
func (r *runner) keep(resp *emulators.Response) bool {
	if r.patience != emulators.Hurry || !resp.Repeatable() || len(r.unanswered) >= maxUnanswered {
		return false
	}
	if !r.guard(resp.Keep) {
		return false
	}
	// Of a thread that has died meanwhile there is none to be had, and of
	// another that has its number already there is one that lives: what was
	// done is then undone, the same as without.
	caller, err := pidfd.OpenThread(int(r.notif.PID))
	if errors.Is(err, unix.ESRCH) {
		r.guard(func() { resp.Finish(true) })
		return true
	}
	r.session.hold()
	r.unanswered = append(r.unanswered, &unanswered{
		session: r.session, notif: r.notif, resp: *resp, until: r.d.monotonic() + int64(graceTime),
		caller: caller,
	})
	return true
}

// owes says whether something of the thread whose call was just received still
// stands unanswered: this thread has to deal with that call itself.
func (r *runner) owes(s *session) bool {
	for _, u := range r.unanswered {
		if u.session == s && u.notif.PID == r.notif.PID {
			return true
		}
	}
	return false
}

// remade looks for a call of the same thread whose answer nobody took. If this
// one is that call made anew it returns its response; otherwise what was done
// is undone, before this call is looked at.
func (r *runner) remade(req *emulators.Request) (resp emulators.Response, same bool) {
	for i, u := range r.unanswered {
		if u.session != r.session || u.notif.PID != r.notif.PID {
			continue
		}
		r.unanswered = append(r.unanswered[:i], r.unanswered[i+1:]...)
		defer u.session.unhold()
		if u.notif.Data == r.notif.Data && r.guard(func() { same = u.resp.Repeats(req) }) && same {
			u.close()
			return u.resp, true
		}
		r.undo(u)
		return emulators.Response{}, false
	}
	return emulators.Response{}, false
}

// expire undoes what nobody came back for; all of it with a time of -1. It
// returns how long the next may wait, -1 for ever.
func (r *runner) expire(now int64) time.Duration {
	for len(r.unanswered) > 0 {
		u := r.unanswered[0] // the oldest
		if now >= 0 && now < u.until {
			return time.Duration(u.until - now)
		}
		r.unanswered = r.unanswered[1:]
		r.undo(u)
		u.session.unhold()
	}
	return -1
}

// undo takes back what was done, unless the caller has been killed.
func (r *runner) undo(u *unanswered) {
	stands := false
	if u.caller != nil {
		alive, err := u.caller.Alive()
		stands = err == nil && !alive
	}
	u.close()
	r.guard(func() { u.resp.Finish(stands) })
}

func (u *unanswered) close() {
	if u.caller != nil {
		_ = u.caller.Close() // only says that it was closed before
		u.caller = nil
	}
}

// guard runs an emulator's code outside of a call; a panic is its own.
func (r *runner) guard(f func()) (ok bool) {
	defer func() {
		if p := recover(); p != nil {
			r.d.fail(&panicked{value: p, stack: debug.Stack()})
			ok = false
		}
	}()
	f()
	return true
}

// after runs what comes after an answer, or keeps it for the call made anew. A
// caller that was killed makes no call anew, and the kernel would have finished
// what it was doing: that stands. To undo it could only harm others, who may
// have seen it, removed it and made their own in its place.
func (r *runner) after(resp *emulators.Response, delivered bool, out *Outcome) {
	if !delivered && out.Outcome == metrics.Gone && resp.Undoable() {
		if r.caller.Dying() {
			delivered = true
		} else if r.keep(resp) {
			return
		}
	}
	r.finish(resp, delivered, out)
}
