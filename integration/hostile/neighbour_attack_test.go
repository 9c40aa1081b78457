package hostile

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// latency is what an honest container measures, in microseconds.
type latency struct {
	calls         int
	p50, p99, max float64
}

// neighbours measures in as many containers as there are reactors, so that
// one of them shares the attacker's.
func (s *stage) neighbours() (worst latency) {
	s.t.Helper()
	for range 2 {
		out, _ := s.run("lat", "1", "0")
		line, _ := after(out, "LAT ")
		var l latency
		if _, err := fmt.Sscan(line, &l.calls, &l.p50, &l.p99, &l.max); err != nil {
			s.t.Fatalf("%v: %q", err, out)
		}
		if l.p50 > worst.p50 {
			worst.p50 = l.p50
		}
		if l.p99 > worst.p99 {
			worst.p99 = l.p99
		}
		worst.max = max(worst.max, l.max)
		worst.calls = l.calls
	}
	return worst
}

// TestNeighbour: whatever makes a container's own calls slow or endless,
// another container's median call stays below a millisecond (an attacker may
// use its own share of the two CPUs) and none of its calls waits for long.
func TestNeighbour(t *testing.T) {
	for _, attack := range [][]string{
		{"groups", "2"},           // 65,536 supplementary groups
		{"flush", "2", "-1"},      // dirfd: a FUSE file whose flush is never answered
		{"flush", "2", "15000"},   // … or after 15 ms
		{"fusemem", "2", "-1"},    // the path is in memory that FUSE never serves
		{"fusemem", "2", "15000"}, // … or serves after 15 ms
		{"fusepath", "2"},         // the path leads into FUSE
	} {
		t.Run(strings.Join(attack, " "), func(t *testing.T) {
			abortsFuse(t)
			s := newStage(t)
			quiet := s.neighbours()
			out := s.start(s.container(attack...))
			time.Sleep(300 * time.Millisecond)
			text, _ := os.ReadFile(out.Name())
			if why, skip := after(string(text), "SKIP "); skip {
				t.Skip(why)
			}
			loud := s.neighbours()
			t.Logf("alone: %+v; beside it: %+v", quiet, loud)
			if loud.p50 > 1000 {
				t.Errorf("median of the neighbour's calls: %.0f µs, alone %.0f µs", loud.p50, quiet.p50)
			}
			// Reading 65,536 groups is CPU that the container's own calls take,
			// on threads of its own share: of two CPUs the neighbour gets less.
			if loud.p99 > 10_000 && attack[0] != "groups" {
				t.Errorf("one in a hundred of the neighbour's calls: %.0f µs, alone %.0f µs", loud.p99, quiet.p99)
			}
			if n := s.unkillable(); n > 0 && attack[0] == "flush" {
				t.Errorf("%d threads of the agent wait for the container's FUSE and cannot be killed", n)
			}
			if loud.max > 500_000 {
				t.Errorf("slowest of the neighbour's calls: %.0f µs", loud.max)
			}
		})
	}
}

// abortsFuse ends, after the stage, what FUSE connections the attack left: a
// process of its own that waits for itself cannot be killed otherwise. What
// had to wait for that in the agent is a failure of the stage's.
func abortsFuse(t *testing.T) {
	t.Helper()
	before := fuseConnections(t, nil)
	t.Cleanup(func() { fuseConnections(t, before) })
	go func() {
		// The stage's end may itself wait for them.
		<-t.Context().Done()
		time.Sleep(5 * time.Second)
		fuseConnections(t, before)
	}()
}

// fuseConnections lists the connections and aborts those not in keep, unless
// that is nil.
func fuseConnections(t *testing.T, keep []string) []string {
	dir, err := os.MkdirTemp(shared.dir, "fusectl-") //nolint:usetesting // the container has to get there
	if err != nil {
		return nil
	}
	defer os.Remove(dir)
	if unix.Mount("none", dir, "fusectl", 0, "") != nil {
		return nil
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	found, _ := filepath.Glob(filepath.Join(dir, "*", "abort"))
	names := []string{}
	for _, path := range found {
		name := filepath.Base(filepath.Dir(path))
		names = append(names, name)
		if keep != nil && !slices.Contains(keep, name) {
			_ = os.WriteFile(path, []byte("1"), 0)
		}
	}
	return names
}

// unkillable counts the agent's threads that wait for a FUSE server's answer
// to a flush: SIGKILL does not end that (fuse_flush of fs/fuse/file.c).
func (s *stage) unkillable() (n int) {
	s.t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", s.agent.PID()))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, task := range tasks {
		wchan, _ := os.ReadFile(task + "/wchan")
		if strings.Contains(string(wchan), "request_wait_answer") {
			n++
		}
	}
	return n
}
