package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/emulators/emulatortest"
	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
	"github.com/callgate/callgate/pkg/tracee"
)

// ownMounts marks a test program that runs in a mount namespace of its own.
const ownMounts = "CALLGATE_TEST_OWN_MOUNTS"

// TestMain starts the program again in a mount namespace of its own: what the
// tests mount is nobody else's to see, and ends with it.
func TestMain(m *testing.M) {
	if os.Geteuid() == 0 && os.Getenv(ownMounts) == "" {
		if err := leaveMounts(); err != nil {
			fmt.Fprintln(os.Stderr, "mount namespace for the tests:", err)
			os.Exit(1)
		}
	}
	notifytest.Main(m)
}

func leaveMounts() error {
	runtime.LockOSThread() // whose namespace execve makes the whole process's
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare CLONE_NEWNS", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount MS_PRIVATE", err)
	}
	return os.NewSyscallError("execve", unix.Exec("/proc/self/exe", os.Args, append(os.Environ(), ownMounts+"=1")))
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// elsewhere runs f on a thread that is as the process is.
func elsewhere[T any](f func() T) (result T) {
	done := make(chan struct{})
	go func() {
		defer close(done) // also where f ends the test
		result = f()
	}()
	<-done
	return result
}

// made4 is an ext4 filesystem of 8 MiB, made once.
var made4 = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "callgate-mount")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := dir + "/ext4"
	if err := os.WriteFile(path, make([]byte, 8<<20), 0o600); err != nil {
		return nil, err
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", path).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	return os.ReadFile(path)
})

// image makes an ext4 filesystem in a file.
func image(tb testing.TB, path string) string {
	tb.Helper()
	if _, err := exec.LookPath("mkfs.ext4"); err != nil && os.Getenv("CALLGATE_TEST_REQUIRE") != "all" {
		tb.Skip("needs mkfs.ext4")
	}
	text, err := made4()
	must(tb, err)
	must(tb, os.WriteFile(path, text, 0o600))
	return path
}

// folder is a directory that everybody can get to, without mounts when the
// test ends.
func folder(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	must(tb, os.Chmod(dir, 0o755))
	must(tb, os.Chmod(filepath.Dir(dir), 0o755))
	tb.Cleanup(func() {
		text, _ := os.ReadFile("/proc/self/mountinfo")
		lines := strings.Split(string(text), "\n")
		slices.Reverse(lines)
		for _, line := range lines {
			if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
				_ = unix.Unmount(fields[4], unix.MNT_DETACH)
			}
		}
		released(tb, dir)
	})
	return dir
}

// loopsOf lists the loop devices that have files of a folder, also removed or
// renamed ones.
func loopsOf(dir string) (all []string) {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		if text, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(text), dir+"/") {
			all = append(all, strings.Split(f, "/")[3])
		}
	}
	return all
}

// released waits until no loop device has a file of the folder: a filesystem
// is let go of by the kernel's own threads.
func released(tb testing.TB, dir string) {
	tb.Helper()
	var left []string
	for range 200 {
		if left = loopsOf(dir); len(left) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	tb.Errorf("loop devices still have images: %v", left)
	for _, name := range left {
		_ = exec.Command("losetup", "-d", "/dev/"+name).Run()
	}
}

// losetup makes a loop device as an operator does.
func losetup(tb testing.TB, args ...string) string {
	tb.Helper()
	out, err := exec.Command("losetup", append([]string{"-f", "--show"}, args...)...).CombinedOutput()
	if err != nil {
		tb.Fatalf("losetup: %v: %s", err, out)
	}
	name := strings.TrimSpace(string(out))
	tb.Cleanup(func() { _ = exec.Command("losetup", "-d", name).Run() })
	return name
}

// mounted says whether the path is the root of a mount.
func mounted(tb testing.TB, path string) bool {
	tb.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	h := tracee.NewHandle(fd)
	defer h.Close()
	st, err := h.Stat()
	must(tb, err)
	return st.MountRoot
}

// newEmulator makes a container's emulator, without the checks of policy that
// only the configuration makes.
func newEmulator(tb testing.TB, text string) *emulator {
	tb.Helper()
	e, err := Kind().New(emulatortest.Policy(text))
	must(tb, err)
	tb.Cleanup(func() { must(tb, e.(*emulator).Close()) })
	return e.(*emulator)
}

// arguments are mount(2)'s. A string that is null is NULL.
type arguments struct {
	source, target, fstype string
	flags                  uint64
	data                   string
}

const null = "\x00"

func (a arguments) String() string {
	return fmt.Sprintf("mount(%.60q, %.60q, %.60q, %#x, %.60q)", a.source, a.target, a.fstype, a.flags, a.data)
}

func (a *arguments) place(c *emulatortest.Caller) [6]uint64 {
	at := func(s string) uint64 {
		if s == null {
			return 0
		}
		return c.String(s)
	}
	return [6]uint64{at(a.source), at(a.target), at(a.fstype), a.flags, at(a.data)}
}

// native has the kernel make the call.
func (a *arguments) native() error {
	return elsewhere(func() error { return unix.Mount(a.source, a.target, a.fstype, uintptr(a.flags), a.data) })
}

// result is what became of a call.
type result struct {
	action emulators.Action
	errno  syscall.Errno // the caller's
	detail string
	err    error
}

func (r result) String() string {
	return fmt.Sprintf("action %d, errno %d (%v), detail %q, error %v", r.action, int(r.errno), r.errno, r.detail, r.err)
}

func (r result) ok() bool { return r.err == nil && r.action == emulators.ActionReturn }

// emulate makes one call of this process's.
func emulate(tb testing.TB, e emulators.Emulator, thread *tracee.Thread, a arguments) result {
	tb.Helper()
	return emulateThen(tb, e, thread, a, nil, true)
}

func emulateThen(tb testing.TB, e emulators.Emulator, thread *tracee.Thread, a arguments, meanwhile func(), delivered bool) result {
	tb.Helper()
	c := emulatortest.NewCaller(tb)
	defer c.Close()
	c.Thread, c.Syscall, c.Args = thread, "mount", a.place(c)
	return finish(e, c.Request(), meanwhile, delivered)
}

func finish(e emulators.Emulator, req *emulators.Request, meanwhile func(), delivered bool) result {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	resp, err := e.Emulate(ctx, req)
	if meanwhile != nil {
		elsewhere(func() bool { meanwhile(); return true })
	}
	r := result{action: resp.Action(), errno: resp.Errno(), detail: resp.Detail(), err: err}
	resp.Finish(delivered && err == nil)
	if err == nil {
		return r
	}
	r.errno, r.action = unix.EPERM, emulators.ActionRefuse // as dispatch does
	var argument emulators.BadArgument
	var denied emulators.Denied
	switch {
	case errors.As(err, &argument):
		r.errno = argument.Errno
	case errors.As(err, &denied):
		r.detail = denied.Detail
		if denied.Errno != 0 {
			r.errno = denied.Errno
		}
	}
	return r
}
