package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

// denying is a kind that has a reason.
func denying() []emulators.Kind {
	kind := kinds()[0]
	kind.New = func(emulators.Policy) (emulators.Emulator, error) {
		return emulator(func(context.Context, *emulators.Request) (emulators.Response, error) {
			return emulators.Response{}, emulators.Denied{Errno: unix.EACCES, Reason: "not in the list", Detail: "c 1:9\x1b[m"}
		}), nil
	}
	return []emulators.Kind{kind}
}

// watch begins a stream of events, which ends with the test.
func watch(t *testing.T, cfg Config, query string) *bufio.Reader {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", cfg.Control)
	}}
	resp, err := (&http.Client{Transport: transport}).Get("http://callgate/v1/events" + query)
	must(t, err)
	t.Cleanup(func() {
		resp.Body.Close()
		transport.CloseIdleConnections()
	})
	if resp.StatusCode != http.StatusOK {
		t.Fatal("events:", resp.Status)
	}
	return bufio.NewReader(resp.Body)
}

// TestEvents: who watches sees a denied call and why, and keeps the agent from
// nothing.
func TestEvents(t *testing.T) {
	before := runtime.NumGoroutine()
	cfg := testAgentConfig(t)
	cfg.Kinds, cfg.ConfigText = denying(), "profiles: {default: {test: {}}}"
	a, stop := serve(t, cfg)
	all, other := watch(t, cfg, ""), watch(t, cfg, "?container=other")
	child := notifytest.Start(t, notifytest.Options{})
	must(t, a.Register(t.Context(), Registration{Listener: child.Listener, ID: "c", PID: child.PID}))
	begun := time.Now()
	child.Go(t, unix.SYS_MKNODAT)
	if _, errno := child.Result(t); errno != unix.EACCES {
		t.Errorf("the call gave %v", errno)
	}
	line, err := all.ReadBytes('\n')
	must(t, err)
	var got map[string]any
	must(t, json.Unmarshal(line, &got))
	for field, want := range map[string]any{
		"container": "c", "pid": float64(child.TID), "syscall": "mknodat", "emulator": "test", "profile": "default",
		"outcome": "denied", "reason": "not in the list", "detail": "c 1:9\x1b[m", "errno": "EACCES",
	} {
		if got[field] != want {
			t.Errorf("%s is %#v, want %#v", field, got[field], want)
		}
		delete(got, field)
	}
	at, err := time.Parse(time.RFC3339Nano, got["time"].(string))
	if err != nil || at.Before(begun) || at.After(time.Now()) {
		t.Errorf("time is %v, %v", got["time"], err)
	}
	if took := got["tookSeconds"].(float64); took <= 0 || took > patience.Seconds() {
		t.Errorf("took %v s", took)
	}
	if got["notif"].(float64) == 0 || len(got) != 3 {
		t.Errorf("besides: %v", got)
	}
	child.Kill()
	stop()
	for name, lines := range map[string]*bufio.Reader{"all": all, "other": other} {
		if line, err := lines.ReadString('\n'); line != "" || err == nil {
			t.Errorf("%s: after the end: %q, %v", name, line, err)
		}
	}
	eventually(t, "end of its goroutines", func() bool { return runtime.NumGoroutine() <= before })
}
