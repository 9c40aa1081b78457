// Package integration starts real runtimes against a real agent, runs the
// probe inside their containers, and compares with what the kernel does for
// the host's root. README.md says how to run it and how to add to it.
package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/callgate/callgate/integration/internal/agent"
	"github.com/callgate/callgate/integration/internal/engine"
	"github.com/callgate/callgate/integration/internal/need"
	"github.com/callgate/callgate/integration/internal/probe"
)

// config is what every stage's agent runs with, unless a test has its own.
const config = `
allowUids: [0]
profiles:
  default:
    mknod:
      allow: ["c 1:3", "c 1:5", "c 1:7", "c 1:8", "c 1:9", "c 5:0", "c 5:1", "c 5:2", "c 0:0", "c 10:200", "b 7:*"]
  narrow:
    mknod:
      allow: ["c 1:3"]
  none: {}
select:
  - {metadata: "narrow", profile: narrow}
  - {metadata: "none", profile: none}
  - {annotation: "callgate.profile=narrow", profile: narrow}
`

// patience is how long one container may take before the test gives up on it.
const patience = 90 * time.Second

// shared is what is built once: the programs and the directory they are in.
var shared struct {
	dir      string
	probes   func() (probe.Binaries, error)
	callgate func() (string, error)
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if err := need.OwnMounts(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := makeDir()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	shared.dir = dir
	shared.probes = sync.OnceValues(func() (probe.Binaries, error) { return probe.Build("probe", dir) })
	shared.callgate = sync.OnceValues(func() (string, error) { return agent.Build("..", dir, raceFlag) })
	return m.Run()
}

// makeDir makes a directory that a container's root may pass through, which
// testing.T.TempDir does not.
func makeDir() (string, error) {
	dir, err := os.MkdirTemp("", "callgate-test-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o711)
}

// stage is one agent and the containers of one test.
type stage struct {
	t      *testing.T
	dir    string
	probes probe.Binaries
	agent  *agent.Agent // nil for a stage without one
}

// newStage starts an agent with the given configuration.
func newStage(t *testing.T, config string) *stage {
	t.Helper()
	s := newBareStage(t)
	program, err := shared.callgate()
	if err != nil {
		t.Fatal(err)
	}
	s.agent = agent.Start(t, program, s.dir, config)
	return s
}

// newBareStage has no agent. At its end it checks that the host is as it was.
func newBareStage(t *testing.T) *stage {
	t.Helper()
	need.Root(t)
	need.Program(t, "gcc", "busybox", "unshare")
	probes, err := shared.probes()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := makeDir()
	if err != nil {
		t.Fatal(err)
	}
	before := hostState(t)
	t.Cleanup(func() {
		if after := hostState(t); after != before {
			t.Errorf("the host has changed:\n%s\nbefore:\n%s", after, before)
		}
		// Not os.RemoveAll first: what is still mounted there must not be emptied.
		if strings.Contains(before, dir) || strings.Contains(hostState(t), dir) {
			t.Errorf("something is still mounted below %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return &stage{t: t, dir: dir, probes: probes}
}

// hostState is what no container may change: the mounts, and the device nodes
// that might be bound into containers.
func hostState(t *testing.T) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	state := string(mounts)
	for _, name := range []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/tty", "/dev/net/tun"} {
		var st syscall.Stat_t
		if err := syscall.Stat(name, &st); err == nil {
			state += fmt.Sprintf("%s %o %d:%d\n", name, st.Mode, st.Uid, st.Gid)
		}
	}
	return state
}

// setting is one point of the matrix that the tests go through.
type setting struct {
	engine          string
	userNamespace   bool
	noNewPrivileges bool
	dir             string // where the probe works; "" for /work, on the root filesystem
	program         string // "" for the 64-bit probe
}

func (v setting) String() string {
	name := v.engine
	if v.userNamespace {
		name += ",userns"
	}
	if v.noNewPrivileges {
		name += ",nnp"
	}
	if v.dir != "" {
		name += "," + strings.ReplaceAll(v.dir, "/", "_")
	}
	if v.program != "" {
		name += "," + v.program
	}
	return name
}

func (v setting) workDir() string {
	if v.dir == "" {
		return "/work"
	}
	return v.dir
}

func (v setting) probeProgram() string {
	if v.program == "" {
		return "/bin/probe"
	}
	return "/bin/" + v.program
}

var containers atomic.Int64

// container describes a container of this setting, with a root filesystem of
// its own and the agent's seccomp profile.
func (s *stage) container(v setting, args ...string) engine.Container {
	s.t.Helper()
	id := fmt.Sprintf("callgate-test-%d-%d", os.Getpid(), containers.Add(1))
	rootfs := filepath.Join(s.dir, "rootfs-"+id)
	if err := engine.MakeRootfs(rootfs, v.userNamespace, s.probes.Native, s.probes.I386); err != nil {
		s.t.Fatal(err)
	}
	return engine.Container{
		ID: id, Rootfs: rootfs, Args: args,
		UserNamespace: v.userNamespace, NoNewPrivileges: v.noNewPrivileges,
		Seccomp: s.seccomp(v.engine),
	}
}

// seccomp is what `callgate profile` prints, fit for the engine; nil without
// an agent.
func (s *stage) seccomp(engineName string) *specs.LinuxSeccomp {
	s.t.Helper()
	if s.agent == nil {
		return nil
	}
	var flags []string
	if engineName == "crun" { // runc 1.1, podman's here too, rejects any flag
		flags = append(flags, "--wait-killable")
	}
	seccomp, err := s.agent.Profile(flags...)
	if err != nil {
		s.t.Fatal(err)
	}
	return seccomp
}

// engine returns the named engine, or skips.
func (s *stage) engine(name string) engine.Engine {
	s.t.Helper()
	if name == "podman" {
		need.Program(s.t, "podman", "runc")
		return engine.NewPodman(s.dir)
	}
	return s.runtime(name)
}

// runtime returns runc or crun, or skips.
func (s *stage) runtime(name string) *engine.Runtime {
	s.t.Helper()
	need.Program(s.t, name)
	if name == "runc" {
		return engine.NewRunc(s.dir)
	}
	crun, err := engine.NewCrun(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	return crun
}

// run runs scenarios in a container and returns the probe's results.
func (s *stage) run(v setting, scenarios string) []probe.Result {
	s.t.Helper()
	c := s.container(v, v.probeProgram(), "run", scenarios, v.workDir())
	return s.runContainer(v, c)
}

// runContainer runs a container whose process is the probe.
func (s *stage) runContainer(v setting, c engine.Container) []probe.Result {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := s.engine(v.engine).Run(ctx, c)
	return s.parse(out, err)
}

func (s *stage) parse(out []byte, err error) []probe.Result {
	s.t.Helper()
	results, parseErr := probe.Parse(out)
	if err := errors.Join(err, parseErr); err != nil {
		s.t.Fatalf("%v\n%s", err, out)
	}
	for _, r := range results {
		if r.Time && r.Calls > 0 {
			s.t.Logf("%s: %d, %.1f µs each", r.Key(), r.Calls, float64(r.NS)/float64(r.Calls)/1000)
		}
	}
	return results
}

// start creates and starts a container that is deleted when the test ends.
func (s *stage) start(r *engine.Runtime, c engine.Container) {
	s.t.Helper()
	s.create(r, c)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.Start(ctx, c.ID); err != nil {
		s.t.Fatal(err)
	}
}

// create creates a container that is deleted when the test ends.
func (s *stage) create(r *engine.Runtime, c engine.Container) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s.t.Cleanup(func() {
		if err := r.Delete(c.ID); err != nil {
			s.t.Error(err)
		}
	})
	if err := r.Create(ctx, c, nil); err != nil {
		s.t.Fatal(err)
	}
}

// exec runs scenarios in a running container.
func (s *stage) exec(r *engine.Runtime, c engine.Container, scenarios, dir string) []probe.Result {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := r.Exec(ctx, c, "/bin/probe", "run", scenarios, dir)
	return s.parse(out, err)
}

// holds is what the agent holds now.
func (s *stage) holds() agent.Holds {
	s.t.Helper()
	h, err := s.agent.Holds()
	if err != nil {
		s.t.Fatal(err)
	}
	return h
}
