package dispatch

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/agent/internal/metrics"
	"github.com/callgate/callgate/emulators"
)

// Outcome is how one call ended: one log line.
type Outcome struct {
	Container string
	Profile   string
	Emulator  string
	Syscall   string
	PID       int
	ID        uint64 // of the notification
	Outcome   metrics.Outcome
	Reason    string        // policy's
	Detail    string        // the kernel's words, or what policy's are about; may be the caller's text
	Errno     syscall.Errno // the caller's answer; 0 for a success
	Err       error         // ours
	Took      time.Duration
}

// judge turns what an emulator gave into an answer and an outcome.
func judge(resp *emulators.Response, err error, out *Outcome) {
	var denied emulators.Denied
	var argument emulators.BadArgument
	switch {
	case err == nil:
		out.Errno, out.Detail = resp.Errno(), clip(resp.Detail())
		out.Outcome = metrics.Answered
		switch resp.Action() {
		case emulators.ActionContinue:
			out.Outcome = metrics.Continued
		case emulators.ActionRefuse:
			out.Outcome, out.Reason = metrics.Denied, "emulator gave no answer"
		}
		return
	case errors.Is(err, emulators.ErrGone):
		out.Outcome = metrics.Gone
	case errors.As(err, &denied):
		out.Outcome, out.Reason, out.Errno = metrics.Denied, denied.Reason, denied.Errno
		out.Detail = clip(denied.Detail)
		if denied.ByKernel {
			*resp = emulators.Continue()
			return
		}
	case errors.As(err, &argument):
		out.Outcome, out.Errno, out.Err = metrics.Invalid, argument.Errno, err
	default:
		out.Outcome, out.Errno, out.Err = metrics.Failed, unix.EPERM, err
	}
	if out.Errno == 0 {
		out.Errno = unix.EPERM
	}
	*resp = emulators.Fail(out.Errno)
}

// clip bounds text that a caller may have written.
func clip(text string) string {
	const most = 512
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// panicked is the error of an emulator that panicked.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("panic: %v\n%s", p.value, p.stack) }

// joined is errors.Join that leaves a single error as it is.
func joined(a, b error) error {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return errors.Join(a, b)
}
