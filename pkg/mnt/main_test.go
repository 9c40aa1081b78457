package mnt

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
	"github.com/callgate/callgate/pkg/tracee"
)

func TestMain(m *testing.M) { notifytest.Main(m) }

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// onThread runs f on a thread that may go elsewhere.
func onThread(tb testing.TB, f func(thread *tracee.Thread)) {
	tb.Helper()
	notifytest.NeedRoot(tb)
	home, err := tracee.OpenHome()
	must(tb, err)
	defer home.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked
		thread, err := tracee.NewThread(home)
		if err != nil {
			tb.Error(err)
			return
		}
		f(thread)
		if thread.Broken() {
			tb.Error("the thread did not come back")
		}
	}()
	<-done
}

const forced = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV

func tree(t *testing.T, attrs uint64) tracee.Handle {
	t.Helper()
	fs, err := New("tmpfs")
	must(t, err)
	defer fs.Close()
	must(t, fs.Create())
	h, err := fs.Mount(attrs)
	must(t, err)
	return h
}
