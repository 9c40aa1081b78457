package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/callgate/callgate/agent/internal/dispatch"
	"github.com/callgate/callgate/agent/internal/events"
	"github.com/callgate/callgate/agent/internal/metrics"
	"github.com/callgate/callgate/agent/internal/unixsock"
	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

const patience = 8 * time.Second

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v\n%s", what, patience, stacks())
		}
	}
}

func stacks() string {
	text := make([]byte, 1<<18)
	return string(text[:runtime.Stack(text, true)])
}

// eventServer is a control server on a socket as the agent's.
type eventServer struct {
	hub   events.Hub
	path  string
	close func() // whatever the clients do
}

func serveEvents(t *testing.T) *eventServer {
	t.Helper()
	notifytest.NoLeak(t)
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		eventually(t, "end of all goroutines", func() bool { return runtime.NumGoroutine() <= before })
	})
	zero := func() float64 { return 0 }
	s := &eventServer{path: filepath.Join(t.TempDir(), "control.sock")}
	server := New(Options{Gatherer: metrics.New(zero, zero).Gatherer(), Events: &s.hub})
	l, err := unixsock.Listen(s.path)
	must(t, err)
	served := make(chan error, 1)
	go func() { served <- server.Control(l) }()
	closed := false
	s.close = func() {
		if closed {
			return
		}
		closed = true
		begun := time.Now()
		s.hub.Close()
		server.Close()
		if took := time.Since(begun); took > time.Second {
			t.Errorf("close took %v", took)
		}
		must(t, <-served)
		eventually(t, "end of the streams", func() bool { return !strings.Contains(stacks(), "control.next(") })
	}
	t.Cleanup(s.close)
	return s
}

// ask begins a stream. The client goes when the test ends, or by gone.
func (s *eventServer) ask(t *testing.T, query string) (resp *http.Response, gone func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.path)
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://callgate/v1/events"+query, nil)
	must(t, err)
	resp, err = (&http.Client{Transport: transport}).Do(req)
	must(t, err)
	gone = func() {
		cancel()
		resp.Body.Close()
		transport.CloseIdleConnections()
	}
	t.Cleanup(gone) // runs before the server's
	return resp, gone
}

func (s *eventServer) publish(container string, id uint64) {
	s.hub.Publish(&dispatch.Outcome{Container: container, ID: id, Syscall: "mount", Outcome: metrics.Denied})
}

// read reads a line, which has to be there soon.
func read(t *testing.T, lines *bufio.Reader) (e events.Event) {
	t.Helper()
	line, err := lines.ReadBytes('\n')
	must(t, err)
	must(t, json.Unmarshal(line, &e))
	return e
}

func TestEvents(t *testing.T) {
	s := serveEvents(t)
	s.publish("c", 1) // before anybody asked
	all, _ := s.ask(t, "")
	c, _ := s.ask(t, "?container=c")
	odd, _ := s.ask(t, "?container=a%26b%20%2Fc")
	if kind := all.Header.Get("Content-Type"); all.StatusCode != 200 || kind != "application/x-ndjson" {
		t.Errorf("status %d, type %q", all.StatusCode, kind)
	}
	linesAll, linesC, linesOdd := bufio.NewReader(all.Body), bufio.NewReader(c.Body), bufio.NewReader(odd.Body)
	// Each line is there before the next call is made.
	for id, container := range []string{"c", "d", "c", "a&b /c"} {
		s.publish(container, uint64(id+2))
		e := read(t, linesAll)
		if e.Container != container || e.Notif != uint64(id+2) || e.Outcome != "denied" || e.Syscall != "mount" || e.Time.IsZero() {
			t.Errorf("event is %+v", e)
		}
		if container == "c" {
			if e := read(t, linesC); e.Notif != uint64(id+2) {
				t.Errorf("of c: %+v", e)
			}
		}
	}
	if e := read(t, linesOdd); e.Notif != 5 {
		t.Errorf("of a container with an odd name: %+v", e)
	}
	s.close()
	for _, lines := range []*bufio.Reader{linesAll, linesC, linesOdd} {
		// Whether it ends as it should or not depends on who is quicker.
		if rest, err := io.ReadAll(lines); len(rest) > 0 || err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("at the end: %q, %v", rest, err)
		}
	}
}

// TestEventsMany: the one too many is told so, and one that goes makes room.
func TestEventsMany(t *testing.T) {
	s := serveEvents(t)
	_, gone := s.ask(t, "")
	for range 15 {
		s.ask(t, "")
	}
	more, _ := s.ask(t, "")
	if text, err := io.ReadAll(more.Body); more.StatusCode != 503 || string(text) != "too many subscribers\n" {
		t.Errorf("one too many: status %d, %q, %v", more.StatusCode, text, err)
	}
	gone()
	eventually(t, "room for another", func() bool {
		resp, leave := s.ask(t, "")
		if resp.StatusCode != 200 {
			leave()
		}
		return resp.StatusCode == 200
	})
}

// TestEventsStuck: a reader that stops keeps nobody waiting, learns what it
// has missed if it goes on, and is no obstacle to the end if it does not.
func TestEventsStuck(t *testing.T) {
	s := serveEvents(t)
	stuck, _ := s.ask(t, "")
	s.ask(t, "") // for ever
	const calls = 20000
	for id := range calls {
		s.publish("c", uint64(id+1))
	}
	var told, lost uint64
	for lines := bufio.NewReader(stuck.Body); told+lost < calls; {
		e := read(t, lines)
		if lost += e.Lost; e.Lost == 0 {
			told++
			if e.Notif != told+lost {
				t.Fatalf("event %d comes after %d calls and %d losses", e.Notif, told, lost)
			}
		}
	}
	if lost == 0 || told < 1024 || told+lost != calls {
		t.Errorf("%d told and %d lost of %d", told, lost, calls)
	}
	if !strings.Contains(stacks(), "control.next(") {
		t.Error("no stream: the next check proves nothing")
	}
	s.close()
}

// TestEventsClosed: an agent that ends takes no more.
func TestEventsClosed(t *testing.T) {
	s := serveEvents(t)
	s.hub.Close()
	resp, _ := s.ask(t, "")
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != 503 || !strings.Contains(string(text), "agent is stopping") {
		t.Errorf("status %d, %q", resp.StatusCode, text)
	}
}
