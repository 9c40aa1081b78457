package intake

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

// kinds are descriptors that are no listeners.
func kinds(tb testing.TB) map[string]*os.File {
	tb.Helper()
	regular, err := os.CreateTemp(tb.TempDir(), "")
	must(tb, err)
	r, w, err := os.Pipe()
	must(tb, err)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(tb, err)
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	must(tb, err)
	null, err := os.Open(os.DevNull)
	must(tb, err)
	named, err := unix.MemfdCreate("anon_inode:seccomp notify", unix.MFD_CLOEXEC)
	must(tb, err)
	all := map[string]*os.File{
		"regular file": regular, "pipe": r, "other end": w, "device": null,
		"socket": os.NewFile(uintptr(pair[0]), "a"), "its peer": os.NewFile(uintptr(pair[1]), "b"),
		"epoll": os.NewFile(uintptr(epoll), "epoll"), "file named like one": os.NewFile(uintptr(named), "memfd"),
	}
	tb.Cleanup(func() {
		for _, f := range all {
			_ = f.Close()
		}
	})
	return all
}

func TestWrongKind(t *testing.T) {
	for name, f := range kinds(t) {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			conn := d.dial()
			send(t, conn, text(t, state("c", "seccompFd")), f)
			d.refused(`container "c": descriptor`)
			awaitClose(t, conn)
		})
	}
}

func TestBad(t *testing.T) {
	notifytest.NeedRoot(t)
	l := newListener(t)
	ok := string(text(t, state("c", "seccompFd")))
	long := strings.Repeat("x", maxID+1)
	for _, test := range []struct {
		name, data string
		files      []*os.File
		want       string
	}{
		{"two names", string(text(t, state("c", "seccompFd", "seccompFd"))), []*os.File{l, l}, `names "seccompFd" twice`},
		{"no name", string(text(t, state("c"))), []*os.File{l}, `names no "seccompFd"`},
		{"another name", string(text(t, state("c", "other"))), []*os.File{l}, `names no "seccompFd"`},
		{"no descriptor", ok, nil, "names 1 descriptors, 0 came"},
		{"fewer descriptors", string(text(t, state("c", "seccompFd", "other"))), []*os.File{l}, "names 2 descriptors, 1 came"},
		{"more descriptors", ok, []*os.File{l, l}, "names 1 descriptors, 2 came"},
		{"garbage", "}{ \x00\xff", []*os.File{l}, "read container process state: invalid character"},
		{"another type", "[1, 2]", []*os.File{l}, "read container process state: json: cannot unmarshal array"},
		{"nothing at all", "null\n", []*os.File{l}, "state.id is missing"},
		{"missing id", `{"fds": ["seccompFd"], "state": {}}`, []*os.File{l}, "state.id is missing"},
		{"very long id", `{"state": {"id": "` + long + `"}}`, []*os.File{l}, "state.id has 1025 bytes, at most 1024"},
		{"negative pid", `{"pid": -1, "state": {"id": "c"}}`, []*os.File{l}, "pid -1 is none"},
		{"negative pid of the state", `{"state": {"id": "c", "pid": -7}}`, []*os.File{l}, "pid -7 is none"},
		{"pid that is cut to 1", `{"pid": 4294967297, "state": {"id": "c"}}`, []*os.File{l}, "pid 4294967297 is none"},
		{"pid of another type", `{"pid": "1", "state": {"id": "c"}}`, []*os.File{l}, "cannot unmarshal string"},
		{"deep nesting", strings.Repeat("[", 20000), []*os.File{l}, "exceeded max depth"},
		{"deep nesting where it is ignored", `{"x":` + strings.Repeat(`{"x":`, 20000), []*os.File{l}, "exceeded max depth"},
		{"too large", `{"x": "` + strings.Repeat("x", 1<<20) + `"}`, []*os.File{l}, "message is too large"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDesk(t)
			conn := d.dial()
			for i, p := range pieces([]byte(test.data), 60000) {
				if i == 0 {
					send(t, conn, p, test.files...)
				} else {
					send(t, conn, p)
				}
			}
			d.refused(test.want)
			awaitClose(t, conn)
		})
	}
}

