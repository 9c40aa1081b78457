package agent

import (
	"context"
	"io"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

func TestMain(m *testing.M) { notifytest.Main(m) }

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

const patience = 8 * time.Second

func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<18)
			tb.Fatalf("%s: not within %v\n%s", what, patience, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// emulator is a function that is one.
type emulator func(ctx context.Context, req *emulators.Request) (emulators.Response, error)

func (f emulator) Emulate(ctx context.Context, req *emulators.Request) (emulators.Response, error) {
	return f(ctx, req)
}

// answer is the policy of the tests' kind: mknodat returns a number.
type answer struct {
	Value int64 `yaml:"value"`
}

func kinds() []emulators.Kind {
	return []emulators.Kind{{
		Name:     "test",
		Syscalls: []string{"mknodat"},
		New: func(p emulators.Policy) (emulators.Emulator, error) {
			var a answer
			if err := p.Decode(&a); err != nil {
				return nil, err
			}
			return emulator(func(context.Context, *emulators.Request) (emulators.Response, error) {
				return emulators.Return(a.Value), nil
			}), nil
		},
	}}
}

const testConfig = `
profiles:
  default: {test: {value: 1}}
  builder: {test: {value: 2}}
select:
  - {metadata: builder, profile: builder}
  - {annotation: "who=builder", profile: builder}
`

func quiet() *logrus.Logger {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return log
}

// testAgentConfig is an agent's with sockets of the test's own.
func testAgentConfig(t *testing.T) Config {
	t.Helper()
	dir := t.TempDir()
	return Config{
		Socket: filepath.Join(dir, "agent.sock"), Control: filepath.Join(dir, "control.sock"),
		ConfigText: testConfig, Kinds: kinds(), Log: quiet(),
	}
}

// serve runs an agent until the test ends; stop ends it earlier.
func serve(t *testing.T, cfg Config) (a *Agent, stop func()) {
	t.Helper()
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	a = New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- a.Serve(ctx) }()
	select {
	case <-a.Ready():
	case err := <-served:
		cancel()
		t.Fatal("serve:", err)
	}
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		select {
		case err := <-served:
			if err != nil {
				t.Error("serve:", err)
			}
		case <-time.After(patience):
			t.Error("the agent does not end")
		}
	}
	t.Cleanup(stop)
	return a, stop
}

// want has the child make its call.
func want(t *testing.T, child *notifytest.Child, value int64) {
	t.Helper()
	child.Go(t, unix.SYS_MKNODAT)
	if r, errno := child.Result(t); r != value || errno != 0 {
		t.Errorf("the call gave %d, %v; want %d", r, errno, value)
	}
}

// closed says whether a descriptor is.
func closed(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == unix.EBADF
}
