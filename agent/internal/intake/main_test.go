package intake

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

func TestMain(m *testing.M) {
	dialMain()
	notifytest.Main(m)
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

const patience = 8 * time.Second

// failure is what Options.Failed was told.
type failure struct {
	peer unix.Ucred
	err  error
}

// desk is a server and what came of its connections.
type desk struct {
	tb     testing.TB
	path   string
	server *Server
	came   chan Registration
	failed chan failure
}

// newDesk starts a server whose registrations the test closes.
func newDesk(tb testing.TB, change ...func(*Options)) *desk {
	tb.Helper()
	notifytest.NoLeak(tb)
	d := &desk{tb: tb, path: filepath.Join(tb.TempDir(), "socket"), came: make(chan Registration, 64), failed: make(chan failure, 64)}
	o := Options{
		Allowed:    func(uid uint32) bool { return uid == 0 },
		Register:   func(r Registration) error { d.came <- r; return nil },
		Failed:     func(peer unix.Ucred, err error) { d.failed <- failure{peer, err} },
		MaxBytes:   1 << 20,
		MaxWaiting: 16,
	}
	for _, f := range change {
		f(&o)
	}
	var err error
	d.server, err = Listen(d.path, o)
	must(tb, err)
	tb.Cleanup(func() {
		d.server.Close()
		if n := len(d.came) + len(d.failed); n != 0 {
			tb.Errorf("%d more connections came to something", n)
		}
	})
	return d
}

func (d *desk) dial() *net.UnixConn {
	d.tb.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: d.path, Net: "unix"})
	must(d.tb, err)
	d.tb.Cleanup(func() { _ = conn.Close() })
	return conn
}

// registered waits for a registration, checks that it has the listener, and
// closes it.
func (d *desk) registered(id string, listener *os.File) Registration {
	d.tb.Helper()
	select {
	case r := <-d.came:
		if r.State.State.ID != id {
			d.tb.Errorf("container is %q, want %q", r.State.State.ID, id)
		}
		if r.Peer.Pid != int32(os.Getpid()) || int(r.Peer.Uid) != os.Geteuid() {
			d.tb.Errorf("peer is %+v", r.Peer)
		}
		if listener != nil && !sameFile(r.Listener.FD(), int(listener.Fd())) {
			d.tb.Error("the listener is another file")
		}
		if flags, err := unix.FcntlInt(uintptr(r.Listener.FD()), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			d.tb.Errorf("the listener is not close-on-exec: %#x, %v", flags, err)
		}
		must(d.tb, r.Listener.Close())
		return r
	case f := <-d.failed:
		d.tb.Fatalf("registration of %s failed: %v", id, f.err)
	case <-time.After(patience):
		d.tb.Fatalf("registration of %s does not come", id)
	}
	return Registration{}
}

// refused waits for a failure that says want.
func (d *desk) refused(want string) {
	d.tb.Helper()
	select {
	case f := <-d.failed:
		if !strings.Contains(f.err.Error(), want) {
			d.tb.Errorf("refused with %q, want %q", f.err, want)
		}
		if strings.Contains(f.err.Error(), "\n") {
			d.tb.Errorf("several lines: %q", f.err)
		}
	case r := <-d.came:
		must(d.tb, r.Listener.Close())
		d.tb.Errorf("registered, want %q", want)
	case <-time.After(patience):
		d.tb.Fatalf("nothing came of it, want %q", want)
	}
}

func sameFile(a, b int) bool {
	r, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(os.Getpid()), uintptr(os.Getpid()), 0, uintptr(a), uintptr(b), 0)
	return errno == 0 && r == 0
}

// awaitClose waits for the server's end of a connection to go.
func awaitClose(tb testing.TB, conn *net.UnixConn) {
	tb.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
		tb.Errorf("connection: %v, want its end", err)
	}
}

// newListener is the listener of a thread that makes no calls.
func newListener(tb testing.TB) *os.File {
	tb.Helper()
	var fd int
	ready, end, ended := make(chan error), make(chan struct{}), make(chan struct{})
	var live func()
	live = func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			go live() // the leader does not end
			<-ended
			runtime.UnlockOSThread()
			return
		}
		defer close(ended)
		var err error
		fd, err = notifytest.Filter(0, notifytest.Notified()...)
		ready <- err
		<-end
	}
	go live()
	must(tb, <-ready)
	f := os.NewFile(uintptr(fd), "listener")
	tb.Cleanup(func() {
		close(end)
		<-ended
		_ = f.Close()
	})
	return f
}

func state(id string, fds ...string) specs.ContainerProcessState {
	return specs.ContainerProcessState{
		Version: "0.2.0", Fds: fds, Pid: 7, Metadata: "meta",
		State: specs.State{Version: "0.2.0", ID: id, Status: specs.StateCreating, Pid: 8, Bundle: "/"},
	}
}

func text(tb testing.TB, v any) []byte {
	tb.Helper()
	data, err := json.Marshal(v)
	must(tb, err)
	return data
}

// send sends data with descriptors in one sendmsg, as runtimes do. The other
// end may be gone by then.
func send(tb testing.TB, conn *net.UnixConn, data []byte, files ...*os.File) {
	tb.Helper()
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	n, _, err := conn.WriteMsgUnix(data, rights, nil)
	if err == nil && n < len(data) {
		_, err = conn.Write(data[n:])
	}
	if err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		tb.Fatal(err)
	}
}

func pieces(data []byte, n int) [][]byte {
	var all [][]byte
	for len(data) > 0 {
		k := min(n, len(data))
		all = append(all, bytes.Clone(data[:k]))
		data = data[k:]
	}
	return all
}
