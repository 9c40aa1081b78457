package dispatch

import (
	"context"
	"errors"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/agent/internal/metrics"
	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/seccompnotify"
	"github.com/callgate/callgate/pkg/tracee"
)

// runner is what one locked OS thread needs to carry out calls, one at a time.
type runner struct {
	d       *Dispatcher
	thread  *tracee.Thread
	caller  *tracee.Tracee
	waiting func() error // bound once: this is the hot path

	session  *session
	notif    seccompnotify.Notification
	begun    time.Time
	patience emulators.Patience

	unanswered []*unanswered // the oldest first
}

// newRunner makes the calling goroutine's thread one. The goroutine must be
// locked and must end locked.
func (d *Dispatcher) newRunner() (*runner, error) {
	thread, err := tracee.NewThread(d.home)
	if err != nil {
		return nil, err
	}
	r := &runner{d: d, thread: thread, caller: tracee.New(d.proc)}
	r.waiting = r.stillWaiting
	return r, nil
}

func (r *runner) stillWaiting() error {
	err := r.session.listener.Valid(r.notif.ID)
	if errors.Is(err, seccompnotify.ErrGone) {
		return emulators.ErrGone
	}
	return err
}

// run carries the call out and answers it. It returns false, with nothing
// done, if the call could block and is in a hurry.
func (r *runner) run(ctx context.Context, patience emulators.Patience) bool {
	r.patience = patience
	to := r.d.routes.find(r.notif.Data.Arch, r.notif.Data.NR)
	resp, err := r.emulate(ctx, to)
	if patience == emulators.Hurry && errors.Is(err, emulators.ErrBlocks) {
		r.finish(&resp, false, &Outcome{})
		r.caller.Release()
		return false
	}
	r.settle(to, resp, err)
	r.caller.Release()
	return true
}

// settle answers the call, has it cleaned up after, and tells of it.
func (r *runner) settle(to *route, resp emulators.Response, err error) {
	out := Outcome{
		Container: r.session.container.shared.ID,
		Profile:   r.session.container.shared.Profile,
		Emulator:  to.name,
		Syscall:   to.syscall,
		PID:       int(r.notif.PID),
		ID:        r.notif.ID,
	}
	if err != nil {
		// An error never allows, whatever came with it.
		var undone Outcome
		r.finish(&resp, false, &undone)
		err = joined(err, undone.Err)
	}
	judge(&resp, err, &out)
	delivered := r.answer(&resp, &out)
	out.Took = time.Since(r.begun)
	r.after(&resp, delivered, &out)
	to.metrics.Observe(out.Outcome, out.Took)
	r.session.container.counts.add(out.Outcome)
	r.d.report(out)
}

// emulate asks the emulator, if there is one. A panic is this call's, and an
// error.
func (r *runner) emulate(ctx context.Context, to *route) (resp emulators.Response, err error) {
	c := r.session.container
	if to.kind < 0 || to.absent {
		return emulators.Fail(unix.ENOSYS), nil
	}
	defer func() {
		if p := recover(); p != nil {
			resp, err = emulators.Response{}, &panicked{value: p, stack: debug.Stack()}
		}
	}()
	r.caller.Reset(int(r.notif.PID), r.waiting)
	if c.emulators[to.kind] == nil {
		return emulators.Response{}, r.off()
	}
	if err := c.anchor(r.caller, r.patience); err != nil {
		return emulators.Response{}, err
	}
	req := emulators.NewRequest(emulators.Call{
		Syscall:   to.syscall,
		Args:      r.notif.Data.Args,
		Caller:    r.caller,
		Thread:    r.thread,
		Container: &c.shared,
		Patience:  r.patience,
		Host:      r.d.host,
	})
	if len(r.unanswered) > 0 {
		if resp, same := r.remade(req); same {
			return resp, nil
		}
	}
	return c.emulators[to.kind].Emulate(ctx, req)
}

