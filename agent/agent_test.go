package agent

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/callgate/callgate/agent/internal/unixsock"
	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

func TestDefaults(t *testing.T) {
	a := New(Config{})
	if a.cfg.Socket != "/run/callgate/agent.sock" || a.cfg.Control != "/run/callgate/control.sock" || a.cfg.Metrics != "" {
		t.Errorf("sockets: %+v", a.cfg)
	}
	if a.log != logrus.StandardLogger() {
		t.Error("another logger than the standard one")
	}
	if len(a.cfg.Kinds) != len(Kinds()) || a.cfg.Kinds[0].Name != "mknod" {
		t.Errorf("kinds: %+v", a.cfg.Kinds)
	}
	if n := a.reactors(); n < 2 || n > 8 {
		t.Errorf("%d reactors", n)
	}
	if n := New(Config{Reactors: 1}).reactors(); n != 1 {
		t.Errorf("%d reactors, want 1", n)
	}
	if list := a.Containers(); len(list) != 0 || list == nil {
		t.Errorf("containers before Serve: %#v", list)
	}
	select {
	case <-a.Ready():
		t.Error("ready before Serve")
	default:
	}
}

// TestDefaultConfiguration: without a file mknod is on, and nothing else.
func TestDefaultConfiguration(t *testing.T) {
	if _, err := os.Stat(DefaultConfig); err == nil {
		t.Skip("this host has a configuration")
	}
	on, err := ProfileKinds(Config{}, "")
	must(t, err)
	if len(on) != 1 || on[0] != "mknod" {
		t.Errorf("on are %v, want mknod", on)
	}
	if _, err := ProfileKinds(Config{}, "builder"); err == nil {
		t.Error("the default configuration has a profile builder")
	}
	// One that is named must be there.
	if _, err := ProfileKinds(Config{ConfigFile: "/nowhere.yaml"}, ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// TestServeFails: an agent that cannot start leaves nothing behind.
func TestServeFails(t *testing.T) {
	notifytest.NeedRoot(t)
	plain := filepath.Join(t.TempDir(), "plain")
	must(t, os.WriteFile(plain, nil, 0o600))
	live := filepath.Join(t.TempDir(), "live")
	l, err := net.Listen("unix", live)
	must(t, err)
	defer l.Close()
	for name, test := range map[string]struct {
		change func(*Config)
		is     error
		want   string
	}{
		"socket in use":  {func(c *Config) { c.Socket = live }, unixsock.ErrInUse, "agent socket: "},
		"socket is none": {func(c *Config) { c.Socket = plain }, nil, "agent socket: "},
		"socket nowhere": {func(c *Config) { c.Socket = plain + "/s" }, nil, "agent socket: "},
		"control in use": {func(c *Config) { c.Control = live }, unixsock.ErrInUse, "control socket: "},
		"control bad":    {func(c *Config) { c.Control = plain + "/s" }, nil, "control socket: "},
		"metrics bad":    {func(c *Config) { c.Metrics = "nonsense" }, nil, "metrics address: "},
		"config bad":     {func(c *Config) { c.ConfigText = "profiles: 5" }, nil, "configuration:1:"},
		"config missing": {func(c *Config) { c.ConfigText, c.ConfigFile = "", "/nowhere" }, os.ErrNotExist, "/nowhere"},
		"kinds overlap":  {func(c *Config) { c.Kinds = append(kinds(), kinds()...) }, nil, `two kinds are named "test"`},
	} {
		t.Run(name, func(t *testing.T) {
			notifytest.NoLeak(t)
			cfg := testAgentConfig(t)
			test.change(&cfg)
			before := runtime.NumGoroutine()
			a := New(cfg)
			err := a.Serve(context.Background())
			if err == nil || !strings.Contains(err.Error(), test.want) || test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("serve: %v, want %q, %v", err, test.want, test.is)
			}
			eventually(t, "end of its goroutines", func() bool { return runtime.NumGoroutine() <= before })
			for _, path := range []string{cfg.Socket, cfg.Control} {
				if path == live || strings.HasPrefix(path, plain) {
					continue
				}
				if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s is left: %v", path, err)
				}
			}
			// Nobody waits for an agent for ever.
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			fd := spare(t)
			if err := a.Register(ctx, Registration{Listener: fd}); !errors.Is(err, context.Canceled) {
				t.Errorf("register: %v", err)
			}
			if !closed(fd) {
				t.Error("the listener is still open")
			}
		})
	}
	conn, err := net.Dial("unix", live)
	if err != nil {
		t.Fatal("the socket that was in use is gone:", err)
	}
	conn.Close()
}

// spare is a descriptor that somebody else closes.
func spare(t *testing.T) int {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	defer w.Close()
	return dup(t, int(r.Fd()))
}

// TestServeEnds: sockets go with the agent, and what it holds.
func TestServeEnds(t *testing.T) {
	before := runtime.NumGoroutine()
	cfg := testAgentConfig(t)
	cfg.Metrics = "127.0.0.1:0"
	_, stop := serve(t, cfg)
	for _, path := range []string{cfg.Socket, cfg.Control} {
		conn, err := net.Dial("unix", path)
		must(t, err)
		defer conn.Close() // open, and in nobody's way
	}
	stop()
	for _, path := range []string{cfg.Socket, cfg.Control} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
	eventually(t, "end of its goroutines", func() bool { return runtime.NumGoroutine() <= before })
}
