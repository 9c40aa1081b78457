package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// plan is what callgate run tells the container's first process.
type plan struct {
	Command []string
	Filter  []unix.SockFilter
}

// report is what it answers; an empty one is good news.
type report struct {
	Error string
}

// peer is one end of the conversation: packets of JSON, each with a descriptor
// or without.
type peer struct{ fd int }

// maxPacket holds a filter of BPF_MAXINSNS as JSON, several times over.
const maxPacket = 1 << 20

func channel() (*peer, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return &peer{fds[0]}, os.NewFile(uintptr(fds[1]), "container"), nil
}

func (p *peer) close() { _ = unix.Close(p.fd) }

// send sends a message; fd -1 is none.
func (p *peer) send(message any, fd int) error {
	text, err := json.Marshal(message)
	if err != nil {
		return err
	}
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	return os.NewSyscallError("sendmsg", unix.Sendmsg(p.fd, text, rights, nil, unix.MSG_NOSIGNAL))
}

// receive waits for a message and returns its descriptor, or -1.
func (p *peer) receive(message any) (int, error) {
	text := make([]byte, maxPacket)
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, flags, _, err := unix.Recvmsg(p.fd, text, oob, unix.MSG_CMSG_CLOEXEC)
	for err == unix.EINTR {
		n, oobn, flags, _, err = unix.Recvmsg(p.fd, text, oob, unix.MSG_CMSG_CLOEXEC)
	}
	if err != nil {
		return -1, os.NewSyscallError("recvmsg", err)
	}
	if n == 0 {
		return -1, io.ErrUnexpectedEOF
	}
	fd, err := descriptor(oob[:oobn])
	if err == nil && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = errors.New("message was cut")
	}
	if err == nil {
		err = json.Unmarshal(text[:n], message)
	}
	if err != nil {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		return -1, fmt.Errorf("read message: %w", err)
	}
	return fd, nil
}

func descriptor(oob []byte) (int, error) {
	parts, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(parts) == 0 {
		return -1, err
	}
	fds, err := unix.ParseUnixRights(&parts[0])
	if err != nil || len(fds) == 0 {
		return -1, err
	}
	return fds[0], nil
}
