package eventlog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/agent/internal/dispatch"
	"github.com/callgate/callgate/agent/internal/metrics"
	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

func TestMain(m *testing.M) { notifytest.Main(m) }

// lines runs a log over outcomes and returns what it wrote.
func lines(t *testing.T, at logrus.Level, outcomes ...dispatch.Outcome) []map[string]any {
	t.Helper()
	var buf bytes.Buffer
	out := logrus.New()
	out.SetOutput(&buf)
	out.SetLevel(at)
	out.SetFormatter(&logrus.JSONFormatter{})
	l := New(out)
	for _, o := range outcomes {
		l.Call(o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	l.Run(ctx) // writes what is left
	var all []map[string]any
	for line := range strings.Lines(buf.String()) {
		fields := make(map[string]any)
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		all = append(all, fields)
	}
	return all
}

func outcome(o metrics.Outcome) dispatch.Outcome {
	return dispatch.Outcome{
		Container: "c", Profile: "p", Emulator: "mknod", Syscall: "mknodat", PID: 7, ID: 99,
		Outcome: o, Took: 1234567 * time.Nanosecond,
	}
}

func TestFields(t *testing.T) {
	denied, invalid, failed := outcome(metrics.Denied), outcome(metrics.Invalid), outcome(metrics.Failed)
	denied.Reason, denied.Errno = "policy", unix.EPERM
	invalid.Errno, invalid.Err = unix.EFAULT, errors.New("argument 1: bad address")
	failed.Errno, failed.Err = unix.EPERM, errors.New("disk on fire")
	for _, test := range []struct {
		o     dispatch.Outcome
		level string
		extra map[string]any
	}{
		{outcome(metrics.Answered), "debug", nil},
		{outcome(metrics.Continued), "debug", nil},
		{outcome(metrics.Gone), "debug", nil},
		{invalid, "debug", map[string]any{"errno": "bad address", "error": "argument 1: bad address"}},
		{denied, "info", map[string]any{"reason": "policy", "errno": "operation not permitted"}},
		{failed, "error", map[string]any{"errno": "operation not permitted", "error": "disk on fire"}},
	} {
		t.Run(test.o.Outcome.String(), func(t *testing.T) {
			all := lines(t, logrus.DebugLevel, test.o)
			if len(all) != 1 {
				t.Fatalf("%d lines, want 1", len(all))
			}
			got := all[0]
			delete(got, "time")
			want := map[string]any{
				"container": "c", "pid": 7.0, "notif": 99.0, "syscall": "mknodat", "emulator": "mknod", "profile": "p",
				"outcome": test.o.Outcome.String(), "took": "1.2346ms",
				"level": test.level, "msg": "system call " + test.o.Outcome.String(),
			}
			for k, v := range test.extra {
				want[k] = v
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("line is\n%v, want\n%v", got, want)
			}
		})
	}
}

func TestLevels(t *testing.T) {
	all := []dispatch.Outcome{outcome(metrics.Answered), outcome(metrics.Denied), outcome(metrics.Failed)}
	for level, want := range map[logrus.Level]int{logrus.DebugLevel: 3, logrus.InfoLevel: 2, logrus.WarnLevel: 1, logrus.ErrorLevel: 1, logrus.PanicLevel: 0} {
		if got := len(lines(t, level, all...)); got != want {
			t.Errorf("at level %v %d lines, want %d", level, got, want)
		}
	}
}

// TestCallersText: what a caller or its container chose stands in fields only.
func TestCallersText(t *testing.T) {
	o := outcome(metrics.Failed)
	const evil = "x\"\n{\"level\":\"panic\"} %s\x1b[2J"
	o.Container, o.Err = evil, errors.New(evil)
	all := lines(t, logrus.InfoLevel, o)
	if len(all) != 1 || all[0]["container"] != evil || all[0]["error"] != evil || strings.Contains(all[0]["msg"].(string), "x") {
		t.Errorf("lines: %q", all)
	}
}

// TestRate: a container's lines are bounded, and it is said how many there
// were; another's are not affected.
func TestRate(t *testing.T) {
	var buf bytes.Buffer
	out := logrus.New()
	out.SetOutput(&buf)
	l := New(out)
	denied := outcome(metrics.Denied)
	for range burst + 200 {
		l.write(&denied)
	}
	got := strings.Count(buf.String(), "\n")
	if got < burst || got > burst+150 { // some time passes
		t.Errorf("%d lines of %d, want about %d", got, burst+200, burst)
	}
	buf.Reset()
	other := denied
	other.Container = "d"
	l.write(&other)
	if text := buf.String(); strings.Count(text, "\n") != 1 || strings.Contains(text, "suppressed") {
		t.Errorf("another container: %s", text)
	}
	buf.Reset()
	lim := l.limiter("c")
	suppressed := lim.suppressed
	lim.rate.SetBurst(1 << 20)
	lim.rate.SetLimitAt(time.Now().Add(-time.Hour), 1<<20)
	l.write(&denied)
	if want := fmt.Sprintf("suppressed=%d", suppressed); suppressed == 0 || !strings.Contains(buf.String(), want) {
		t.Errorf("the next line is %q, want %s", buf.String(), want)
	}
	buf.Reset()
	l.write(&denied)
	if strings.Contains(buf.String(), "suppressed") {
		t.Errorf("told twice: %s", buf.String())
	}
}

// TestRateForgets: containers that came and went take no memory.
func TestRateForgets(t *testing.T) {
	out := logrus.New()
	out.SetOutput(new(bytes.Buffer))
	l := New(out)
	for i := range 3 * maxContainers {
		o := outcome(metrics.Denied)
		o.Container = fmt.Sprint(i)
		l.write(&o)
	}
	if len(l.limiters) > maxContainers {
		t.Errorf("%d containers are remembered", len(l.limiters))
	}
}

// hanging is a writer that nobody reads from.
type hanging struct {
	began   chan struct{}
	proceed chan struct{}
	once    sync.Once
	buf     bytes.Buffer
}

func (h *hanging) Write(p []byte) (int, error) {
	h.once.Do(func() { close(h.began) })
	<-h.proceed
	return h.buf.Write(p)
}

// TestNeverBlocks: a log that nobody reads keeps no call waiting. What is lost
// is counted.
func TestNeverBlocks(t *testing.T) {
	h := &hanging{began: make(chan struct{}), proceed: make(chan struct{})}
	out := logrus.New()
	out.SetOutput(h)
	out.SetLevel(logrus.DebugLevel)
	l := New(out)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		l.Run(ctx)
		close(ended)
	}()
	l.Call(outcome(metrics.Answered))
	<-h.began
	const more = 5
	for range room + more {
		l.Call(outcome(metrics.Answered)) // would hang here
	}
	if lost := l.lost.Load(); lost != more {
		t.Errorf("%d lines are lost, want %d", lost, more)
	}
	close(h.proceed)
	cancel()
	<-ended
	if n := strings.Count(h.buf.String(), "\n"); n != room+1 {
		t.Errorf("%d lines, want %d", n, room+1)
	}
	if n := strings.Count(h.buf.String(), fmt.Sprintf("lost=%d", more)); n != 1 {
		t.Errorf("%d lines tell of the loss, want 1", n)
	}
}
