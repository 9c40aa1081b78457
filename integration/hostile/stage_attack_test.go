// Package hostile attacks the agent from inside real containers. Each test
// asserts that nothing was gained, nothing left behind and nobody else slowed.
package hostile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/callgate/callgate/integration/internal/agent"
	"github.com/callgate/callgate/integration/internal/engine"
	"github.com/callgate/callgate/integration/internal/need"
)

const config = `
allowUids: [0]
profiles:
  default:
    mknod:
      allow: ["c 1:3", "c 1:5", "c 10:229", "c 0:0"]
`

// patience is how long one container may take.
const patience = 30 * time.Second

var shared struct {
	dir      string
	attack   func() (string, error)
	callgate func() (string, error)
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if err := need.OwnMounts(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := os.MkdirTemp("", "callgate-hostile-")
	if err == nil {
		err = os.Chmod(dir, 0o711)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	shared.dir = dir
	shared.attack = sync.OnceValues(buildAttack)
	shared.callgate = sync.OnceValues(func() (string, error) { return agent.Build("../..", dir, "") })
	return m.Run()
}

func buildAttack() (string, error) {
	source, out := filepath.Join(shared.dir, "mount.c"), filepath.Join(shared.dir, "attack")
	for name, text := range map[string]string{"attack.c": program, "mount.c": mountProgram} {
		if err := os.WriteFile(filepath.Join(shared.dir, name), []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	text, err := exec.Command("gcc", "-std=gnu11", "-static", "-O1", "-pthread", "-o", out, source).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("compile mount.c: %w\n%s", err, text)
	}
	return out, nil
}

// stage is one agent and its containers.
type stage struct {
	t       *testing.T
	dir     string
	attack  string
	agent   *agent.Agent
	runtime *engine.Runtime
}

func newStage(t *testing.T) *stage {
	t.Helper()
	return newStageOf(t, config)
}

func newStageOf(t *testing.T, config string) *stage {
	t.Helper()
	need.Root(t)
	need.Program(t, "gcc", "busybox", "runc")
	attack, err := shared.attack()
	if err != nil {
		t.Fatal(err)
	}
	callgate, err := shared.callgate()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(shared.dir, "stage-") //nolint:usetesting // the container has to get there
	if err == nil {
		err = os.Chmod(dir, 0o711)
	}
	if err != nil {
		t.Fatal(err)
	}
	before := mounts(t)
	t.Cleanup(func() {
		if after := mounts(t); after != before {
			t.Errorf("the host's mounts have changed:\n%s\nbefore:\n%s", after, before)
		}
	})
	s := &stage{t: t, dir: dir, attack: attack, runtime: engine.NewRunc(dir)}
	s.agent = agent.Start(t, callgate, dir, config)
	return s
}

func mounts(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var containers atomic.Int64

// container describes a container with a user namespace whose process is the
// attack.
func (s *stage) container(args ...string) engine.Container {
	s.t.Helper()
	id := fmt.Sprintf("callgate-hostile-%d-%d", os.Getpid(), containers.Add(1))
	rootfs := filepath.Join(s.dir, "rootfs-"+id)
	err := engine.MakeRootfs(rootfs, true, s.attack)
	for _, dir := range []string{"mnt", "tmp", "work"} {
		path := filepath.Join(rootfs, dir)
		err = errors.Join(err, os.MkdirAll(path, 0o755), os.Chown(path, engine.HostID, engine.HostID), os.Chmod(path, 0o777))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	seccomp, err := s.agent.Profile()
	if err != nil {
		s.t.Fatal(err)
	}
	return engine.Container{
		ID: id, Rootfs: rootfs, Args: append([]string{"/bin/attack"}, args...),
		UserNamespace: true, Seccomp: seccomp,
	}
}

// run runs an attack in a container of its own to its end, and fails the test
// if it gained anything.
func (s *stage) run(args ...string) (string, engine.Container) {
	s.t.Helper()
	c := s.container(args...)
	return s.runContainer(c), c
}

func (s *stage) runContainer(c engine.Container) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := s.runtime.Run(ctx, c)
	s.judge(string(out), err)
	return string(out)
}

func (s *stage) judge(out string, err error) {
	s.t.Helper()
	if why, skip := after(out, "SKIP "); skip {
		s.t.Skip(why)
	}
	if err != nil || !strings.Contains(out, "DONE good") {
		s.t.Errorf("%v\n%s", err, out)
	}
}

func after(out, prefix string) (string, bool) {
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			return strings.TrimSpace(rest), true
		}
	}
	return "", false
}

// start starts a container that goes on until the test ends. What it prints
// is in the file returned.
func (s *stage) start(c engine.Container) *os.File {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := os.CreateTemp(s.dir, "out-")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := s.runtime.Delete(c.ID); err != nil {
			s.t.Error(err)
		}
		if s.t.Failed() {
			text, _ := os.ReadFile(out.Name())
			s.t.Logf("%s printed:\n%.2000s", c.ID, text)
		}
		out.Close()
	})
	if err := s.runtime.Create(ctx, c, out); err != nil {
		s.t.Fatal(err)
	}
	if err := s.runtime.Start(ctx, c.ID); err != nil {
		s.t.Fatal(err)
	}
	return out
}

// none asserts that a container's directory has no device in it.
func (s *stage) none(dir string) {
	s.t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		if e.Type()&os.ModeDevice != 0 {
			s.t.Errorf("%s was left in %s", e.Name(), dir)
		}
	}
}
