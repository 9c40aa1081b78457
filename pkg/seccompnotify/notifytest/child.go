// Package notifytest gives tests a real stopped caller: a child process, the
// test binary itself, one of whose threads has a seccomp filter with a
// listener and makes whatever system calls the test asks for.
package notifytest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Options of a child. The zero value is a child whose calling thread is not
// its leader and whose filter has no flags.
type Options struct {
	Flags  uintptr // SECCOMP_FILTER_FLAG_*; NEW_LISTENER is added
	Leader bool    // the calling thread is the thread group's leader
	Attr   *syscall.SysProcAttr
}

// Notified are the calls that a child's filter stops.
func Notified() []uintptr { return []uintptr{unix.SYS_MKNODAT, unix.SYS_ACCT} }

// Child is the process and its calling thread.
type Child struct {
	PID, TID int
	// Listener is the filter's listener. Whoever wants it takes it over; the
	// child has no copy.
	Listener int
	// Arena is the address of ArenaSize bytes of the child's memory. A page
	// that is not accessible follows, and one that is not mapped.
	Arena uint64

	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// ArenaSize is four pages.
const ArenaSize = 4 * 4096

// Start starts a child, which is killed and reaped when the test ends.
func Start(tb testing.TB, o Options) *Child {
	tb.Helper()
	c := &Child{cmd: exec.Command("/proc/self/exe")}
	c.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", childEnv, o.Flags))
	if o.Leader {
		c.cmd.Env = append(c.cmd.Env, leaderEnv+"=1")
	}
	c.cmd.Stderr = os.Stderr
	c.cmd.SysProcAttr = o.Attr
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		tb.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		tb.Fatal("start child:", err)
	}
	tb.Cleanup(c.Kill)
	c.out = bufio.NewReader(out)
	c.PID = c.cmd.Process.Pid
	var pid, fd int
	if _, err := fmt.Fscanf(c.out, "%d %d %d %d\n", &pid, &c.TID, &fd, &c.Arena); err != nil {
		tb.Fatal("read child's greeting:", err)
	}
	if pid != c.PID { // a pid namespace of its own
		c.TID = c.threadOf(tb, c.TID)
	}
	c.Listener = c.take(tb, fd)
	c.Do(tb, unix.SYS_CLOSE, uint64(fd))
	return c
}

// threadOf finds the number that the child's thread has here.
func (c *Child) threadOf(tb testing.TB, inner int) int {
	tb.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", c.PID))
	if err != nil {
		tb.Fatal(err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", c.PID, task.Name()))
		if err == nil && strings.Contains(string(text), "\nNSpid:\t"+task.Name()+"\t"+strconv.Itoa(inner)+"\n") {
			n, _ := strconv.Atoi(task.Name())
			return n
		}
	}
	tb.Fatal("child's thread is not to be found")
	return 0
}

// take duplicates a descriptor of the child.
func (c *Child) take(tb testing.TB, fd int) int {
	tb.Helper()
	pidfd, err := unix.PidfdOpen(c.PID, 0)
	if err != nil {
		tb.Fatal("pidfd_open:", err)
	}
	defer unix.Close(pidfd)
	got, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		tb.Fatal("pidfd_getfd:", err)
	}
	return got
}

// Go has the child's thread make a system call.
func (c *Child) Go(tb testing.TB, nr uintptr, args ...uint64) {
	tb.Helper()
	var all [6]uint64
	copy(all[:], args)
	_, err := fmt.Fprintf(c.in, "%d %d %d %d %d %d %d\n", nr, all[0], all[1], all[2], all[3], all[4], all[5])
	if err != nil {
		tb.Fatal("tell child:", err)
	}
}

// Result waits for the call's end.
func (c *Child) Result(tb testing.TB) (int64, syscall.Errno) {
	tb.Helper()
	var r int64
	var errno int
	if _, err := fmt.Fscanf(c.out, "%d %d\n", &r, &errno); err != nil {
		tb.Fatal("read child's result:", err)
	}
	return r, syscall.Errno(errno)
}

// Do has the child make a call that must succeed.
func (c *Child) Do(tb testing.TB, nr uintptr, args ...uint64) int64 {
	tb.Helper()
	c.Go(tb, nr, args...)
	r, errno := c.Result(tb)
	if errno != 0 {
		tb.Fatalf("child's system call %d: %v", nr, errno)
	}
	return r
}

// Put writes data into the child's arena and returns its address.
func (c *Child) Put(tb testing.TB, offset int, data string) uint64 {
	tb.Helper()
	addr := c.Arena + uint64(offset)
	buf := []byte(data)
	local := []unix.Iovec{{Base: &buf[0], Len: uint64(len(buf))}}
	remote := []unix.RemoteIovec{{Base: uintptr(addr), Len: len(buf)}}
	if n, err := unix.ProcessVMWritev(c.PID, local, remote, 0); err != nil || n != len(buf) {
		tb.Fatalf("write to child: %d, %v", n, err)
	}
	return addr
}

// String puts a string with its NUL at the beginning of the arena.
func (c *Child) String(tb testing.TB, s string) uint64 {
	tb.Helper()
	return c.Put(tb, 0, s+"\x00")
}

// Signal sends a signal to the calling thread.
func (c *Child) Signal(tb testing.TB, sig unix.Signal) {
	tb.Helper()
	if err := unix.Tgkill(c.PID, c.TID, sig); err != nil {
		tb.Fatal("tgkill:", err)
	}
}

// Kill kills the child and reaps it; it does so once.
func (c *Child) Kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}
