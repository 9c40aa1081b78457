package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/agent"
	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

// TestTraceLine is one table: lines are aligned with those before them.
func TestTraceLine(t *testing.T) {
	at := time.Date(2025, 3, 1, 12, 4, 5, 123456789, time.UTC)
	table := traceTable{zone: time.FixedZone("", 3600)}
	for _, test := range []struct {
		e    event
		want string
	}{
		{
			event{Container: "web", PID: 7, Syscall: "mknodat", Outcome: "answered", TookSeconds: 36.17e-6},
			`13:04:05.123456 web[7] mknodat → ok (answered, 36.2µs)`,
		}, {
			event{Container: "builder", PID: 4711, Syscall: "mount", Outcome: "answered", Errno: "EINVAL", Detail: `ext4: Unknown parameter 'x"y'`, TookSeconds: 1.2345e-3},
			`13:04:05.123456 builder[4711] mount   → EINVAL (answered, 1.23ms) "ext4: Unknown parameter 'x\"y'"`,
		}, {
			event{Container: "web", PID: 7, Syscall: "mknodat", Outcome: "denied", Errno: "EPERM", Reason: "device is not in the list", Detail: "c 1:9", TookSeconds: 12e-6},
			`13:04:05.123456 web[7]        mknodat → EPERM  (denied, 12µs) device is not in the list "c 1:9"`,
		}, { // the kernel refuses it, with an errno that it knows
			event{Container: "web", PID: 7, Syscall: "mknodat", Outcome: "denied", Reason: "profile does not name the kind"},
			`13:04:05.123456 web[7]        mknodat → ?      (denied, 0s) profile does not name the kind`,
		}, {
			event{Container: "web", PID: 7, Syscall: "mknod", Outcome: "continued", TookSeconds: 1.5},
			`13:04:05.123456 web[7]        mknod   → ?      (continued, 1.5s)`,
		}, {
			event{Container: "web", PID: 7, Syscall: "mknod", Outcome: "gone", TookSeconds: 29.98765},
			`13:04:05.123456 web[7]        mknod   → ?      (gone, 29.99s)`,
		}, {
			event{Container: "web", PID: 7, Syscall: "mknod", Outcome: "failed", Errno: "EPERM", Error: "panic: x\ngoroutine 1"},
			`13:04:05.123456 web[7]        mknod   → EPERM  (failed, 0s) error "panic: x\ngoroutine 1"`,
		},
		{event{Lost: 17}, `--- 17 calls are missing: they were read too slowly ---`},
		{ // nothing leaves its place, whatever it is
			event{
				Container: "\x1b[2J", PID: 7, Syscall: "\r", Outcome: "\x07", Errno: "\n",
				Reason: "\u009b2J", Detail: "\x1b]0;x\x07 \u202eabc \xff 日本", Error: "\x7f",
			},
			`13:04:05.123456 "\x1b[2J"[7]  "\r"    → "\n"   ("\a", 0s) "\u009b2J" "\x1b]0;x\a \u202eabc \xff 日本" error "\x7f"`,
		}, { // what looks like a line is none
			event{Container: "web[1] mknod → ok", PID: 7, Syscall: "mknod", Outcome: "answered"},
			`13:04:05.123456 "web[1] mknod → ok"[7] mknod   → ok     (answered, 0s)`,
		}, {
			event{Outcome: "answered"},
			`13:04:05.123456 ""[0]                  ""      → ok     (answered, 0s)`,
		}, { // 64 fit
			event{Container: strings.Repeat("é", 65), PID: 7, Syscall: "mknod", Outcome: "answered"},
			`13:04:05.123456 ` + strings.Repeat("é", 63) + `…[7] mknod   → ok     (answered, 0s)`,
		},
	} {
		test.e.Time = at
		got := table.line(&test.e)
		if got != test.want {
			t.Errorf("line is\n%s\nwant\n%s", got, test.want)
		}
		for _, r := range got {
			if !strconv.IsPrint(r) {
				t.Errorf("%q is in the line %q", r, got)
			}
		}
	}
}

// fakeControl answers as an agent does; stop ends it.
func fakeControl(t *testing.T, events http.HandlerFunc) (path string, stop func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "control.sock")
	l, err := net.Listen("unix", path)
	must(t, err)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/events", events)
	mux.HandleFunc("GET /v1/containers", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, `[{"id":"web"}]`)
	})
	server := http.Server{Handler: mux}
	go server.Serve(l)
	stop = func() { server.Close() }
	t.Cleanup(stop)
	return path, stop
}

