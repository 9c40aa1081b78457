package hostile

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func sleep() { time.Sleep(20 * time.Millisecond) }

// await waits until a container has printed what is wanted.
func await(t *testing.T, out *os.File, want string) string {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); sleep() {
		text, _ := os.ReadFile(out.Name())
		if strings.Contains(string(text), want) {
			return string(text)
		}
	}
	t.Fatalf("no %q", want)
	return ""
}

// mountNeighbour measures the mounts of an honest container.
func (m *mountStage) mountNeighbour() (l latency) {
	m.t.Helper()
	out, _ := m.run("m-lat", "1")
	line, _ := after(out, "LAT ")
	if _, err := fmt.Sscan(line, &l.calls, &l.p50, &l.p99, &l.max); err != nil {
		m.t.Fatalf("%v: %q", err, out)
	}
	return l
}

// TestMountNeighbour: whatever makes a container's own mounts slow or endless,
// another's mknod stays quick and its mounts go on.
func TestMountNeighbour(t *testing.T) {
	s := newMountStage(t)
	quiet, mounts := s.neighbours(), s.mountNeighbour()
	for _, attack := range [][]string{
		{"m-storm", "50"}, // mounts as fast as they come
		{"m-mute", "50"},  // images that are never read
		{"m-abyss", "16"}, // source, target, type and options that are never read
	} {
		t.Run(attack[0], func(t *testing.T) {
			connections := fuseConnections(t, nil)
			s := &mountStage{stage: newStageOf(t, s.config()), disks: s.disks}
			s.run("m-lat", "0")
			before, err := s.agent.Holds()
			if err != nil {
				t.Fatal(err)
			}
			c, text := s.ready(attack...)
			t.Log(text)
			loud, loudMounts := s.neighbours(), s.mountNeighbour()
			t.Logf("mknod alone: %+v; beside it: %+v", quiet, loud)
			t.Logf("mount alone: %+v; beside it: %+v", mounts, loudMounts)
			if loud.p50 > 1000 {
				t.Errorf("median of the neighbour's mknod: %.0f µs, alone %.0f µs", loud.p50, quiet.p50)
			}
			if loud.max > 500_000 {
				t.Errorf("slowest of the neighbour's mknod: %.0f µs", loud.max)
			}
			if loudMounts.max > 2_000_000 {
				t.Errorf("slowest of the neighbour's mounts: %.0f µs, alone %.0f µs", loudMounts.max, mounts.max)
			}
			if err := s.runtime.Delete(c.ID); err != nil {
				t.Error(err)
			}
			for deadline := time.Now().Add(2 * time.Second); s.unkillable() > 0; sleep() {
				if time.Now().After(deadline) {
					t.Errorf("%d threads of the agent wait for the container's FUSE: %s", s.unkillable(), s.stacks())
					break
				}
			}
			fuseConnections(t, connections)
			awaitDetached(t, c.ID)
			before.Threads += 16 // that the Go runtime keeps
			s.agent.AwaitNoMoreThan(t, before)
		})
	}
}

// stacks shows the kernel's stacks of the agent's threads that wait for FUSE.
func (s *stage) stacks() (all string) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stack", s.agent.PID()))
	for _, task := range tasks {
		if text, _ := os.ReadFile(task); strings.Contains(string(text), "fuse") {
			all += string(text) + "\n"
		}
	}
	return all
}
