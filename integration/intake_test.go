package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// state is a registration for the container of process pid.
func state(id string, pid int, fds ...string) specs.ContainerProcessState {
	return specs.ContainerProcessState{
		Version: "0.2.0", Fds: fds, Pid: pid,
		State: specs.State{Version: "0.2.0", ID: id, Status: specs.StateCreating, Pid: pid, Bundle: "/"},
	}
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (s *stage) dial(t *testing.T) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: s.agent.Socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// send sends data with descriptors, like a runtime with one sendmsg.
func send(t *testing.T, conn *net.UnixConn, data []byte, files ...*os.File) {
	t.Helper()
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if _, _, err := conn.WriteMsgUnix(data, rights, nil); err != nil {
		t.Fatal(err)
	}
}

// awaitClose fails unless the agent closes the connection soon.
func awaitClose(t *testing.T, conn *net.UnixConn) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(3 * time.Second))
	_, err := conn.Read(make([]byte, 1))
	if !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the agent does not close the connection: %v", err)
	}
}

// TestIntakeBad: what is no registration is closed, keeps nothing, and harms
// nobody.
func TestIntakeBad(t *testing.T) {
	s := newStage(t, config)
	pid := s.paused("bad")
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()

	tests := []struct {
		name  string
		send  func(*testing.T, *net.UnixConn)
		stays bool // the agent may go on waiting for more
	}{
		{"no bytes", func(t *testing.T, c *net.UnixConn) { must(t, c.CloseWrite()) }, false},
		{"garbage", func(t *testing.T, c *net.UnixConn) { send(t, c, []byte("}{ \x00\xff no JSON\n")) }, false},
		{"another type", func(t *testing.T, c *net.UnixConn) { send(t, c, []byte("[1, 2]\n")) }, false},
		{"half a state and the end", func(t *testing.T, c *net.UnixConn) {
			send(t, c, []byte(`{"ociVersion": "0.2.0", "fds": ["secc`), null)
			must(t, c.CloseWrite())
		}, false},
		{"no descriptor", func(t *testing.T, c *net.UnixConn) {
			send(t, c, marshal(t, state("bad", pid, "seccompFd")))
		}, false},
		{"wrong kind of descriptor", func(t *testing.T, c *net.UnixConn) {
			send(t, c, marshal(t, state("bad", pid, "seccompFd")), null)
		}, false},
		{"a socket for a descriptor", func(t *testing.T, c *net.UnixConn) {
			file, err := c.File()
			must(t, err)
			defer file.Close()
			send(t, c, marshal(t, state("bad", pid, "seccompFd")), file)
		}, false},
		{"no name for the descriptor", func(t *testing.T, c *net.UnixConn) {
			send(t, c, marshal(t, state("bad", pid)), newCaller(t).listener)
		}, false},
		{"another name", func(t *testing.T, c *net.UnixConn) {
			send(t, c, marshal(t, state("bad", pid, "other")), newCaller(t).listener)
		}, false},
		{"more names than descriptors", func(t *testing.T, c *net.UnixConn) {
			send(t, c, marshal(t, state("bad", pid, "other", "seccompFd")), newCaller(t).listener)
		}, false},
		{"two listeners", func(t *testing.T, c *net.UnixConn) {
			send(t, c, marshal(t, state("bad", pid, "seccompFd", "seccompFd")),
				newCaller(t).listener, newCaller(t).listener)
		}, false},
		{"two hundred descriptors", func(t *testing.T, c *net.UnixConn) {
			files := make([]*os.File, 200)
			for i := range files {
				files[i] = null
			}
			send(t, c, marshal(t, state("bad", pid, "seccompFd")), files...)
		}, false},
		{"no end", func(t *testing.T, c *net.UnixConn) {
			// Far above any limit; the agent closes, which the write notices.
			_ = c.SetWriteDeadline(time.Now().Add(10 * time.Second))
			space := bytes.Repeat([]byte(" "), 1<<20)
			_, err := c.Write([]byte(`{"ociVersion": "`))
			for i := 0; err == nil && i < 256; i++ {
				_, err = c.Write(space)
			}
			if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("256 MiB of state: %v", err)
			}
		}, false},
		{"deep nesting", func(t *testing.T, c *net.UnixConn) {
			_, _ = c.Write([]byte(`{"state": ` + strings.Repeat("[", 1<<20)))
			_ = c.CloseWrite()
		}, false},
	}
	before := s.holds()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			conn := s.dial(t)
			test.send(t, conn)
			awaitClose(t, conn)
			conn.Close()
			s.agent.AwaitNoMoreThan(t, before)
		})
	}
	v := setting{engine: "runc", userNamespace: true}
	compare(t, v, s.goldenNamed(v, "plain"), s.run(v, "plain"))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// paused starts a container without a filter and returns the pid of its init.
func (s *stage) paused(why string) int {
	s.t.Helper()
	r := s.runtime("runc")
	c := s.container(setting{engine: "runc", userNamespace: true}, "/bin/probe", "pause")
	c.ID += "-" + why
	c.Seccomp = nil
	s.start(r, c)
	pid, err := r.InitPID(s.t.Context(), c.ID)
	if err != nil {
		s.t.Fatal(err)
	}
	return pid
}

