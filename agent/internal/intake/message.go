package intake

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/agent/internal/unixsock"
	"github.com/callgate/callgate/pkg/seccompnotify"
)

const (
	// maxFDs is SCM_MAX_FD: more cannot come with one message, and the
	// specification has them all come with the first.
	maxFDs = 253
	// maxID bounds what is logged and kept of a container's name.
	maxID = 1024
	// maxPID is PID_MAX_LIMIT of linux/threads.h. A larger number would name
	// another process once it is cut to a pid_t.
	maxPID = 4 << 20
	// rest is how long a message may take once it has begun.
	restTime = 10 * time.Second
)

var errSilent = errors.New("connection ended without a byte")

// message is the reading end of one registration: bytes up to a limit, and
// whatever descriptors came along.
type message struct {
	conn  *net.UnixConn
	left  int
	begun bool
	fds   []int
	oob   []byte
}

// Read is for the JSON decoder.
func (m *message) Read(p []byte) (int, error) {
	if m.left <= 0 {
		return 0, errors.New("message is too large")
	}
	n, oobn, flags, _, err := m.conn.ReadMsgUnix(p[:min(len(p), m.left)], m.oob)
	if oobn > 0 {
		if taken := m.take(m.oob[:oobn]); taken != nil {
			return 0, taken
		}
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return 0, errors.New("more descriptors came than fit, or than may be open")
	}
	switch {
	case errors.Is(err, io.EOF): // within an error of package net's
		return 0, io.EOF
	case errors.Is(err, os.ErrDeadlineExceeded):
		return 0, fmt.Errorf("message has not ended %v after it began", restTime)
	case err != nil:
		return 0, unixsock.Plain(err)
	case n == 0:
		return 0, io.EOF
	}
	if !m.begun {
		m.begun = true
		if err := m.conn.SetReadDeadline(time.Now().Add(restTime)); err != nil {
			return 0, err
		}
	}
	m.left -= n
	return n, nil
}

// take collects every descriptor before anything is judged; net has them
// received with MSG_CMSG_CLOEXEC.
func (m *message) take(oob []byte) error {
	parts, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return fmt.Errorf("parse control message: %w", err)
	}
	first := !m.begun
	for i := range parts {
		fds, err := unix.ParseUnixRights(&parts[i])
		if err != nil {
			continue // no descriptors: credentials
		}
		m.fds = append(m.fds, fds...)
	}
	if !first && len(parts) > 0 {
		return errors.New("descriptors came after the first part of the message")
	}
	return nil
}

// closeAll closes what was not kept.
func (m *message) closeAll() {
	for _, fd := range m.fds {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// read reads a registration: one JSON value, however many pieces it comes in.
func read(conn *net.UnixConn, limit int) (Registration, error) {
	m := &message{conn: conn, left: limit, oob: make([]byte, unix.CmsgSpace(maxFDs*4))}
	defer m.closeAll()
	var state specs.ContainerProcessState
	if err := json.NewDecoder(m).Decode(&state); err != nil {
		if !m.begun {
			return Registration{}, errSilent
		}
		return Registration{}, fmt.Errorf("read container process state: %w", err)
	}
	if err := validate(&state); err != nil {
		return Registration{}, fmt.Errorf("container process state: %w", err)
	}
	l, err := m.listener(state.Fds)
	if err != nil {
		return Registration{}, fmt.Errorf("container %q: %w", state.State.ID, err)
	}
	return Registration{Listener: l, State: state}, nil
}

func validate(state *specs.ContainerProcessState) error {
	switch id := state.State.ID; {
	case id == "":
		return errors.New("state.id is missing")
	case len(id) > maxID:
		return fmt.Errorf("state.id has %d bytes, at most %d are allowed", len(id), maxID)
	}
	for _, pid := range []int{state.Pid, state.State.Pid} {
		if pid < 0 || pid > maxPID {
			return fmt.Errorf("pid %d is none", pid)
		}
	}
	return nil
}

// listener finds the descriptor that is named seccompFd, exactly once.
func (m *message) listener(names []string) (*seccompnotify.Listener, error) {
	at := slices.Index(names, specs.SeccompFdName)
	switch {
	case at < 0:
		return nil, fmt.Errorf("fds names no %q", specs.SeccompFdName)
	case slices.Contains(names[at+1:], specs.SeccompFdName):
		return nil, fmt.Errorf("fds names %q twice", specs.SeccompFdName)
	case len(names) != len(m.fds):
		return nil, fmt.Errorf("fds names %d descriptors, %d came", len(names), len(m.fds))
	}
	fd := m.fds[at]
	m.fds[at] = -1
	return seccompnotify.NewListener(fd)
}
