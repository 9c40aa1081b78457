package unixsock

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

func TestMain(m *testing.M) { notifytest.Main(m) }

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func TestListen(t *testing.T) {
	notifytest.NoLeak(t)
	path := filepath.Join(t.TempDir(), "not", "there", "s")
	defer syscall.Umask(syscall.Umask(0))
	for range 2 { // the second finds nothing of the first
		l, err := Listen(path)
		must(t, err)
		st, err := os.Lstat(path)
		must(t, err)
		if st.Mode() != os.ModeSocket|0o600 {
			t.Errorf("mode is %v, want a socket of mode 0600", st.Mode())
		}
		conn, err := net.Dial("unix", path)
		must(t, err)
		must(t, conn.Close())
		must(t, l.Close())
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is left: %v", err)
		}
	}
}

// stale leaves a socket that nobody listens on.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	must(t, err)
	l.SetUnlinkOnClose(false)
	must(t, l.Close())
}

func TestStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	stale(t, path)
	must(t, os.Chmod(path, 0o666))
	l, err := Listen(path)
	must(t, err)
	defer l.Close()
	if st, err := os.Lstat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, %v", st.Mode(), err)
	}
}

func TestInUse(t *testing.T) {
	notifytest.NoLeak(t)
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(path)
	must(t, err)
	defer l.Close()
	if _, err := Listen(path); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v, want ErrInUse with the path", err)
	}
	// One that accepts too slowly is in use, too.
	full := filepath.Join(t.TempDir(), "full")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: full}))
	must(t, unix.Listen(fd, 0))
	waiting, err := net.Dial("unix", full)
	must(t, err)
	defer waiting.Close()
	if _, err := Listen(full); !errors.Is(err, ErrInUse) {
		t.Errorf("%v, want ErrInUse", err)
	}
	if _, err := os.Lstat(full); err != nil {
		t.Error("the other's socket is gone:", err)
	}
}

func TestRefused(t *testing.T) {
	notifytest.NoLeak(t)
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	must(t, os.WriteFile(plain, []byte("mine"), 0o600))
	stale(t, filepath.Join(dir, "stale"))
	must(t, os.Symlink("stale", filepath.Join(dir, "link")))
	for path, want := range map[string]string{
		"":                             "no path",
		"@abstract":                    "anybody could connect",
		plain:                          "no socket",
		dir:                            "no socket",
		filepath.Join(dir, "link"):     "no socket", // whatever it leads to
		filepath.Join(plain, "s"):      "not a directory",
		"/" + strings.Repeat("x", 107): "path has 108 bytes, at most 107",
		"/proc/no/such/folder":         "no such file or directory",
	} {
		l, err := Listen(path)
		if err == nil {
			_ = l.Close()
			t.Errorf("%q: listens", path)
			continue
		}
		if !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "listen on ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want %q", path, err, want)
		}
	}
	if text, err := os.ReadFile(plain); err != nil || string(text) != "mine" {
		t.Errorf("the file is %q, %v", text, err)
	}
	// As long as can be.
	long := filepath.Join(dir, strings.Repeat("x", maxPath-len(dir)-1))
	l, err := Listen(long)
	must(t, err)
	must(t, l.Close())
}

func TestNoPermission(t *testing.T) {
	notifytest.NeedRoot(t)
	dir := t.TempDir() // mode 0755, root's
	done := make(chan error)
	go func() {
		// Ends locked, and its thread with it: that is not root's any more.
		runtime.LockOSThread()
		if _, _, errno := unix.RawSyscall(unix.SYS_SETFSUID, 65534, 0, 0); errno != 0 {
			done <- errno
			return
		}
		l, err := Listen(filepath.Join(dir, "s"))
		if err == nil {
			_ = l.Close()
		}
		done <- err
	}()
	if err := <-done; !errors.Is(err, unix.EACCES) {
		t.Errorf("%v, want EACCES", err)
	}
}
