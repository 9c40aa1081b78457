package dispatch

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/seccompnotify"
)

// session is one listener being served.
type session struct {
	id        int32
	listener  *seccompnotify.Listener
	container *Container
	reactor   *reactor
	released  func() // told once the listener is closed

	// refs is 1 for as long as the listener lives, and 1 for each call in
	// flight: the listener is closed when nobody can answer through it.
	refs atomic.Int32
}

func (s *session) hold() { s.refs.Add(1) }

func (s *session) unhold() {
	if s.refs.Add(-1) > 0 {
		return
	}
	s.container.drop(s)
	if s.released != nil {
		s.released()
	}
}

// watch sets what its reactor hears of: calls, or only its end.
func (s *session) watch(op int, calls bool) error {
	ev := unix.EpollEvent{Fd: s.id}
	if calls {
		ev.Events = unix.EPOLLIN
	}
	return unix.EpollCtl(s.reactor.epoll, op, s.listener.FD(), &ev)
}
