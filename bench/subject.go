package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/hooks/filter"
)

// subjectName is the argument that makes this program a subject: a process
// that makes calls and takes the time.
const subjectName = "subject"

// trivial is the call that nothing is to be done for: it takes no pointers
// and no program here makes it.
const trivial = unix.SYS_SCHED_GET_PRIORITY_MAX

// task is what a subject is to do.
type task struct {
	Call  string // "trivial", "mknod" or "idle"
	Root  string // root directory, as a container has one; "" for the host's
	Path  string // of the node, in there
	Tmpfs string // where to mount one first; ""
	Trap  bool   // load a filter and hand over its listener
	Plain bool   // have no signal handlers, as a program in C has none
	Calls int
	Idle  int // listeners to hand over, for "idle"
}

// process is a subject as the bench sees it.
type process struct {
	cmd  *exec.Cmd
	conn int
}

// confined says whether a subject is in a user namespace of its own.
type confined bool

const (
	asRoot      confined = false
	inContainer confined = true
)

func start(t task, where confined) (*process, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "subject")
	cmd := exec.Command("/proc/self/exe", subjectName)
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1") // signals are no part of what is measured
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if where == inContainer {
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
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
	if err := p.send(struct{}{}); err != nil {
		return nil, err
	}
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

// subject is the child's main; its thread is locked.
func subject() error {
	const conn = 3
	unix.CloseOnExec(conn)
	var t task
	if err := receive(conn, &t); err != nil {
		return err
	}
	if t.Call == "idle" {
		return idle(conn, t.Idle)
	}
	if t.Root != "" {
		if err := errors.Join(unix.Chroot(t.Root), unix.Chdir("/")); err != nil {
			return fmt.Errorf("enter %s: %w", t.Root, err)
		}
	}
	if t.Tmpfs != "" {
		if err := unix.Mount("tmpfs", t.Tmpfs, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mount tmpfs: %w", err)
		}
	}
	if t.Plain {
		if err := dropHandlers(); err != nil {
			return err
		}
	}
	if t.Trap {
		if err := trap(conn); err != nil {
			return err
		}
	}
	if err := receive(conn, &struct{}{}); err != nil {
		return err
	}
	times, err := repeat(t)
	if err != nil {
		return err
	}
	text, err := json.Marshal(times)
	if err != nil {
		return err
	}
	for len(text) > 0 {
		n, err := unix.Write(conn, text[:min(len(text), 32<<10)])
		if err != nil {
			return os.NewSyscallError("write", err)
		}
		text = text[n:]
	}
	return nil
}

// dropHandlers takes away those that Go's runtime has for every signal: nothing
// here needs one, and the agent takes care of callers that have some.
func dropHandlers() error {
	var standard [4]uint64 // struct sigaction of the kernel, all SIG_DFL
	for sig := 1; sig <= 64; sig++ {
		if sig == int(unix.SIGKILL) || sig == int(unix.SIGSTOP) {
			continue
		}
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&standard)), 0, 8, 0, 0)
		if errno != 0 {
			return os.NewSyscallError("rt_sigaction", errno)
		}
	}
	return nil
}

func receive(conn int, into any) error {
	buf := make([]byte, 4096)
	n, err := unix.Read(conn, buf)
	if err != nil {
		return os.NewSyscallError("read", err)
	}
	return json.Unmarshal(buf[:n], into)
}

// trap loads a filter for the calls of this bench and hands its listener over.
func trap(conn int) error {
	jump := func(nr uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: skip, K: nr}
	}
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // nr
		jump(trivial, 2),
		jump(unix.SYS_MKNODAT, 1),
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	listener, err := filter.Load(program, 0)
	if err != nil {
		return err
	}
	err = sendTo(conn, struct{}{}, unix.UnixRights(listener))
	_ = unix.Close(listener)
	return err
}

// idle hands over listeners, each of a thread that waits for the end.
func idle(conn, n int) error {
	var send sync.Mutex
	ready := make(chan error)
	for range n {
		go func() {
			runtime.LockOSThread()
			send.Lock()
			err := trap(conn)
			send.Unlock()
			ready <- err
			// In the kernel: a goroutine that waits gives its thread away.
			for {
				_ = unix.Pause()
			}
		}()
	}
	for range n {
		if err := <-ready; err != nil {
			return err
		}
	}
	return ignoreEnd(receive(conn, &struct{}{}))
}

func ignoreEnd(error) error { return nil }

// repeat makes the calls and takes the time of each. What is around a call is
// not in its time.
func repeat(t task) ([]time.Duration, error) {
	times := make([]time.Duration, t.Calls)
	path, err := unix.BytePtrFromString(t.Path)
	if err != nil {
		return nil, err
	}
	bound := t.Tmpfs != "" && filepath.Dir(t.Path) == t.Tmpfs
	for i := range times {
		before := time.Now()
		var errno syscall.Errno
		if t.Call == "trivial" {
			_, _, errno = unix.RawSyscall(trivial, 0, 0, 0)
		} else {
			errno = mknod(path)
		}
		times[i] = time.Since(before)
		if errno != 0 {
			return nil, fmt.Errorf("call %d: %s: %w", i, t.Call, errno)
		}
		if t.Call != "trivial" {
			if err := remove(t.Path, bound); err != nil {
				return nil, err
			}
		}
	}
	return times, nil
}

func remove(path string, bound bool) error {
	if bound {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return os.NewSyscallError("umount2", err)
		}
	}
	return os.NewSyscallError("unlink", unix.Unlink(path))
}
