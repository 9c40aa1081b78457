package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a subject as the bench sees it.
type process struct {
	cmd  *exec.Cmd
	conn int
}

// confined says whose namespaces a subject has.
type confined int

const (
	asRoot      confined = iota // the bench's
	inMounts                    // a mount namespace of its own
	inContainer                 // a user namespace of its own, too
)

// containerRoot is who the containers' root is outside.
const containerRoot = 100000

func start(ctx context.Context, t task, where confined) (*process, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "subject")
	cmd := exec.CommandContext(ctx, "/proc/self/exe", subjectName)
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1") // signals are no part of what is measured
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if where == inMounts {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNS
	}
	if where == inContainer {
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: containerRoot, Size: 65536}}
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS
		cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = ids, ids
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true}
	}
	err = cmd.Start()
	_ = theirs.Close()
	if err != nil {
		_ = unix.Close(fds[0])
		return nil, err
	}
	p := &process{cmd: cmd, conn: fds[0]}
	return p, p.send(t)
}

func (p *process) send(message any) error { return sendTo(p.conn, message, nil) }

func sendTo(conn int, message any, rights []byte) error {
	text, err := json.Marshal(message)
	if err != nil {
		return err
	}
	return os.NewSyscallError("sendmsg", unix.Sendmsg(conn, text, rights, nil, unix.MSG_NOSIGNAL))
}

// listener takes the next listener that the subject hands over.
func (p *process) listener() (int, error) {
	var buf [64]byte
	oob := make([]byte, unix.CmsgSpace(4))
	_, oobn, _, _, err := unix.Recvmsg(p.conn, buf[:], oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("recvmsg", err)
	}
	parts, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(parts) != 1 {
		return -1, fmt.Errorf("subject ended: %w", errors.Join(err, p.cmd.Wait()))
	}
	fds, err := unix.ParseUnixRights(&parts[0])
	if err != nil {
		return -1, err
	}
	return fds[0], nil
}

// result lets the subject begin and waits for its times.
func (p *process) result() ([]time.Duration, error) {
	if err := p.begin(); err != nil {
		return nil, err
	}
	return p.collect()
}

func (p *process) begin() error { return p.send(struct{}{}) }

// turn has a subject that waits for it make one call.
func (p *process) turn() error {
	if err := p.send(struct{}{}); err != nil {
		return err
	}
	if err := receive(p.conn, &struct{}{}); err != nil {
		return fmt.Errorf("subject ended early: %w", errors.Join(err, p.cmd.Wait()))
	}
	return nil
}

func (p *process) collect() ([]time.Duration, error) {
	text, err := io.ReadAll(bufio.NewReaderSize(packets(p.conn), 64<<10))
	if err != nil {
		return nil, err
	}
	var times []time.Duration
	if err := json.Unmarshal(text, &times); err != nil {
		return nil, fmt.Errorf("subject ended early: %w", errors.Join(err, p.cmd.Wait()))
	}
	return times, p.end()
}

func (p *process) end() error {
	_ = unix.Close(p.conn)
	return p.cmd.Wait()
}

// packets reads a sequenced-packet socket; a packet has to fit into the buffer.
type packets int

func (p packets) Read(b []byte) (int, error) {
	n, err := unix.Read(int(p), b)
	if n == 0 && err == nil {
		return 0, io.EOF
	}
	return max(n, 0), err
}
