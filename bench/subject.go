package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// subjectName is the argument that makes this program a subject: a process
// that makes calls and takes the time.
const subjectName = "subject"

// trivial is the call that nothing is to be done for: it takes no pointers
// and no program here makes it.
const trivial = unix.SYS_SCHED_GET_PRIORITY_MAX

// task is what a subject is to do.
type task struct {
	Call   string  // "trivial", "mknod", "mount", "mount-loop", "private" or "idle"
	Root   string  // root directory, as a container has one; "" for the host's
	Path   string  // of the node or the mount, in there
	Source string  // of the mount
	Flags  uintptr // of the mount
	Tmpfs  string  // where to mount one first; ""
	Below  int     // how many more to mount in there
	Filter kind
	Plain  bool // have no signal handlers, as a program in C has none
	Calls  int
	Batch  int  // how often to make each, for calls too short to be timed alone; 0: once
	Turns  bool // wait before each and say when it is done
	Idle   int  // listeners to hand over, for "idle"
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
	if err := prepare(t); err != nil {
		return err
	}
	if err := t.Filter.load(conn); err != nil {
		return err
	}
	if err := receive(conn, &struct{}{}); err != nil {
		return err
	}
	times, err := repeat(t, conn)
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

// prepare makes the subject's surroundings.
func prepare(t task) error {
	if t.Root != "" {
		if err := errors.Join(unix.Chroot(t.Root), unix.Chdir("/")); err != nil {
			return fmt.Errorf("enter %s: %w", t.Root, err)
		}
	}
	if t.Tmpfs != "" {
		if err := mountTmpfs(t.Tmpfs, t.Below); err != nil {
			return fmt.Errorf("mount tmpfs: %w", err)
		}
	}
	if t.Plain {
		return dropHandlers()
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

// idle hands over listeners, each of a thread that waits for the end.
func idle(conn, n int) error {
	var send sync.Mutex
	ready := make(chan error)
	for range n {
		go func() {
			runtime.LockOSThread()
			send.Lock()
			err := filterTrap.load(conn)
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
func repeat(t task, conn int) ([]time.Duration, error) {
	do, undo, err := t.calls()
	if err != nil {
		return nil, err
	}
	times := make([]time.Duration, t.Calls)
	batch := max(t.Batch, 1)
	for i := range times {
		if t.Turns {
			if err := receive(conn, &struct{}{}); err != nil {
				return nil, err
			}
		}
		var err error
		before := time.Now()
		for range batch {
			err = do()
		}
		times[i] = time.Since(before) / time.Duration(batch)
		if err == nil {
			err = undo()
		}
		if err != nil {
			return nil, fmt.Errorf("call %d: %s: %w", i, t.Call, err)
		}
		if t.Turns {
			if err := sendTo(conn, struct{}{}, nil); err != nil {
				return nil, err
			}
		}
	}
	return times, nil
}

// calls gives the call, and what takes its effect back.
func (t *task) calls() (do, undo func() error, err error) {
	path, err := unix.BytePtrFromString(t.Path)
	if err != nil {
		return nil, nil, err
	}
	source, err := unix.BytePtrFromString(t.Source)
	if err != nil {
		return nil, nil, err
	}
	nothing := func() error { return nil }
	unmount := func() error { return os.NewSyscallError("umount2", unix.Unmount(t.Path, 0)) }
	switch t.Call {
	case "trivial":
		return func() error {
			_, _, errno := unix.RawSyscall(trivial, 0, 0, 0)
			return verdict(errno)
		}, nothing, nil
	case "mknod":
		bound := t.Tmpfs != "" && filepath.Dir(t.Path) == t.Tmpfs
		return func() error { return verdict(mknod(path)) }, func() error { return remove(t.Path, bound) }, nil
	case "mount":
		return func() error { return verdict(mount(source, path, ext4, t.Flags)) }, unmount, nil
	case "mount-loop":
		return func() error { return mountLoop(t.Source, path, t.Flags) }, unmount, nil
	case "private":
		return func() error { return verdict(mount(source, path, nil, t.Flags)) }, nothing, nil
	}
	return nil, nil, fmt.Errorf("no such call: %q", t.Call)
}

// verdict is nil for 0, which an error made of it is not.
func verdict(errno syscall.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

func remove(path string, bound bool) error {
	if bound {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return os.NewSyscallError("umount2", err)
		}
	}
	return os.NewSyscallError("unlink", unix.Unlink(path))
}