// TestLate: descriptors come with the first piece, or not at all.
func TestLate(t *testing.T) {
	notifytest.NeedRoot(t)
	for name, first := range map[string]bool{"only later": false, "first and later": true} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			l := newListener(t)
			data := text(t, state("c", "seccompFd"))
			conn := d.dial()
			if first {
				send(t, conn, data[:10], l)
			} else {
				send(t, conn, data[:10])
			}
			awaitRead(t, conn) // or both are read at once
			send(t, conn, data[10:20], l)
			send(t, conn, data[20:])
			d.refused("descriptors came after the first part")
			awaitClose(t, conn)
		})
	}
}

// awaitRead waits until the other end has read all that was sent.
func awaitRead(tb testing.TB, conn *net.UnixConn) {
	tb.Helper()
	raw, err := conn.SyscallConn()
	must(tb, err)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		left := -1
		must(tb, raw.Control(func(fd uintptr) { left, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }))
		must(tb, err)
		if left == 0 {
			return
		}
	}
	tb.Fatal("what was sent is not read")
}

// TestEnds: a connection that ends before its message does.
func TestEnds(t *testing.T) {
	notifytest.NeedRoot(t)
	d := newDesk(t)
	half := d.dial()
	send(t, half, []byte(`{"fds": ["secc`), newListener(t))
	must(t, half.CloseWrite())
	d.refused("unexpected EOF")
	awaitClose(t, half)
	// Without a byte it is nobody's mistake: see desk's clean-up.
	silent := d.dial()
	must(t, silent.CloseWrite())
	awaitClose(t, silent)
}

// TestWaiting: a user has so many connections that have not registered, and
// no more; one that goes makes room.
func TestWaiting(t *testing.T) {
	notifytest.NeedRoot(t)
	d := newDesk(t, func(o *Options) { o.MaxWaiting = 3 })
	var held []*net.UnixConn
	for range 3 {
		conn := d.dial()
		send(t, conn, []byte("{"))
		awaitRead(t, conn) // and so it counts
		held = append(held, conn)
	}
	l := newListener(t)
	data := text(t, state("c", "seccompFd"))
	more := d.dial()
	send(t, more, data, l)
	d.refused("has 3 connections waiting, which is the limit")
	awaitClose(t, more)
	send(t, held[0], []byte("}"))
	d.refused("state.id is missing")
	awaitClose(t, held[0])
	// The connection ends a moment before its goroutine does.
	for {
		send(t, d.dial(), data, l)
		select {
		case r := <-d.came:
			must(t, r.Listener.Close())
			d.server.Close() // those that still wait are no failures
			return
		case f := <-d.failed:
			if !strings.Contains(f.err.Error(), "which is the limit") {
				t.Fatal(f.err)
			}
		}
	}
}

const dialEnv = "CALLGATE_INTAKE_TEST_DIAL"

// dialMain is the process of another user.
func dialMain() {
	path := os.Getenv(dialEnv)
	if path == "" {
		return
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		_, _ = conn.Read(make([]byte, 1))
	}
	fmt.Println(err)
	os.Exit(0)
}

// TestPeer: the socket is closed to others by its mode, and who gets past that
// is refused by who it is.
func TestPeer(t *testing.T) {
	notifytest.NeedRoot(t)
	d := newDesk(t)
	dir := d.path[:strings.LastIndex(d.path, "/")]
	open := func(path string) { must(t, os.Chmod(path, 0o711)) }
	open(dir)
	open(dir[:strings.LastIndex(dir, "/")])
	exe := dir + "/test"
	self, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	must(t, os.WriteFile(exe, self, 0o755))
	dial := func() string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), exe)
		cmd.Env = []string{dialEnv + "=" + d.path}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	if got := dial(); !strings.Contains(got, "permission denied") {
		t.Errorf("another user's connection: %s, want permission denied", got)
	}
	must(t, os.Chmod(d.path, 0o666))
	if got := dial(); got != "<nil>\n" {
		t.Errorf("another user's connection: %s", got)
	}
	select {
	case f := <-d.failed:
		if f.peer.Uid != 1000 || !strings.Contains(f.err.Error(), "user 1000 may not register") {
			t.Errorf("peer %+v: %v", f.peer, f.err)
		}
	case <-t.Context().Done():
	}
}