// TestIntakeGood: whatever way a state comes, its listener is served. The
// caller is not in the container that the state names, so the answer that
// shows it is EPERM; without a server it would be ENOSYS.
func TestIntakeGood(t *testing.T) {
	s := newStage(t, config)
	pid := s.paused("good")
	null, err := os.Open(os.DevNull)
	must(t, err)
	defer null.Close()

	large := state("large", pid, "seccompFd")
	large.State.Annotations = map[string]string{}
	for i := range 3000 {
		large.State.Annotations[fmt.Sprintf("key-%d", i)] = strings.Repeat("v", 100)
	}

	tests := []struct {
		name string
		send func(*testing.T, *net.UnixConn, *os.File)
		// Refusing the registration is right as well.
		mayRefuse bool
	}{
		{"one message", func(t *testing.T, c *net.UnixConn, l *os.File) {
			send(t, c, marshal(t, state("one", pid, "seccompFd")), l)
		}, false},
		{"300 KB in pieces", func(t *testing.T, c *net.UnixConn, l *os.File) {
			data := marshal(t, large)
			send(t, c, data[:1000], l)
			for piece := range slicesOf(data[1000:], 36544) {
				time.Sleep(2 * time.Millisecond)
				send(t, c, piece)
			}
		}, false},
		{"byte by byte", func(t *testing.T, c *net.UnixConn, l *os.File) {
			data := marshal(t, state("bytes", pid, "seccompFd"))
			send(t, c, data[:1], l)
			for piece := range slicesOf(data[1:], 1) {
				send(t, c, piece)
			}
		}, false},
		{"listener second", func(t *testing.T, c *net.UnixConn, l *os.File) {
			send(t, c, marshal(t, state("second", pid, "other", "seccompFd")), null, l)
		}, false},
		{"listener first", func(t *testing.T, c *net.UnixConn, l *os.File) {
			send(t, c, marshal(t, state("first", pid, "seccompFd", "other")), l, null)
		}, false},
		{"pretty-printed with unknown fields", func(t *testing.T, c *net.UnixConn, l *os.File) {
			text := fmt.Sprintf("{\n  \"ociVersion\": \"0.2.0\", \"later\": {\"a\": [1]},\n  \"fds\": [\"seccompFd\"],\n"+
				"  \"pid\": %d, \"state\": {\"id\": \"pretty\", \"pid\": %d, \"x\": null}\n}\n", pid, pid)
			send(t, c, []byte(text), l)
		}, false},
		{"no pid, as crun's exec", func(t *testing.T, c *net.UnixConn, l *os.File) {
			send(t, c, marshal(t, state("nopid", 0, "seccompFd")), l)
		}, true},
	}
	before := s.holds()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newCaller(t)
			conn := s.dial(t)
			test.send(t, conn, c.listener)
			// The connection stays open, as with a foreground crun run.
			err := c.result(t)
			if !errors.Is(err, unix.EPERM) && !(test.mayRefuse && errors.Is(err, unix.ENOSYS)) {
				t.Errorf("a call from outside the container: %v, want EPERM", err)
			}
			conn.Close()
			s.agent.AwaitNoMoreThan(t, before)
		})
	}
}

func slicesOf(data []byte, n int) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(data) > 0 {
			piece := data[:min(n, len(data))]
			data = data[len(piece):]
			if !yield(piece) {
				return
			}
		}
	}
}

// TestIntakeWaiting: connections that say nothing cost nobody anything.
func TestIntakeWaiting(t *testing.T) {
	s := newStage(t, config)
	for range 8 {
		s.dial(t)
	}
	partial := s.dial(t)
	send(t, partial, []byte(`{"ociVersion": `))
	v := setting{engine: "runc", userNamespace: true}
	began := time.Now()
	compare(t, v, s.goldenNamed(v, "plain"), s.run(v, "plain"))
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("beside waiting connections it took %v", took)
	}
}

// TestIntakePeer: the socket is root's, and who gets past its mode is refused
// by its credentials.
func TestIntakePeer(t *testing.T) {
	s := newStage(t, config)
	pid := s.paused("peer")
	info, err := os.Stat(s.agent.Socket)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the agent's socket has mode %v, want 0600", info.Mode())
	}
	if info, err := os.Stat(s.agent.Control); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("the control socket: %v, %v; want it closed to others", info, err)
	}
	if conn, err := dialAs(1000, s.agent.Socket); err == nil {
		conn.Close()
		t.Error("uid 1000 may connect")
	}
	must(t, os.Chmod(s.agent.Socket, 0o666))
	before := s.holds()
	conn, err := dialAs(1000, s.agent.Socket)
	must(t, err)
	defer conn.Close()
	c := newCaller(t)
	data := marshal(t, state("peer", pid, "seccompFd"))
	// The agent may have closed already.
	_, _, _ = conn.WriteMsgUnix(data, unix.UnixRights(int(c.listener.Fd())), nil)
	awaitClose(t, conn)
	if err := c.result(t); !errors.Is(err, unix.ENOSYS) {
		t.Errorf("a call behind a refused registration: %v, want ENOSYS", err)
	}
	conn.Close()
	s.agent.AwaitNoMoreThan(t, before)
}
