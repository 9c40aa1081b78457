package hostile

import (
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestThief: a registering user keeps a copy of its listener and takes the
// calls before the agent does. RECV of a listener without a call sleeps; that
// must not be the end of a thread that others' calls wait for.
func TestThief(t *testing.T) {
	s := newStage(t)
	quiet := s.neighbours()
	for range 6 { // some for each reactor
		cmd := exec.Command(s.attack, "thief", s.agent.Socket)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
			_ = cmd.Wait()
		})
	}
	time.Sleep(time.Second)
	loud := s.neighbours()
	t.Logf("alone: %+v; beside it: %+v", quiet, loud)
	if loud.max > 500_000 {
		t.Errorf("slowest of the neighbour's calls: %.0f µs", loud.max)
	}
}

// TestConnectionFlood: connections that say nothing, half of something, or
// rubbish with descriptors, and a container that starts beside them.
func TestConnectionFlood(t *testing.T) {
	s := newStage(t)
	s.run("lat", "0", "0") // what the first container makes stays
	before, err := s.agent.Holds()
	if err != nil {
		t.Fatal(err)
	}
	var conns []*net.UnixConn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	var many []int
	for range 200 {
		many = append(many, int(null.Fd()))
	}
	for i := range 2000 {
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: s.agent.Socket, Net: "unix"})
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		switch i % 4 {
		case 0: // silent; below the limit of waiting ones
			if len(conns) < 200 {
				conns = append(conns, c)
				continue
			}
		case 1:
			_, _, _ = c.WriteMsgUnix([]byte(`{"fds":["seccompFd"],"pid":1,`), unix.UnixRights(many...), nil)
		case 2:
			_, _ = c.Write([]byte(`[[[[[[[[`))
		case 3:
			_, _, _ = c.WriteMsgUnix([]byte(`{"fds":["seccompFd"],"pid":1,"state":{"id":"x","pid":1}}`), unix.UnixRights(many[0]), nil)
		}
		c.Close()
	}
	s.run("storm")
	for _, c := range conns {
		c.Close()
	}
	before.Threads += 256 // the Go runtime keeps those that connections took
	s.agent.AwaitNoMoreThan(t, before)
}
