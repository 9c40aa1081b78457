package emulatortest

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/tracee"
)

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

// OnThread runs f on an OS thread that can act as a caller, and ends it. It
// is never the thread group's leader, who plays the caller.
func OnThread(tb testing.TB, f func(thread *tracee.Thread)) {
	tb.Helper()
	home, err := tracee.OpenHome()
	if err != nil {
		tb.Fatal(err)
	}
	defer home.Close()
	done := make(chan struct{})
	var body func()
	body = func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			go body() // elsewhere, while the leader is held
			<-done
			runtime.UnlockOSThread()
			return
		}
		defer close(done)
		thread, err := tracee.NewThread(home)
		if err != nil {
			tb.Error(err)
			return
		}
		f(thread)
	}
	go body()
	<-done
}
