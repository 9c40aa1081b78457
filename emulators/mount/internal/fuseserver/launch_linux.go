package fuseserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/tracee"
)

// searchPath has our fusermount first.
const searchPath = launcherDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// launch starts the confinement. The result is our end of the conversation
// with callgate fuse-server; the caller closes it.
func (s *Server) launch(p *plan) (*channel, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "fuse-server")
	defer func() { _ = theirs.Close() }()
	ours, err := newChannel(fds[0])
	if err != nil {
		return nil, err
	}
	user, err := duplicate(p.User)
	if err != nil {
		ours.close()
		return nil, err
	}
	defer func() { _ = user.Close() }()
	s.cmd = &exec.Cmd{
		Path: launcherPath,
		Args: append(append([]string{}, p.Launcher...), append([]string{"--"}, p.argv...)...),
		// The variable is what cmd/callgate/fuseserver.c looks for.
		Env:        []string{"PATH=" + searchPath, "LANG=C", "_CALLGATE_FUSE=join"},
		Stdout:     s.output,
		Stderr:     s.output,
		ExtraFiles: []*os.File{theirs, user}, // 3 and 4
		// No Pdeathsig: containers keep their mounts when the agent goes.
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
		WaitDelay:   afterEnd,
	}
	if fd := s.cgroup.fd(); fd >= 0 {
		s.cmd.SysProcAttr.UseCgroupFD, s.cmd.SysProcAttr.CgroupFD = true, fd
	}
	// Once per process os finds out whether it can use pidfds, by forking. Not
	// in a pid namespace where that may fail.
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Release()
	}
	if err := elsewhere(func() error { return s.begin(p) }); err != nil {
		ours.close()
		return nil, err
	}
	return ours, nil
}

// elsewhere runs f on an OS thread that ends with it.
func elsewhere(f func() error) error {
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		failed <- f()
	}()
	return <-failed
}

// begin turns the calling thread into what the launcher shall be, and starts it.
func (s *Server) begin(p *plan) error {
	if err := enterRoot(p); err != nil {
		return fmt.Errorf("make root directory: %w", err)
	}
	for _, ns := range []struct {
		name   string
		handle *tracee.Handle
		flag   int
	}{
		{"network", p.Net, unix.CLONE_NEWNET},
		{"ipc", p.IPC, unix.CLONE_NEWIPC},
		{"uts", p.UTS, unix.CLONE_NEWUTS},
		// pid_namespaces(7): of the children; the one started now is the first.
		{"pid", p.PID, unix.CLONE_NEWPID},
	} {
		if ns.handle == nil {
			continue
		}
		if err := unix.Setns(ns.handle.FD(), ns.flag); err != nil {
			return fmt.Errorf("enter %s namespace: %w", ns.name, os.NewSyscallError("setns", err))
		}
	}
	return s.cmd.Start()
}

func duplicate(h *tracee.Handle) (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(h.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
	}
	return os.NewFile(uintptr(fd), "user namespace"), nil
}

// handshake gets the mount and waits until it is served.
func (s *Server) handshake(ctx context.Context, c *channel, readOnly bool) error {
	stop := context.AfterFunc(ctx, c.interrupt)
	defer stop()
	tree, err := c.receive()
	s.tree = tree
	if err == nil && tree.FD() < 0 {
		err = errors.New("no mount in message")
	}
	if err == nil {
		err = restrict(&s.tree, readOnly)
	}
	if err == nil {
		var none tracee.Handle
		none, err = c.receive()
		none.Close()
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func restrict(tree *tracee.Handle, readOnly bool) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if readOnly {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	return os.NewSyscallError("mount_setattr", unix.MountSetattr(tree.FD(), "", unix.AT_EMPTY_PATH, &attr))
}

// channel is the agent's end of the conversation with callgate fuse-server: one
// packet with the mount, one when it is served, or one with an error.
type channel struct{ file *os.File }

var errEnded = errors.New("ended")

// newChannel takes ownership of fd.
func newChannel(fd int) (*channel, error) {
	// Ours alone, so that it may be non-blocking.
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return &channel{os.NewFile(uintptr(fd), "fuse-server")}, nil
}

func (c *channel) close() { _ = c.file.Close() }

// interrupt makes receive return.
func (c *channel) interrupt() { _ = c.file.SetReadDeadline(time.Unix(1, 0)) }

// receive waits for a packet and gives the descriptor in it, if any.
func (c *channel) receive() (tracee.Handle, error) {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return tracee.Handle{}, err
	}
	text, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	var n, oobn int
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, oobn, _, _, failed = unix.Recvmsg(int(fd), text, oob, unix.MSG_CMSG_CLOEXEC)
			if failed != unix.EINTR {
				return failed != unix.EAGAIN
			}
		}
	})
	if err != nil {
		return tracee.Handle{}, err
	}
	if failed != nil {
		return tracee.Handle{}, os.NewSyscallError("recvmsg", failed)
	}
	if n == 0 {
		return tracee.Handle{}, errEnded
	}
	tree, err := descriptor(oob[:oobn])
	if err != nil {
		return tree, err
	}
	var report struct{ Error string } // cmd/callgate's
	if err := json.Unmarshal(text[:n], &report); err != nil {
		return tree, fmt.Errorf("read message: %w", err)
	}
	if report.Error != "" {
		return tree, errors.New(report.Error)
	}
	return tree, nil
}

func descriptor(oob []byte) (tracee.Handle, error) {
	parts, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(parts) == 0 {
		return tracee.Handle{}, err
	}
	// There is room for one only.
	fds, err := unix.ParseUnixRights(&parts[0])
	if err != nil || len(fds) == 0 {
		return tracee.Handle{}, err
	}
	return tracee.NewHandle(fds[0]), nil
}
