package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

// TestAgentFails: an agent that cannot start says why, and leaves nothing.
func TestAgentFails(t *testing.T) {
	notifytest.NeedRoot(t)
	plain := file(t, "plain", "")
	bad := file(t, "bad.yaml", "profiles:\n  default: 5\n")
	live := filepath.Join(t.TempDir(), "live.sock")
	l, err := net.Listen("unix", live)
	must(t, err)
	defer l.Close()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer tcp.Close()
	for name, test := range map[string]struct {
		flags []string
		want  []string
	}{
		"no config":           {[]string{"--config", "/nowhere/c.yaml"}, []string{"/nowhere/c.yaml", "no such file"}},
		"bad config":          {[]string{"--config", bad}, []string{bad + ":2:", "profiles.default"}},
		"socket in a file":    {[]string{"--socket", plain + "/s"}, []string{"agent socket", plain, "not a directory"}},
		"no socket":           {[]string{"--socket", plain}, []string{"agent socket", plain, "no socket"}},
		"socket in use":       {[]string{"--socket", live}, []string{"agent socket", live, "another process listens"}},
		"long socket":         {[]string{"--socket", "/tmp/" + strings.Repeat("x", 120)}, []string{"agent socket", "125 bytes", "107"}},
		"control in use":      {[]string{"--control", live}, []string{"control socket", live}},
		"control no socket":   {[]string{"--control", plain}, []string{"control socket", plain, "no socket"}},
		"one for both":        {[]string{"--control", "SOCKET"}, []string{"agent socket", "another process listens"}},
		"metrics, no port":    {[]string{"--metrics", "nonsense"}, []string{"metrics address", "nonsense", "missing port"}},
		"metrics in use":      {[]string{"--metrics", tcp.Addr().String()}, []string{"metrics address", tcp.Addr().String(), "in use"}},
		"metrics not allowed": {[]string{"--metrics", "192.0.2.1:1"}, []string{"metrics address", "192.0.2.1:1"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			args := []string{"agent", "--log-level", "error", "--socket", filepath.Join(dir, "a"), "--control", filepath.Join(dir, "c")}
			for _, f := range test.flags {
				args = append(args, strings.ReplaceAll(f, "SOCKET", filepath.Join(dir, "a")))
			}
			callgateRan(t, args...).fails(t, test.want...)
			if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// running is an agent that serves.
type running struct {
	cmd                     *exec.Cmd
	socket, control, config string

	mu  sync.Mutex // guards log
	log bytes.Buffer
}

// Write takes its log.
func (r *running) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(p)
}

func (r *running) says(what string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Contains(r.log.String(), what)
}

func startAgent(t *testing.T, flags ...string) *running {
	t.Helper()
	notifytest.NeedRoot(t)
	dir := t.TempDir()
	r := &running{socket: filepath.Join(dir, "deep", "agent.sock"), control: filepath.Join(dir, "control.sock"), config: filepath.Join(dir, "c.yaml")}
	must(t, os.WriteFile(r.config, []byte("profiles: {default: {}}\n"), 0o600))
	args := append([]string{"agent", "--config", r.config, "--socket", r.socket, "--control", r.control}, flags...)
	r.cmd = callgate(t, args...)
	r.cmd.Stderr = r
	must(t, r.cmd.Start())
	t.Cleanup(func() {
		if r.cmd.ProcessState == nil {
			_ = r.cmd.Process.Kill()
			_ = r.cmd.Wait()
		}
	})
	eventually(t, "the agent serves", func() bool { return r.says("agent serves") })
	return r
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

func (r *running) get(t *testing.T, path string) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", r.control)
		},
	}}
	resp, err := client.Get("http://callgate" + path)
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return string(body)
}

func (r *running) stop(t *testing.T, sig os.Signal) {
	t.Helper()
	must(t, r.cmd.Process.Signal(sig))
	if err := r.cmd.Wait(); err != nil {
		t.Errorf("the agent ended with %v\n%s", err, r.log.String())
	}
	for _, path := range []string{r.socket, r.control} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
}

func TestAgentStops(t *testing.T) {
	for name, sig := range map[string]os.Signal{"SIGTERM": syscall.SIGTERM, "SIGINT": syscall.SIGINT} {
		t.Run(name, func(t *testing.T) {
			r := startAgent(t)
			for _, path := range []string{r.socket, r.control} {
				st, err := os.Lstat(path)
				if err != nil || st.Mode() != os.ModeSocket|0o600 {
					t.Errorf("%s: %v, %v; want a socket of mode 0600", path, st.Mode(), err)
				}
			}
			r.stop(t, sig)
		})
	}
}

// TestAgentReplacesStale: the sockets of an agent that was killed are no
// obstacle to the next.
func TestAgentReplacesStale(t *testing.T) {
	r := startAgent(t)
	must(t, r.cmd.Process.Kill())
	_ = r.cmd.Wait()
	if _, err := os.Lstat(r.socket); err != nil {
		t.Fatal("no stale socket:", err)
	}
	again := callgate(t, r.cmd.Args[1:]...)
	next := &running{cmd: again, socket: r.socket, control: r.control}
	again.Stderr = next
	must(t, again.Start())
	eventually(t, "the agent serves", func() bool { return next.says("agent serves") })
	next.stop(t, unix.SIGTERM)
}

func TestAgentReload(t *testing.T) {
	r := startAgent(t, "--log-format", "json")
	must(t, os.WriteFile(r.config, []byte("profiles: 5\n"), 0o600))
	must(t, r.cmd.Process.Signal(syscall.SIGHUP))
	eventually(t, "refusal of the bad file", func() bool { return r.says("configuration is bad, the old one stays") })
	if !r.says(r.config + ":1:") {
		t.Error("the log does not say where the file is bad")
	}
	if got := r.get(t, "/healthz"); got != "ok\n" {
		t.Errorf("/healthz: %q", got)
	}
	must(t, os.WriteFile(r.config, []byte("profiles: {default: {mknod: {}}}\n"), 0o600))
	must(t, r.cmd.Process.Signal(syscall.SIGHUP))
	eventually(t, "the good file", func() bool { return r.says("configuration read again") })
	r.stop(t, syscall.SIGTERM)
	for line := range strings.Lines(r.log.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %s", line)
		}
	}
}

func TestPS(t *testing.T) {
	r := startAgent(t)
	if out := callgateRan(t, "ps", "--control", r.control).fine(t); !strings.HasPrefix(out, "CONTAINER ") || strings.Count(out, "\n") != 1 {
		t.Errorf("ps: %q", out)
	}
	if out := callgateRan(t, "ps", "--json", "--control", r.control).fine(t); out != "[]\n" {
		t.Errorf("ps --json: %q", out)
	}
	r.stop(t, syscall.SIGTERM)
}
