package hostile

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/callgate/callgate/integration/internal/engine"
)

// TestInside runs the attacks that need nobody but the container itself.
func TestInside(t *testing.T) {
	for _, args := range [][]string{
		{"symlink", "3", "/unmapped"},       // a component is exchanged for a link to where the caller may not write
		{"symlink", "3", "/proc/1/root/.."}, // … to a magic link
		{"memrace", "3"},                    // the path changes while it is read
		{"nested"},                          // all capabilities, in a user namespace of its own
		{"dots"},                            // chroot and ".."
		{"killed", "4"},                     // killed in the middle, again and again
		{"storm"},                           // 32 threads × 200 calls, each twice
		{"stopped", "3"},                    // SIGSTOP in the middle, again and again
		{"numbers"},                         // x32, i386, high halves of arguments
	} {
		name := args[0]
		if len(args) > 2 {
			name += filepath.Base(args[2])
		}
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.run("storm") // what the agent keeps after a first container
			before, err := s.agent.Holds()
			if err != nil {
				t.Fatal(err)
			}
			out, c := s.run(args...)
			t.Log(out)
			s.none(filepath.Join(c.Rootfs, "unmapped"))
			s.none(c.Rootfs)
			s.none(filepath.Dir(c.Rootfs))
			s.agent.AwaitNoMoreThan(t, before)
		})
	}
}

// TestLeakedDirectory: a descriptor of a host directory that everybody may
// write to comes into the container as its standard output.
func TestLeakedDirectory(t *testing.T) {
	s := newStage(t)
	leaked, err := os.MkdirTemp(s.dir, "leaked-") //nolint:usetesting // the container has to get there
	if err != nil {
		t.Fatal(err)
	}
	sub := filepath.Join(leaked, "sub")
	for _, dir := range []string{leaked, sub} {
		_ = os.Mkdir(dir, 0o777)
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, engine.HostID, engine.HostID); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := os.Open(leaked)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if log := s.leak(dir); !strings.Contains(log, "on no mount of the caller's mount namespace") {
		t.Errorf("nothing was denied:\n%s", log)
	}
	s.none(leaked)
	s.none(sub)
	s.none(s.dir)
}

// leak runs the attack with dir as the descriptor that runc passes on as the
// container's standard output.
func (s *stage) leak(dir *os.File) string {
	s.t.Helper()
	c := s.container("leak", "1")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s.t.Cleanup(func() { _ = s.runtime.Delete(c.ID) })
	if err := s.runtime.Create(ctx, c, dir); err != nil {
		s.t.Fatal(err)
	}
	if err := s.runtime.Start(ctx, c.ID); err != nil {
		s.t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	return s.agent.Log()
}