// off is the answer to a call whose kind the profile does not name: the
// kernel's own where it asks for rights that the caller lacks, EPERM where the
// caller is in the agent's user namespace and might have them.
func (r *runner) off() error {
	ns, err := r.caller.UserNamespace()
	if err != nil {
		return err
	}
	return emulators.Denied{Reason: "profile does not name the kind", ByKernel: emulators.Powerless(r.d.host, ns)}
}

var errNotGone = errors.New("emulator took a caller that still waits for gone")

// answer sends the response and says whether somebody got it. It is sent to
// those that are gone, too: should one still wait, it would wait for ever.
func (r *runner) answer(resp *emulators.Response, out *Outcome) bool {
	l, id := r.session.listener, r.notif.ID
	if resp.Undoable() {
		r.letSignalsThrough()
	}
	var err error
	switch resp.Action() {
	case emulators.ActionReturn:
		err = l.Return(id, resp.Value())
	case emulators.ActionContinue:
		err = l.Continue(id)
	case emulators.ActionFile:
		err = sendFile(l, id, resp)
	default:
		err = l.Fail(id, resp.Errno())
	}
	switch {
	case err == nil && out.Outcome == metrics.Gone:
		out.Outcome, out.Err = metrics.Failed, errNotGone
		return true
	case err == nil:
		return true
	case errors.Is(err, seccompnotify.ErrGone):
		out.Outcome, out.Reason, out.Errno, out.Err = metrics.Gone, "", 0, nil
	default:
		r.answerAnyway(err, out)
	}
	return false
}

// answerAnyway is for an answer that the kernel did not take: its caller still
// waits.
func (r *runner) answerAnyway(err error, out *Outcome) {
	if errors.Is(err, unix.EMFILE) {
		// The caller's table has no room for the descriptor: what open(2) says.
		out.Outcome, out.Errno, out.Err = metrics.Answered, unix.EMFILE, nil
	} else {
		out.Outcome, out.Errno, out.Err = metrics.Failed, unix.EPERM, err
	}
	if err := r.session.listener.Fail(r.notif.ID, out.Errno); errors.Is(err, seccompnotify.ErrGone) {
		out.Outcome, out.Reason, out.Errno, out.Err = metrics.Gone, "", 0, nil
	} else if err != nil {
		out.Outcome, out.Err = metrics.Failed, joined(out.Err, err)
	}
}

// letSignalsThrough waits for a caller that a signal has woken and that has not
// run since. An answer sent now would be lost without a word (the kernel sees
// the signal first), and the call made anew; sent after the caller has left
// the call it fails, and what was done is undone. What is left of the race is
// the time between the last look and the answer, and only
// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV closes it. A caller without signal
// handlers is not interrupted, and costs nothing.
func (r *runner) letSignalsThrough() {
	if !r.caller.CatchesSignals() {
		return
	}
	// It shares this CPU more often than not (SYNC_WAKE_UP).
	unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	for range maxWaits {
		if r.caller.Asleep() || r.stillWaiting() != nil {
			return
		}
		unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	}
}

// maxWaits bounds the wait for a caller to run, which takes microseconds: one
// that does not come to it on a busy machine must not keep others.
const maxWaits = 200

// sendFile gives the caller a descriptor as its answer: in one step, or before
// Linux 5.14 in two.
func sendFile(l *seccompnotify.Listener, id uint64, resp *emulators.Response) error {
	file, flags := resp.File()
	var cloexec uint32
	if flags == emulators.CloseOnExec {
		cloexec = unix.O_CLOEXEC
	}
	_, err := l.AddFD(id, seccompnotify.AddFDSend, file.FD(), 0, cloexec)
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	n, err := l.AddFD(id, 0, file.FD(), 0, cloexec)
	if err != nil {
		return err
	}
	return l.Return(id, int64(n))
}

// finish runs the emulator's afterthought, whose panic is as much its own.
func (r *runner) finish(resp *emulators.Response, delivered bool, out *Outcome) {
	defer func() {
		if p := recover(); p != nil {
			out.Outcome, out.Err = metrics.Failed, &panicked{value: p, stack: debug.Stack()}
			resp.Finish(delivered) // what is left: the file
		}
	}()
	resp.Finish(delivered)
}
