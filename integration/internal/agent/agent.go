// Package agent builds callgate, runs its agent as a process of its own, and
// looks at what it holds.
package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Binary is the environment variable that names a built callgate to test
// instead of building one.
const Binary = "CALLGATE_TEST_BINARY"

// Build builds ../cmd/callgate of the module at root into dir, with the race
// detector when race is "-race", and returns the program's path.
func Build(root, dir, race string) (string, error) {
	if path := os.Getenv(Binary); path != "" {
		return path, nil
	}
	out := filepath.Join(dir, "callgate")
	args := []string{"build", "-o", out}
	if race != "" {
		args = append(args, race)
	}
	cmd := exec.Command("go", append(args, "./cmd/callgate")...)
	cmd.Dir = root
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build callgate: %w\n%s", err, text)
	}
	return out, nil
}

// Agent is a running `callgate agent`.
type Agent struct {
	Socket  string // the listenerPath
	Control string
	Config  string

	program string
	cmd     *exec.Cmd
	logPath string
	ended   chan struct{}
	waitErr error
}

// Start runs the agent with the given configuration and waits until it
// accepts. When the test ends it is stopped, and must then exit 0; its log is
// shown if the test failed.
func Start(t testing.TB, program, dir, config string) *Agent {
	t.Helper()
	a := &Agent{
		Socket: filepath.Join(dir, "agent.sock"), Control: filepath.Join(dir, "control.sock"),
		Config: filepath.Join(dir, "config.yaml"), program: program,
		logPath: filepath.Join(dir, "agent.log"), ended: make(chan struct{}),
	}
	if err := os.WriteFile(a.Config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(a.logPath)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	a.cmd = exec.Command(program, "agent", "--config", a.Config, "--socket", a.Socket,
		"--control", a.Control, "--log-level", "debug")
	a.cmd.Stdout, a.cmd.Stderr = log, log
	// A test binary that dies takes its agent along. The signal comes with the
	// end of the thread that forked, so that thread does nothing else.
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	a.cmd.Env = append(Environ(), "NOTIFY_SOCKET=")
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := a.cmd.Start()
		started <- err
		if err == nil {
			a.waitErr = a.cmd.Wait()
		}
		close(a.ended)
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.stop(t) })
	a.awaitSocket(t)
	return a
}

func (a *Agent) awaitSocket(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if conn, err := net.Dial("unix", a.Socket); err == nil {
			conn.Close()
			return
		}
		select {
		case <-a.ended:
			t.Fatalf("the agent ended: %v\n%s", a.waitErr, a.Log())
		default:
		}
	}
	t.Fatalf("the agent does not listen\n%s", a.Log())
}

func (a *Agent) stop(t testing.TB) {
	t.Helper()
	_ = a.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-a.ended:
	case <-time.After(10 * time.Second):
		t.Error("the agent does not end on SIGTERM")
		_ = a.cmd.Process.Signal(syscall.SIGQUIT) // for the goroutines' stacks
		select {
		case <-a.ended:
		case <-time.After(2 * time.Second):
			_ = a.cmd.Process.Kill()
			<-a.ended
		}
	}
	if a.waitErr != nil {
		t.Errorf("the agent's exit after SIGTERM: %v", a.waitErr)
	}
	if log := a.Log(); t.Failed() || strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic") {
		t.Errorf("the agent's log:\n%s", tail(log, 40000))
	}
}

func tail(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return "[…]\n" + s[len(s)-n:]
}

// Environ is the environment for a callgate with the race detector: its own
// exit status must show, and it need not wait a second for other threads'
// reports, as it would at every end.
func Environ() []string {
	return append(os.Environ(), "GORACE=exitcode=66 atexit_sleep_ms=50")
}

// PID is the agent's process.
func (a *Agent) PID() int { return a.cmd.Process.Pid }

// Log is what the agent has written so far.
func (a *Agent) Log() string {
	text, err := os.ReadFile(a.logPath)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Reload sends SIGHUP.
func (a *Agent) Reload() error { return a.cmd.Process.Signal(syscall.SIGHUP) }

// Profile asks callgate for the seccomp profile that leads to this agent.
func (a *Agent) Profile(flags ...string) (*specs.LinuxSeccomp, error) {
	args := append([]string{"profile", "--config", a.Config, "--socket", a.Socket, "--format", "oci"}, flags...)
	cmd := exec.Command(a.program, args...)
	cmd.Env = Environ()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("callgate profile: %w\n%s", err, &stderr)
	}
	seccomp := new(specs.LinuxSeccomp)
	if err := json.Unmarshal(out, seccomp); err != nil {
		return nil, fmt.Errorf("callgate profile: %w\n%s", err, out)
	}
	if seccomp.ListenerPath != a.Socket {
		return nil, fmt.Errorf("callgate profile: listenerPath is %q, not %q", seccomp.ListenerPath, a.Socket)
	}
	return seccomp, nil
}

// Get reads a path of the control socket.
func (a *Agent) Get(path string) (string, error) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", a.Control)
		},
	}}
	answer, err := client.Get("http://callgate" + path)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return "", err
	}
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("GET %s: %s: %s", path, answer.Status, body)
	}
	return string(body), nil
}

// Knows tells whether the agent lists the container.
func (a *Agent) Knows(id string) (bool, error) {
	body, err := a.Get("/v1/containers")
	return strings.Contains(body, id), err
}

// PS runs `callgate ps --json`.
func (a *Agent) PS() (string, error) {
	cmd := exec.Command(a.program, "ps", "--json", "--control", a.Control)
	cmd.Env = Environ()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("callgate ps: %w\n%s", err, out)
	}
	return string(out), nil
}

// Holds counts what a leak would make grow.
type Holds struct {
	Files, Listeners, Pidfds, Threads int
	names                             []string
}

// Holds looks into the agent's /proc directory.
func (a *Agent) Holds() (Holds, error) {
	proc := fmt.Sprintf("/proc/%d", a.PID())
	var h Holds
	files, err := os.ReadDir(proc + "/fd")
	if err != nil {
		return h, err
	}
	for _, f := range files {
		name, err := os.Readlink(proc + "/fd/" + f.Name())
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		h.Files++
		h.names = append(h.names, f.Name()+" → "+name)
		switch {
		case strings.Contains(name, "seccomp notify"):
			h.Listeners++
		case strings.Contains(name, "[pidfd]") || strings.HasPrefix(name, "pidfd:"):
			h.Pidfds++
		}
	}
	tasks, err := os.ReadDir(proc + "/task")
	h.Threads = len(tasks)
	return h, err
}

// threadSlack is how many idle threads the Go runtime may keep for itself
// from one look to the next.
const threadSlack = 3

// AwaitNoMoreThan waits up to a second until the agent holds no more than
// before, which is the time that a container's end may take to be noticed.
func (a *Agent) AwaitNoMoreThan(t testing.TB, before Holds) {
	t.Helper()
	var now Holds
	for deadline := time.Now().Add(time.Second); ; time.Sleep(10 * time.Millisecond) {
		var err error
		if now, err = a.Holds(); err != nil {
			t.Fatal(err)
		}
		if now.Files <= before.Files && now.Listeners <= before.Listeners &&
			now.Threads <= before.Threads+threadSlack {
			return
		}
		if time.Now().After(deadline) {
			break
		}
	}
	t.Errorf("the agent holds %d files, %d listeners, %d pidfds, %d threads; before it were %d, %d, %d, %d; now:\n%s",
		now.Files, now.Listeners, now.Pidfds, now.Threads,
		before.Files, before.Listeners, before.Pidfds, before.Threads, strings.Join(now.names, "\n"))
}
