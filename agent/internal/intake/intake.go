// Package intake is the agent's front door: the UNIX socket on which OCI
// runtimes hand over seccomp listeners with the state of their container
// (config-linux.md of the runtime specification, "Container Process State").
//
// Each connection is read on a goroutine of its own, so that one which says
// nothing (crun with no_new_privs connects at create and sends at start) or
// half of something keeps nobody waiting. JSON is the framing: the message
// may come in many pieces, its descriptors with the first, and the end of the
// stream is not waited for, since some runtimes keep it open for as long as
// their container runs.
package intake

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/agent/internal/unixsock"
	"github.com/callgate/callgate/pkg/seccompnotify"
)

// Registration is what a runtime sent.
type Registration struct {
	Listener *seccompnotify.Listener
	State    specs.ContainerProcessState
	Peer     unix.Ucred // who connected
}

// Options are what a Server is made of.
type Options struct {
	// Allowed says whether a user may register.
	Allowed func(uid uint32) bool
	// Register takes ownership of the registration's listener, also when it
	// fails.
	Register func(Registration) error
	// Failed is told of connections that came to nothing, each with who it
	// was. It may be called concurrently.
	Failed func(peer unix.Ucred, err error)
	// MaxBytes bounds a message.
	MaxBytes int
	// MaxWaiting bounds a user's connections that have not registered yet.
	MaxWaiting int
}

// Server is one listening socket's.
type Server struct {
	o      Options
	socket *net.UnixListener

	mu      sync.Mutex // guards the rest
	waiting map[uint32]int
	conns   map[*net.UnixConn]struct{}
	closed  bool
	wg      sync.WaitGroup
}

// Listen makes the socket, mode 0600.
func Listen(path string, o Options) (*Server, error) {
	l, err := unixsock.Listen(path)
	if err != nil {
		return nil, err
	}
	return Serve(l, o), nil
}

// Serve takes ownership of a socket that listens and accepts from it.
func Serve(l *net.UnixListener, o Options) *Server {
	s := &Server{o: o, socket: l, waiting: make(map[uint32]int), conns: make(map[*net.UnixConn]struct{})}
	s.wg.Go(s.accept)
	return s
}

// Close stops accepting and ends the connections that have not registered.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		_ = c.Close() // its goroutine reports nothing once closed is set
	}
	s.mu.Unlock()
	_ = s.socket.Close()
	s.wg.Wait()
}

func (s *Server) accept() {
	for {
		conn, err := s.socket.AcceptUnix()
		if err != nil {
			if s.isClosed() {
				return
			}
			s.o.Failed(unix.Ucred{}, fmt.Errorf("accept: %w", unixsock.Plain(err)))
			// Out of descriptors, most likely: it passes, and a loop that
			// spins helps nobody.
			time.Sleep(100 * time.Millisecond)
			continue
		}
		s.wg.Go(func() { s.connection(conn) })
	}
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// connection reads one registration.
func (s *Server) connection(conn *net.UnixConn) {
	defer func() { _ = conn.Close() }() // we have read; there is nothing to lose
	peer, err := credentials(conn)
	if err == nil {
		err = s.admit(conn, peer.Uid)
	}
	if err != nil {
		s.failed(peer, err)
		return
	}
	defer s.leave(conn, peer.Uid)
	reg, err := read(conn, s.o.MaxBytes)
	if errors.Is(err, errSilent) {
		return // a runtime that gave up, or one that asked whether we are here
	}
	if err == nil {
		reg.Peer = peer
		err = s.o.Register(reg)
	}
	if err != nil {
		s.failed(peer, err)
	}
}

func (s *Server) failed(peer unix.Ucred, err error) {
	if !s.isClosed() {
		s.o.Failed(peer, err)
	}
}

func credentials(conn *net.UnixConn) (unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return unix.Ucred{}, err
	}
	var cred *unix.Ucred
	var inner error
	err = raw.Control(func(fd uintptr) {
		cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, inner); err != nil {
		return unix.Ucred{}, fmt.Errorf("identify peer: %w", err)
	}
	return *cred, nil
}

func (s *Server) admit(conn *net.UnixConn, uid uint32) error {
	if !s.o.Allowed(uid) {
		return fmt.Errorf("user %d may not register listeners", uid)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	if s.waiting[uid] >= s.o.MaxWaiting {
		return fmt.Errorf("user %d has %d connections waiting, which is the limit", uid, s.waiting[uid])
	}
	s.waiting[uid]++
	s.conns[conn] = struct{}{}
	return nil
}

func (s *Server) leave(conn *net.UnixConn, uid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[uid]--; s.waiting[uid] == 0 {
		delete(s.waiting, uid)
	}
	delete(s.conns, conn)
}
