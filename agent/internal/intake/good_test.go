package intake

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

func TestGood(t *testing.T) {
	notifytest.NeedRoot(t)
	null, err := os.Open(os.DevNull)
	must(t, err)
	defer null.Close()
	large := state("c", "seccompFd")
	large.State.Annotations = map[string]string{}
	for i := range 3000 {
		large.State.Annotations[fmt.Sprint("key-", i)] = strings.Repeat("v", 100)
	}
	inPieces := func(data []byte, n int) func(*testing.T, *net.UnixConn, *os.File) {
		return func(t *testing.T, c *net.UnixConn, l *os.File) {
			for i, p := range pieces(data, n) {
				if i == 0 {
					send(t, c, p, l)
				} else {
					send(t, c, p)
				}
			}
		}
	}
	with := func(data string, files ...*os.File) func(*testing.T, *net.UnixConn, *os.File) {
		return func(t *testing.T, c *net.UnixConn, l *os.File) {
			var all []*os.File
			for _, f := range files {
				if f == nil {
					f = l
				}
				all = append(all, f)
			}
			send(t, c, []byte(data), all...)
		}
	}
	full := make([]*os.File, maxFDs) // the listener is the last
	names := make([]string, maxFDs)
	for i := range maxFDs - 1 {
		full[i], names[i] = null, fmt.Sprint("n", i)
	}
	names[maxFDs-1] = "seccompFd"
	for _, test := range []struct {
		name string
		send func(*testing.T, *net.UnixConn, *os.File)
	}{
		{"one message", inPieces(text(t, state("c", "seccompFd")), 1<<20)},
		{"byte by byte", inPieces(text(t, state("c", "seccompFd")), 1)},
		{"300 KB in pieces", inPieces(text(t, large), 36544)},
		{"descriptor first", with(string(text(t, state("c", "seccompFd", "other"))), nil, null)},
		{"descriptor second", with(string(text(t, state("c", "other", "seccompFd"))), null, nil)},
		{"253 descriptors", with(string(text(t, state("c", names...))), full...)},
		{"unknown fields", with(`{"new": [{}], "fds": ["seccompFd"], "pid": 7, "state": {"id": "c", "x": null}}`+"\n", nil)},
		{"the last of two keys", with(`{"fds": [], "state": {"id": "a"}, "fds": ["seccompFd"], "state": {"id": "c"}}`, nil)},
		{"no pid", with(`{"fds": ["seccompFd"], "pid": 0, "state": {"id": "c", "bundle": "."}}`, nil)},
		{"more after the end", with(`{"fds": ["seccompFd"], "state": {"id": "c"}} }{ more`, nil)},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDesk(t)
			l := newListener(t)
			conn := d.dial()
			test.send(t, conn, l)
			// The end of the stream is not sent, here as elsewhere.
			d.registered("c", l)
			awaitClose(t, conn)
		})
	}
}

func TestState(t *testing.T) {
	notifytest.NeedRoot(t)
	d := newDesk(t)
	l := newListener(t)
	want := state("c", "seccompFd")
	want.State.Annotations = map[string]string{"a": "b"}
	send(t, d.dial(), text(t, want), l)
	got := d.registered("c", l).State
	if string(text(t, got)) != string(text(t, want)) {
		t.Errorf("state is\n%s, want\n%s", text(t, got), text(t, want))
	}
}

// TestHalfOpen: connections that say nothing, or half of something, keep
// nobody waiting.
func TestHalfOpen(t *testing.T) {
	notifytest.NeedRoot(t)
	d := newDesk(t)
	l := newListener(t)
	for range 8 {
		d.dial()
	}
	half := d.dial()
	data := text(t, state("half", "seccompFd"))
	send(t, half, data[:20], l)
	for range 3 {
		send(t, d.dial(), text(t, state("whole", "seccompFd")), l)
		d.registered("whole", l)
	}
	send(t, half, data[20:])
	d.registered("half", l)
}

// TestRegisterFails: what Register says is reported with who it was.
func TestRegisterFails(t *testing.T) {
	notifytest.NeedRoot(t)
	d := newDesk(t, func(o *Options) {
		o.Register = func(r Registration) error {
			must(t, r.Listener.Close())
			return fmt.Errorf("no room for %s", r.State.State.ID)
		}
	})
	conn := d.dial()
	send(t, conn, text(t, state("c", "seccompFd")), newListener(t))
	d.refused("no room for c")
	awaitClose(t, conn)
}

// TestClose ends connections of every kind, and reports none of them.
func TestClose(t *testing.T) {
	notifytest.NeedRoot(t)
	d := newDesk(t)
	silent, half := d.dial(), d.dial()
	send(t, half, []byte(`{"fds": [`), newListener(t))
	send(t, d.dial(), text(t, state("c", "seccompFd")), newListener(t))
	d.registered("c", nil) // so the others are accepted, too
	d.server.Close()
	awaitClose(t, silent)
	awaitClose(t, half)
	if _, err := os.Lstat(d.path); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}
