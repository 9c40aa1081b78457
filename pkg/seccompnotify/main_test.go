package seccompnotify

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

func TestMain(m *testing.M) { notifytest.Main(m) }

// start starts a child and its listener.
func start(tb testing.TB, o notifytest.Options) (*notifytest.Child, *Listener) {
	tb.Helper()
	notifytest.NoLeak(tb)
	c := notifytest.Start(tb, o)
	l, err := NewListener(c.Listener)
	must(tb, err)
	tb.Cleanup(func() { _ = l.Close() })
	return c, l
}

// receive is Receive that fails instead of waiting for ever.
func receive(tb testing.TB, l *Listener, n *Notification) {
	tb.Helper()
	wait(tb, l, unix.POLLIN)
	must(tb, l.Receive(n))
}

func wait(tb testing.TB, l *Listener, want int16) {
	tb.Helper()
	for {
		fds := []unix.PollFd{{Fd: int32(l.FD()), Events: want}}
		n, err := unix.Poll(fds, 10_000)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 || fds[0].Revents&want == 0 {
			tb.Fatalf("poll for %#x: %d, %v, %#x", want, n, err, fds[0].Revents)
		}
		return
	}
}

// kernelAtLeast is for tests that must not skip what the kernel has.
func kernelAtLeast(tb testing.TB, major, minor int) bool {
	tb.Helper()
	var u unix.Utsname
	must(tb, unix.Uname(&u))
	var a, b int
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b)
	must(tb, err)
	return a > major || a == major && b >= minor
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func wantErr(tb testing.TB, doing string, err, want error) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Errorf("%s: error %v, want %v", doing, err, want)
	}
}
