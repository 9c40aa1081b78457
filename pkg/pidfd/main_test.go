//go:build linux

package pidfd

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain fails when a test leaves a descriptor behind. It is also the child
// process that the tests look at.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		childMain()
	}
	before := descriptors()
	code := m.Run()
	for fd, target := range descriptors() {
		if before[fd] != target {
			fmt.Fprintf(os.Stderr, "leaked descriptor %s: %s\n", fd, target)
			code = 1
		}
	}
	os.Exit(code)
}

func descriptors() map[string]string {
	// Go's poller has descriptors of its own, made with the first pipe.
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	open := make(map[string]string)
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	for _, e := range entries {
		// Gone: that of ReadDir itself.
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			open[e.Name()] = target
		}
	}
	return open
}

const (
	childEnv = "CALLGATE_PIDFD_TEST_CHILD"

	// Descriptors of the child.
	childFile     = 200 // reads "process"; in the thread's own table "thread"
	childPipe     = 201 // a pipe, blocking
	childNonblock = 202 // a pipe, O_NONBLOCK
	childNone     = 203 // not open

	// Credentials of the child's thread, all different.
	threadRUID, threadEUID, threadSUID, threadFSUID = 1001, 1002, 1003, 1004
	threadRGID, threadEGID, threadSGID, threadFSGID = 2001, 2002, 2003, 2004
)

// child is a process with a thread, not the leader, that differs from it in
// descriptor table, credentials and UTS namespace.
type child struct {
	cmd      *exec.Cmd
	stdin    io.WriteCloser
	stdout   *bufio.Reader
	pid, tid int
}

func startChild(tb testing.TB) *child {
	tb.Helper()
	c := &child{cmd: exec.Command("/proc/self/exe")}
	c.cmd.Env = append(os.Environ(), childEnv+"=1")
	c.cmd.Stderr = os.Stderr
	stdin, err := c.cmd.StdinPipe()
	must(tb, err)
	stdout, err := c.cmd.StdoutPipe()
	must(tb, err)
	must(tb, c.cmd.Start())
	tb.Cleanup(c.reap)
	c.stdin, c.stdout = stdin, bufio.NewReader(stdout)
	_, err = fmt.Fscanf(c.stdout, "%d %d\n", &c.pid, &c.tid)
	must(tb, err)
	return c
}

// reap ends the child and takes its zombie away.
func (c *child) reap() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

// zombify ends the child and leaves the zombie.
func (c *child) zombify(tb testing.TB, f *FD) {
	tb.Helper()
	must(tb, c.cmd.Process.Kill())
	must(tb, f.Wait(tb.Context()))
}

func (c *child) exitThread(tb testing.TB) {
	tb.Helper()
	_, err := io.WriteString(c.stdin, "exit\n")
	must(tb, err)
}

func childMain() {
	installMemfd("process")
	var pipe [2]int
	check(unix.Pipe2(pipe[:], 0))
	check(unix.Dup2(pipe[0], childPipe))
	check(unix.Pipe2(pipe[:], unix.O_NONBLOCK))
	check(unix.Dup2(pipe[0], childNonblock))

	tid, exit := make(chan int), make(chan struct{})
	go childThread(tid, exit)
	fmt.Println(os.Getpid(), <-tid)

	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			os.Exit(0)
		}
		if strings.TrimSpace(line) == "exit" {
			close(exit)
		}
	}
}

// childThread never unlocks its thread, so that it ends with the goroutine.
func childThread(tid chan<- int, exit <-chan struct{}) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		go childThread(tid, exit)
		select {} // keeps the leader from being chosen again
	}
	check(unix.Unshare(unix.CLONE_FILES | unix.CLONE_NEWUTS))
	installMemfd("thread")
	// Keep the capabilities, or the fsuid cannot be set after the others.
	const secbitNoSetuidFixup = 1 << 2
	check(unix.Prctl(unix.PR_SET_SECUREBITS, secbitNoSetuidFixup, 0, 0, 0))
	setThreadIDs(unix.SYS_SETRESGID, threadRGID, threadEGID, threadSGID)
	setThreadIDs(unix.SYS_SETFSGID, threadFSGID, 0, 0)
	setThreadIDs(unix.SYS_SETRESUID, threadRUID, threadEUID, threadSUID)
	setThreadIDs(unix.SYS_SETFSUID, threadFSUID, 0, 0)
	tid <- unix.Gettid()
	<-exit
}

// setThreadIDs does what the wrappers of package syscall would do to all
// threads.
func setThreadIDs(nr, a, b, c uintptr) {
	if _, _, errno := unix.RawSyscall(nr, a, b, c); errno != 0 {
		check(errno)
	}
}

func installMemfd(text string) {
	fd, err := unix.MemfdCreate(text, 0)
	check(err)
	_, err = unix.Write(fd, []byte(text))
	check(err)
	check(unix.Dup2(fd, childFile))
	check(unix.Close(fd))
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
