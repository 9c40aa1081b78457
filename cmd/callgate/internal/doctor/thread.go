package doctor

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// onThread runs f on an OS thread that ends with it, and waits: for what
// cannot be undone. The main thread is no such thread, it stays with the
// process.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			f()
			return // locked, so that the runtime ends the thread
		}
		defer runtime.UnlockOSThread()
		onThread(f) // not on the main thread, which is taken meanwhile
	}()
	<-done
}
