package events

import (
	"encoding/json"
	"errors"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/agent/internal/dispatch"
	"github.com/callgate/callgate/agent/internal/metrics"
)

func TestLine(t *testing.T) {
	at := time.Date(2025, 3, 1, 13, 4, 5, 123456789, time.FixedZone("", 3600))
	call := dispatch.Outcome{
		Container: "c", Profile: "p", Emulator: "mount", Syscall: "mount", PID: 7, ID: 1<<64 - 1,
		Took: 1234567 * time.Nanosecond,
	}
	const head = `{"time":"2025-03-01T12:04:05.123456789Z","container":"c","pid":7,"notif":18446744073709551615,` +
		`"syscall":"mount","emulator":"mount","profile":"p",`
	const tail = `"tookSeconds":0.001234567}` + "\n"
	for name, test := range map[string]struct {
		change func(*dispatch.Outcome)
		want   string
	}{
		"answered":  {func(*dispatch.Outcome) {}, `"outcome":"answered",`},
		"continued": {func(o *dispatch.Outcome) { o.Outcome = metrics.Continued }, `"outcome":"continued",`},
		"denied": {func(o *dispatch.Outcome) {
			o.Outcome, o.Reason, o.Detail, o.Errno = metrics.Denied, "not in the list", "<b 8:0>", unix.EPERM
		}, `"outcome":"denied","reason":"not in the list","detail":"<b 8:0>","errno":"EPERM",`},
		"failed": {func(o *dispatch.Outcome) {
			o.Outcome, o.Errno, o.Err = metrics.Failed, unix.EPERM, errors.New("open:\n\"x\"")
		}, `"outcome":"failed","errno":"EPERM","error":"open:\n\"x\"",`},
		"errno without a name": {func(o *dispatch.Outcome) { o.Errno = syscall.Errno(512) }, `"outcome":"answered","errno":"512",`},
		"hostile": {func(o *dispatch.Outcome) {
			o.Detail = "\x1b[2J\x7f\u009b2J \u202eabc \xff\xc2 \U000e0041 é 日本"
		}, `"outcome":"answered","detail":"\u001b[2J\u007f\u009b2J \u202eabc ` + "\ufffd\ufffd" + ` \udb40\udc41 é 日本",`},
	} {
		t.Run(name, func(t *testing.T) {
			o := call
			test.change(&o)
			e := newEvent(at, &o)
			line, err := e.Line()
			must(t, err)
			if got := strings.ReplaceAll(string(line), `\ufffd`, "\ufffd"); got != head+test.want+tail {
				t.Errorf("line is %s\nwant    %s", got, head+test.want+tail)
			}
			for _, r := range strings.TrimSuffix(string(line), "\n") {
				if !strconv.IsPrint(r) {
					t.Errorf("%q is in the line", r)
				}
			}
			var back Event
			must(t, json.Unmarshal(line, &back))
			e.Detail = strings.ToValidUTF8(strings.ReplaceAll(e.Detail, "\xff\xc2", "\ufffd\ufffd"), "")
			if !reflect.DeepEqual(back, e) {
				t.Errorf("read again: %+v\nwant %+v", back, e)
			}
		})
	}
}

func TestLineOfLoss(t *testing.T) {
	line, err := Event{Lost: 5}.Line()
	must(t, err)
	if string(line) != `{"lost":5}`+"\n" {
		t.Errorf("line is %s", line)
	}
}
