package notifytest

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	childEnv  = "CALLGATE_NOTIFYTEST_CHILD"
	leaderEnv = "CALLGATE_NOTIFYTEST_LEADER"
)

// The leader of a thread group can only be held on to before main.
func init() {
	if os.Getenv(childEnv) != "" {
		runtime.LockOSThread()
	}
}

// Main is a TestMain: it is the child if this process was started as one,
// otherwise it runs the tests and fails if they leave descriptors behind.
func Main(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		childMain()
	}
	before := Descriptors()
	code := m.Run()
	for fd, target := range Leaked(before) {
		fmt.Fprintf(os.Stderr, "leaked descriptor %s: %s\n", fd, target)
		code = 1
	}
	os.Exit(code)
}

// Descriptors lists this process's descriptors and what they refer to.
func Descriptors() map[string]string {
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

// Leaked lists what is open now and was not before. What is on its way to
// being closed gets a moment.
func Leaked(before map[string]string) map[string]string {
	var extra map[string]string
	for range 20 {
		extra = make(map[string]string)
		for fd, target := range Descriptors() {
			if before[fd] != target {
				extra[fd] = target
			}
		}
		if len(extra) == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return extra
}

// NoLeak fails the test if it ends with descriptors that it did not begin
// with. Not for parallel tests.
func NoLeak(tb testing.TB) {
	tb.Helper()
	before := Descriptors()
	tb.Cleanup(func() {
		for fd, target := range Leaked(before) {
			tb.Errorf("leaked descriptor %s: %s", fd, target)
		}
	})
}

// NeedRoot skips the test without root, or fails it where everything is
// required to run (CALLGATE_TEST_REQUIRE=all).
func NeedRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CALLGATE_TEST_REQUIRE") == "all" {
		tb.Fatal("needs root")
	}
	tb.Skip("needs root")
}

func childMain() {
	if os.Getenv(leaderEnv) != "" {
		serve()
	}
	go func() {
		runtime.LockOSThread()
		serve()
	}()
	select {}
}

// serve is the calling thread.
func serve() {
	arena := makeArena()
	flags, err := strconv.ParseUint(os.Getenv(childEnv), 10, 64)
	check(err)
	listener, err := Filter(uintptr(flags), Notified()...)
	check(err)
	fmt.Println(os.Getpid(), unix.Gettid(), listener, uint64(arena))
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			os.Exit(0)
		}
		var n [7]uint64
		for i, f := range strings.Fields(line) {
			n[i], err = strconv.ParseUint(f, 10, 64)
			check(err)
		}
		r, _, errno := unix.Syscall6(uintptr(n[0]), uintptr(n[1]), uintptr(n[2]), uintptr(n[3]), uintptr(n[4]), uintptr(n[5]), uintptr(n[6]))
		fmt.Println(int64(r), int(errno))
	}
}

// Filter gives the calling thread a filter that notifies of the calls, and
// returns its listener.
func Filter(flags uintptr, calls ...uintptr) (int, error) {
	const notify, allow = unix.SECCOMP_RET_USER_NOTIF, unix.SECCOMP_RET_ALLOW
	prog := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}} // seccomp_data.nr
	for i, nr := range calls {
		prog = append(prog, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: uint8(len(calls) - i), K: uint32(nr)})
	}
	prog = append(prog,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: allow},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: notify})
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return -1, os.NewSyscallError("prctl PR_SET_NO_NEW_PRIVS", err)
	}
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		flags|unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&fprog)))
	runtime.KeepAlive(prog)
	if errno != 0 {
		return -1, os.NewSyscallError("seccomp SECCOMP_SET_MODE_FILTER", errno)
	}
	return int(fd), nil
}

// makeArena maps the arena, a page without access and a hole behind it.
func makeArena() uintptr {
	const page = 4096
	addr, _, errno := unix.Syscall6(unix.SYS_MMAP, 0, ArenaSize+2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, ^uintptr(0), 0)
	if errno == 0 {
		_, _, errno = unix.Syscall(unix.SYS_MPROTECT, addr+ArenaSize, page, unix.PROT_NONE)
	}
	if errno == 0 {
		_, _, errno = unix.Syscall(unix.SYS_MUNMAP, addr+ArenaSize+page, page, 0)
	}
	if errno != 0 {
		panic(errno)
	}
	return addr
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
