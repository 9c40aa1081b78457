package mknod

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/emulators/emulatortest"
	"github.com/callgate/callgate/pkg/tracee"
)

// perform has the emulator make one call of this process's.
func perform(t *testing.T, e emulators.Emulator, thread *tracee.Thread, meanwhile func(), delivered bool, dirfd int, path string, mode uint32, dev uint64) error {
	t.Helper()
	c := emulatortest.NewCaller(t)
	defer c.Close()
	c.Thread = thread
	c.Syscall, c.Args = "mknodat", [6]uint64{uint64(dirfd), c.String(path), uint64(mode), dev}
	resp, err := e.Emulate(context.Background(), c.Request())
	if meanwhile != nil {
		_ = elsewhere(func() error { meanwhile(); return nil })
	}
	errno := resp.Errno()
	resp.Finish(delivered)
	switch {
	case err != nil:
		return err
	case resp.Action() == emulators.ActionContinue:
		return errors.New("continued")
	case errno != 0:
		return errno
	}
	return nil
}

func newEmulator(t *testing.T) emulators.Emulator {
	t.Helper()
	e, err := Kind().New(emulatortest.Policy(`allow: ["c 1:*", "b 7:*"]`))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.(*emulator).Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// prepared makes the same things in each directory.
func prepared(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, err := range []error{
		os.Chmod(dir, 0o755),
		os.Mkdir(dir+"/d", 0o755), os.WriteFile(dir+"/f", nil, 0o644), os.Symlink("nowhere", dir+"/dangling"), os.Symlink("d", dir+"/link"),
		os.Symlink("loop", dir+"/loop"), os.Mkdir(dir+"/setgid", 0o755), os.Chown(dir+"/setgid", 0, 4444), os.Chmod(dir+"/setgid", 0o755|os.ModeSetgid),
		os.Mkdir(dir+"/gone", 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// elsewhere runs f on a thread that is as the process is.
func elsewhere(f func() error) error {
	err := make(chan error)
	go func() { err <- f() }()
	return <-err
}

// TestLikeTheKernel makes each call by the kernel and by the emulator.
func TestLikeTheKernel(t *testing.T) {
	emulatortest.NeedRoot(t)
	null, loop := unix.Mkdev(1, 3), unix.Mkdev(7, 70000)
	calls := []struct {
		path string
		mode uint32
		dev  uint64
	}{
		{"a", unix.S_IFCHR | 0o666, null}, {"b", unix.S_IFBLK | 0o660, loop}, {"zero", unix.S_IFCHR, null}, {"all", unix.S_IFCHR | 0o7777, null}, {"setgid/all", unix.S_IFCHR | 0o7777, null},
		{"setgid/x", unix.S_IFBLK | 0o2640, loop}, {"d/in", unix.S_IFCHR | 0o666, null}, {"link/through", unix.S_IFCHR | 0o666, null}, {"d/../up", unix.S_IFCHR | 0o666, null},
		{"./dot", unix.S_IFCHR | 0o666, null}, {"d//double", unix.S_IFCHR | 0o666, null}, {"", unix.S_IFCHR, null}, {"/", unix.S_IFCHR, null}, {"//", unix.S_IFCHR, null},
		{".", unix.S_IFCHR, null}, {"..", unix.S_IFCHR, null}, {"d/.", unix.S_IFCHR, null}, {"d/..", unix.S_IFCHR, null}, {"d", unix.S_IFCHR, null}, {"d/", unix.S_IFCHR, null},
		{"f", unix.S_IFCHR, null}, {"f/", unix.S_IFCHR, null}, {"f/x", unix.S_IFCHR, null}, {"f/..", unix.S_IFCHR, null}, {"dangling", unix.S_IFCHR, null}, {"dangling/", unix.S_IFCHR, null}, {"dangling/x", unix.S_IFCHR, null},
		{"link", unix.S_IFCHR, null}, {"link/", unix.S_IFCHR, null}, {"loop", unix.S_IFCHR, null}, {"loop/x", unix.S_IFCHR, null}, {"no/x", unix.S_IFCHR, null}, {"new/", unix.S_IFCHR, null}, {"new//", unix.S_IFCHR, null},
		{strings.Repeat("n", 255), unix.S_IFCHR, null}, {strings.Repeat("n", 256), unix.S_IFCHR, null}, {"d/" + strings.Repeat("n", 256) + "/x", unix.S_IFCHR, null},
		{strings.Repeat("./", 2047) + "x", unix.S_IFCHR, null}, {"/proc/x", unix.S_IFCHR, null}, {"/sys/x", unix.S_IFCHR, null},
	}
	for _, umask := range []int{0, 0o022, 0o077, 0o777} {
		defer unix.Umask(unix.Umask(umask))
		native, emulated := prepared(t), prepared(t)
		unix.Umask(umask)
		e := newEmulator(t)
		for _, how := range []string{"dirfd", "absolute"} {
			emulatortest.OnThread(t, func(thread *tracee.Thread) {
				for _, c := range calls {
					run := func(dir string, mknod func(dirfd int, path string) error) (unix.Stat_t, error) {
						fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_CLOEXEC, 0)
						if err != nil {
							t.Fatal(err)
						}
						defer unix.Close(fd)
						path := c.path
						if how == "absolute" && path != "" && path[0] != '/' && len(path) < 300 {
							path = dir + "/" + path
						}
						err = mknod(fd, path)
						var st unix.Stat_t
						_ = unix.Fstatat(fd, c.path, &st, unix.AT_SYMLINK_NOFOLLOW)
						if err == nil {
							if err := unix.Unlinkat(fd, c.path, 0); err != nil {
								t.Errorf("%s: %v", c.path, err)
							}
						}
						return st, err
					}
					want, wantErr := run(native, func(fd int, path string) error {
						return elsewhere(func() error { return unix.Mknodat(fd, path, c.mode, int(c.dev)) })
					})
					got, gotErr := run(emulated, func(fd int, path string) error { return perform(t, e, thread, nil, true, fd, path, c.mode, c.dev) })
					if wantErr != gotErr && !errors.Is(gotErr, wantErr) {
						t.Errorf("umask %o, %s %.40q: %v, the kernel %v", umask, how, c.path, gotErr, wantErr)
					}
					if wantErr == nil && (got.Mode != want.Mode || got.Uid != want.Uid || got.Gid != want.Gid || got.Rdev != want.Rdev) {
						t.Errorf("umask %o, %s %.40q: %o %d:%d %#x, the kernel %o %d:%d %#x", umask, how, c.path, got.Mode, got.Uid, got.Gid, got.Rdev, want.Mode, want.Uid, want.Gid, want.Rdev)
					}
				}
			})
		}
		unix.Umask(0o022)
	}
}

func TestDirfd(t *testing.T) {
	emulatortest.NeedRoot(t)
	dir := prepared(t)
	e := newEmulator(t)
	file, err := unix.Open(dir+"/f", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(file)
	removed, err := unix.Open(dir+"/gone", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(removed)
	if err := os.Remove(dir + "/gone"); err != nil {
		t.Fatal(err)
	}
	emulatortest.OnThread(t, func(thread *tracee.Thread) {
		for name, fd := range map[string]int{"none": -1, "not open": 99999, "file": file, "removed": removed} {
			want := unix.Mknodat(fd, "x", null, int(unix.Mkdev(1, 3)))
			got := perform(t, e, thread, nil, true, fd, "x", null, unix.Mkdev(1, 3))
			if want == nil || !errors.Is(got, want) {
				t.Errorf("%s: %v, the kernel %v", name, got, want)
			}
		}
		if err := perform(t, e, thread, nil, true, -1, dir+"/x", null, unix.Mkdev(1, 3)); err != nil {
			t.Errorf("absolute path with a bad dirfd: %v", err)
		}
	})
}

func TestDenied(t *testing.T) {
	emulatortest.NeedRoot(t)
	dir := prepared(t)
	e := newEmulator(t)
	emulatortest.OnThread(t, func(thread *tracee.Thread) {
		var denied emulators.Denied
		err := perform(t, e, thread, nil, true, 0, dir+"/x", unix.S_IFBLK, unix.Mkdev(8, 0))
		if !errors.As(err, &denied) || denied.Errno != 0 && denied.Errno != unix.EPERM {
			t.Errorf("not in the list: %v", err)
		}
		for _, kind := range []uint32{unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFDIR, 0, unix.S_IFCHR} {
			if err := perform(t, e, thread, nil, true, 0, dir+"/x", kind, 0); err == nil || err.Error() != "continued" {
				t.Errorf("type %#x: %v", kind, err)
			}
		}
		if _, err := os.Lstat(dir + "/x"); err == nil {
			t.Error("a node was made")
		}
	})
}

func TestUndo(t *testing.T) {
	emulatortest.NeedRoot(t)
	dir := prepared(t)
	e := newEmulator(t)
	emulatortest.OnThread(t, func(thread *tracee.Thread) {
		path := dir + "/node"
		mknod := func(meanwhile func(), delivered bool) {
			t.Helper()
			if err := perform(t, e, thread, meanwhile, delivered, 0, path, null, unix.Mkdev(1, 3)); err != nil {
				t.Error(err)
			}
		}
		mknod(nil, false)
		if _, err := os.Lstat(path); err == nil {
			t.Error("the node is still there")
		}
		for name, replace := range map[string]func() error{
			"file":           func() error { return os.WriteFile(path, nil, 0o600) },
			"other device":   func() error { return unix.Mknod(path, null, int(unix.Mkdev(1, 5))) },
			"other's device": func() error { return errors.Join(unix.Mknod(path, null, int(unix.Mkdev(1, 3))), os.Chown(path, 5, 5)) },
			"directory":      func() error { return os.Mkdir(path, 0o755) },
		} {
			mknod(func() {
				if err := errors.Join(os.Remove(path), replace()); err != nil {
					t.Error(err)
				}
			}, false)
			if err := elsewhere(func() error { return os.Remove(path) }); err != nil {
				t.Errorf("%s in its place: %v", name, err)
			}
		}
		mknod(func() { _ = os.Remove(path) }, false)
		mknod(nil, true)
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	})
}
