// Package eventlog writes the one log line of each call, and never keeps a
// call waiting for whoever reads the log.
package eventlog

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"

	"github.com/callgate/callgate/agent/internal/dispatch"
	"github.com/callgate/callgate/agent/internal/metrics"
)

const (
	// room is how many lines may wait for the writer.
	room = 1024
	// perSecond and burst bound the info and error lines of one container.
	perSecond = 10
	burst     = 50
	// maxContainers bounds what is remembered of containers' rates.
	maxContainers = 4096
)

// Log is one agent's. Safe for concurrent use; Run writes what the others
// leave.
type Log struct {
	out   *logrus.Logger
	calls chan dispatch.Outcome
	lost  atomic.Uint64

	limiters map[string]*limiter // Run's alone
}

type limiter struct {
	rate       *rate.Limiter
	suppressed int
}

// New makes a log that writes to out.
func New(out *logrus.Logger) *Log {
	return &Log{out: out, calls: make(chan dispatch.Outcome, room), limiters: make(map[string]*limiter)}
}

// Call leaves a line about a call, if anybody wants to read it. It never
// blocks: where there is no room the line is lost, and counted.
func (l *Log) Call(o dispatch.Outcome) {
	if !l.out.IsLevelEnabled(level(&o)) {
		return
	}
	select {
	case l.calls <- o:
	default:
		l.lost.Add(1)
	}
}

func level(o *dispatch.Outcome) logrus.Level {
	switch {
	case o.Outcome == metrics.Failed:
		return logrus.ErrorLevel
	case o.Outcome == metrics.Denied, o.Detail != "":
		return logrus.InfoLevel
	default:
		return logrus.DebugLevel
	}
}

// Run writes until ctx is done, and then what is left.
func (l *Log) Run(ctx context.Context) {
	for {
		select {
		case o := <-l.calls:
			l.write(&o)
		case <-ctx.Done():
			for len(l.calls) > 0 {
				o := <-l.calls
				l.write(&o)
			}
			return
		}
	}
}

func (l *Log) write(o *dispatch.Outcome) {
	fields := logrus.Fields{
		"container": o.Container,
		"pid":       o.PID,
		"notif":     o.ID,
		"syscall":   o.Syscall,
		"emulator":  o.Emulator,
		"profile":   o.Profile,
		"outcome":   o.Outcome.String(),
		"took":      o.Took.Round(100 * time.Nanosecond).String(),
	}
	at := level(o)
	if at <= logrus.InfoLevel {
		lim := l.limiter(o.Container)
		if !lim.rate.Allow() {
			lim.suppressed++
			return
		}
		if lim.suppressed > 0 {
			fields["suppressed"] = lim.suppressed
			lim.suppressed = 0
		}
	}
	if lost := l.lost.Swap(0); lost > 0 {
		fields["lost"] = lost
	}
	if o.Reason != "" {
		fields["reason"] = o.Reason
	}
	if o.Detail != "" {
		fields["detail"] = o.Detail
	}
	if o.Errno != 0 {
		fields["errno"] = o.Errno.Error()
	}
	if o.Err != nil {
		fields["error"] = o.Err.Error()
	}
	l.out.WithFields(fields).Log(at, "system call "+o.Outcome.String())
}

func (l *Log) limiter(container string) *limiter {
	lim := l.limiters[container]
	if lim == nil {
		if len(l.limiters) >= maxContainers {
			clear(l.limiters)
		}
		lim = &limiter{rate: rate.NewLimiter(perSecond, burst)}
		l.limiters[container] = lim
	}
	return lim
}
