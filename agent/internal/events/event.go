package events

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"syscall"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/agent/internal/dispatch"
)

// Event is a line of GET /v1/events: how one call ended, or, with nothing but
// Lost, how many are missing here because the subscriber was too slow.
type Event struct {
	Time        time.Time `json:"time,omitzero"` // of the answer
	Container   string    `json:"container,omitempty"`
	PID         int       `json:"pid,omitempty"` // the calling thread's
	Notif       uint64    `json:"notif,omitempty"`
	Syscall     string    `json:"syscall,omitempty"`
	Emulator    string    `json:"emulator,omitempty"`
	Profile     string    `json:"profile,omitempty"`
	Outcome     string    `json:"outcome,omitempty"`
	Reason      string    `json:"reason,omitempty"`
	Detail      string    `json:"detail,omitempty"`
	Errno       string    `json:"errno,omitempty"` // "EPERM"; "" for a success and where the kernel decides
	Error       string    `json:"error,omitempty"`
	TookSeconds float64   `json:"tookSeconds,omitempty"`
	Lost        uint64    `json:"lost,omitempty"`
}

func newEvent(at time.Time, o *dispatch.Outcome) Event {
	e := Event{
		Time:        at.UTC(),
		Container:   o.Container,
		PID:         o.PID,
		Notif:       o.ID,
		Syscall:     o.Syscall,
		Emulator:    o.Emulator,
		Profile:     o.Profile,
		Outcome:     o.Outcome.String(),
		Reason:      o.Reason,
		Detail:      o.Detail,
		Errno:       errnoName(o.Errno),
		TookSeconds: o.Took.Seconds(),
	}
	if o.Err != nil {
		e.Error = o.Err.Error()
	}
	return e
}

// errnoName is the symbol, or the number of what has none: kernels have
// errnos of their own, such as 512.
func errnoName(errno syscall.Errno) string {
	if errno == 0 {
		return ""
	}
	if name := unix.ErrnoName(errno); name != "" {
		return name
	}
	return strconv.Itoa(int(errno))
}

// Line is the event as JSON and a newline. Nothing in it makes a terminal do
// anything: encoding/json leaves DEL and the C1 controls (U+009B begins an
// escape sequence as ESC [ does) and text that changes its direction.
func (e Event) Line() ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	return printable(buf.Bytes()), nil
}

// printable escapes what is not; in JSON that is inside strings only.
func printable(line []byte) []byte {
	plain := func(r rune) bool { return r == '\n' || strconv.IsPrint(r) }
	if bytes.IndexFunc(line, func(r rune) bool { return !plain(r) }) < 0 {
		return line
	}
	out := make([]byte, 0, len(line)+32)
	for _, r := range string(line) {
		switch {
		case plain(r):
			out = utf8.AppendRune(out, r)
		case r > 0xFFFF:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}
