package tracee

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/seccompnotify"
	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

func TestMain(m *testing.M) { notifytest.Main(m) }

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func wantErr(tb testing.TB, doing string, err, want error) {
	tb.Helper()
	if !errors.Is(err, want) || want == nil && err != nil {
		tb.Errorf("%s: error %v, want %v", doing, err, want)
	}
}

func proc(tb testing.TB) *Proc {
	tb.Helper()
	p, err := OpenProc()
	must(tb, err)
	tb.Cleanup(p.Close)
	return p
}

// elsewhere runs f on a thread that is as the process is.
func elsewhere(f func() error) error {
	done := make(chan error)
	go func() { done <- f() }()
	return <-done
}

func alive() error { return nil }

// dying waits for k checks and is gone afterwards.
func dying(k int) func() error {
	return func() error {
		if k--; k < 0 {
			return ErrGone
		}
		return nil
	}
}

// own is this process as the caller.
func own(tb testing.TB, waiting func() error) *Tracee {
	tb.Helper()
	t := New(proc(tb))
	t.Reset(os.Getpid(), waiting)
	tb.Cleanup(func() { t.Reset(0, alive); t.Forget() })
	return t
}

// stopped is a child that stands in a notified call.
func stopped(tb testing.TB, c *notifytest.Child) (t *Tracee, answer func()) {
	tb.Helper()
	l, err := seccompnotify.NewListener(c.Listener)
	must(tb, err)
	tb.Cleanup(func() { _ = l.Close() })
	c.Go(tb, unix.SYS_ACCT)
	var n seccompnotify.Notification
	must(tb, l.Receive(&n))
	t = New(proc(tb))
	t.Reset(int(n.PID), func() error {
		if err := l.Valid(n.ID); errors.Is(err, seccompnotify.ErrGone) {
			return fmt.Errorf("%w: %w", ErrGone, err)
		} else if err != nil {
			return err
		}
		return nil
	})
	tb.Cleanup(func() { t.Reset(0, alive); t.Forget() })
	return t, func() {
		must(tb, l.Return(n.ID, 0))
		c.Result(tb)
	}
}

// onThread runs f on a Thread of its own, which ends afterwards.
func onThread(tb testing.TB, f func(th *Thread)) {
	tb.Helper()
	home, err := OpenHome()
	must(tb, err)
	defer home.Close()
	done := make(chan struct{})
	var body func()
	body = func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			go body() // on another: the leader stays as it is, and locked
			<-done
			runtime.UnlockOSThread()
			return
		}
		defer close(done)
		th, err := NewThread(home)
		if err != nil {
			tb.Error(err)
			return
		}
		f(th)
	}
	go body()
	<-done
}

func dir(tb testing.TB, path string) *Handle {
	tb.Helper()
	h, err := openat(unix.AT_FDCWD, path, unix.O_PATH|unix.O_DIRECTORY)
	must(tb, err)
	tb.Cleanup(h.Close)
	return &h
}

// threadStatus has the lines of this OS thread's status, by key.
func threadStatus(tb testing.TB, tid int) map[string]string {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/status", tid))
	must(tb, err)
	lines := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		lines[key] = strings.Join(strings.Fields(value), " ")
	}
	return lines
}

// tree makes files below a new directory: a name that ends in / is a
// directory, "a -> b" a link, anything else a file. The directory is returned.
func tree(tb testing.TB, entries ...string) string {
	tb.Helper()
	root := tb.TempDir()
	must(tb, os.Chmod(root, 0o755))
	for _, e := range entries {
		name, target, link := strings.Cut(e, " -> ")
		path := root + "/" + name
		switch {
		case link:
			must(tb, os.Symlink(target, path))
		case strings.HasSuffix(name, "/"):
			must(tb, os.MkdirAll(path, 0o755))
		default:
			must(tb, os.WriteFile(path, nil, 0o644))
		}
	}
	return root
}
