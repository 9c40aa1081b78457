// Package unixsock makes the agent's listening sockets.
package unixsock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrInUse says that a live process listens on the path.
var ErrInUse = errors.New("another process listens there")

// Listen makes a stream socket, mode 0600, and its folder if there is none. A
// socket that nobody listens on any more is replaced; anything else that is
// there is an error.
func Listen(path string) (*net.UnixListener, error) {
	if err := prepare(path); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	// The mode of a socket before bind(2) is that of its file: nobody can
	// connect in between.
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var mode error
		err := c.Control(func(fd uintptr) { mode = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, mode)
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, Plain(err))
	}
	return l.(*net.UnixListener), nil
}

// maxPath is the room in sun_path of struct sockaddr_un, less the NUL.
const maxPath = 107

// prepare removes a socket that nobody listens on.
func prepare(path string) error {
	switch {
	case path == "":
		return errors.New("no path")
	case path[0] == '@':
		return errors.New("an abstract socket has no mode: anybody could connect")
	case len(path) > maxPath:
		return fmt.Errorf("path has %d bytes, at most %d fit a socket's", len(path), maxPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	st, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return Plain(err)
	}
	if st.Mode().Type() != os.ModeSocket {
		return errors.New("something that is no socket is there")
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = conn.Close()
		return ErrInUse
	}
	if errors.Is(err, unix.EAGAIN) {
		return ErrInUse // and has more waiting than its backlog holds
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return Plain(err)
	}
	return Plain(os.Remove(path))
}

// Plain takes the path and the operation out of an error that gets its own.
func Plain(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