func TestTrace(t *testing.T) {
	const (
		first  = `{"time":"2025-03-01T12:04:05.1Z","container":"web","pid":7,"notif":1,"syscall":"mknod","outcome":"answered","tookSeconds":0.001,"new":[1]}` + "\n"
		second = `{"time":"2025-03-01T12:04:05.2Z","container":"web","pid":7,"notif":2,"syscall":"mknod","outcome":"denied","detail":"\u001b[2J"}` + "\n"
	)
	asked := make(chan string, 1)
	path, _ := fakeControl(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.RawQuery
		fmt.Fprint(w, first+`{"lost":3}`+"\n"+second+`{"time":`)
	})
	ended := "callgate: agent at " + path + " has ended\n"
	for name, test := range map[string]struct {
		args           []string
		out, err, asks string
	}{
		"text": {nil, "05.100000 web[7] mknod → ok (answered, 1ms)\n" +
			"--- 3 calls are missing: they were read too slowly ---\n" +
			"05.200000 web[7] mknod → ?  (denied, 0s) \"\\x1b[2J\"\n", ended, ""},
		"json":      {[]string{"--json"}, first + `{"lost":3}` + "\n" + second, ended, ""},
		"container": {[]string{"--json", "web"}, first + `{"lost":3}` + "\n" + second, ended, "container=web"},
		"absent": {[]string{"--json", "a&b\x1b"}, first + `{"lost":3}` + "\n" + second,
			`callgate: no container "a&b\x1b" is served yet: waiting for it` + "\n" + ended, "container=a%26b%1B"},
	} {
		t.Run(name, func(t *testing.T) {
			r := callgateRan(t, append([]string{"trace", "--control", path}, test.args...)...)
			// The zone is the machine's.
			out := regexp.MustCompile(`(?m)^\d\d:\d\d:`).ReplaceAllString(r.out, "")
			if r.status != 1 || r.err != test.err || out != test.out {
				t.Errorf("status %d, stderr:\n%s\nstdout:\n%s\nwant\n%s", r.status, r.err, out, test.out)
			}
			if asks := <-asked; asks != test.asks {
				t.Errorf("asked for %q, want %q", asks, test.asks)
			}
		})
	}
}

func TestTraceRefused(t *testing.T) {
	path, _ := fakeControl(t, func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "too many subscribers", http.StatusServiceUnavailable)
	})
	callgateRan(t, "trace", "--control", path).fails(t, "ask the agent at "+path, "503", "too many subscribers")
	nowhere := filepath.Join(t.TempDir(), "control.sock")
	callgateRan(t, "trace", "--control", nowhere).fails(t, "ask the agent at "+nowhere, "no such file or directory")
	callgateRan(t, "trace", "a", "b").fails(t, "accepts at most 1 arg(s), received 2")
}

// TestTraceBadLine: an agent that speaks otherwise is not shown as if it did.
func TestTraceBadLine(t *testing.T) {
	path, _ := fakeControl(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{\"pid\":\"x\"}\n") })
	callgateRan(t, "trace", "--control", path).fails(t, "read event: ")
}

// lockedBuffer takes what a command says while a test looks at it.
type lockedBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// TestTraceAgent: with an agent that is one.
func TestTraceAgent(t *testing.T) {
	r := startAgent(t)
	begin := func(args ...string) (wait func() error, signal func(os.Signal), stderr *lockedBuffer) {
		cmd := callgate(t, append([]string{"trace", "--control", r.control}, args...)...)
		stderr = new(lockedBuffer)
		cmd.Stderr = stderr
		must(t, cmd.Start())
		return cmd.Wait, func(sig os.Signal) { must(t, cmd.Process.Signal(sig)) }, stderr
	}
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		wait, signal, stderr := begin("later")
		const note = "callgate: no container \"later\" is served yet: waiting for it\n"
		eventually(t, "note", func() bool { return stderr.String() == note })
		signal(sig)
		if err := wait(); err != nil || stderr.String() != note {
			t.Errorf("%v: %v, stderr:\n%s", sig, err, stderr)
		}
	}
	wait, _, stderr := begin("later")
	eventually(t, "note", func() bool { return stderr.String() != "" })
	r.stop(t, syscall.SIGTERM)
	if err := wait(); err == nil || err.Error() != "exit status 1" || !strings.HasSuffix(stderr.String(), "\ncallgate: agent at "+r.control+" has ended\n") {
		t.Errorf("the agent ended: %v, stderr:\n%s", err, stderr)
	}
}

// TestTraceCall: from a call to its line.
func TestTraceCall(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	log := logrus.New()
	log.SetOutput(io.Discard)
	control := filepath.Join(t.TempDir(), "control.sock")
	a := agent.New(agent.Config{Socket: agent.None, Control: control, ConfigText: "profiles: {default: {mknod: {allow: []}}}", Log: log})
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- a.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-served)
	})
	child := notifytest.Start(t, notifytest.Options{})
	must(t, a.Register(t.Context(), agent.Registration{Listener: child.Listener, ID: "c", PID: child.PID}))
	cmd := callgate(t, "trace", "--control", control)
	var out lockedBuffer
	cmd.Stdout = &out
	must(t, cmd.Start())
	path := child.String(t, filepath.Join(t.TempDir(), "node"))
	dirfd := unix.AT_FDCWD
	eventually(t, "a line", func() bool { // it does not say when it begins
		child.Go(t, unix.SYS_MKNODAT, uint64(dirfd), path, unix.S_IFCHR|0o600, unix.Mkdev(1, 3))
		if _, errno := child.Result(t); errno != unix.EPERM {
			t.Fatalf("the call gave %v", errno)
		}
		return out.String() != ""
	})
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	must(t, cmd.Wait())
	line, _, _ := strings.Cut(out.String(), "\n")
	want := fmt.Sprintf(`^\d\d:\d\d:\d\d\.\d{6} c\[%d\] mknodat → EPERM \(denied, [0-9.]+(µs|ms)\) .`, child.TID)
	if !regexp.MustCompile(want).MatchString(line) {
		t.Errorf("line is %q, want %s", line, want)
	}
}

func TestTraceHelp(t *testing.T) {
	if out := callgateRan(t, "--help").fine(t); !strings.Contains(out, "\n  trace ") {
		t.Errorf("help does not list trace:\n%s", out)
	}
}
