//go:build linux

package pidfd

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func readAll(t *testing.T, f *FD) string {
	t.Helper()
	fd, err := f.GetFD(childFile)
	must(t, err)
	defer unix.Close(fd)
	var buf [32]byte
	n, err := unix.Pread(fd, buf[:], 0)
	must(t, err)
	return string(buf[:n])
}

// A thread can have a descriptor table of its own. Its process's is the wrong
// one then.
func TestGetFDTable(t *testing.T) {
	skipBefore(t, 6, 9)
	c := startChild(t)
	for _, tt := range []struct {
		name string
		f    *FD
		want string
	}{
		{"thread", mustOpenThread(t, newKernel(), c.tid), "thread"},
		{"leader", mustOpenThread(t, newKernel(), c.pid), "process"},
		{"process", mustOpen(t, newKernel(), c.pid), "process"},
		{"thread on an old kernel", mustOpenThread(t, oldKernel(unix.EINVAL), c.tid), "process"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := readAll(t, tt.f); got != tt.want {
				t.Errorf("read %q, want %q", got, tt.want)
			}
		})
	}
}

func TestGetFDErrors(t *testing.T) {
	c := startChild(t)
	f := mustOpen(t, newKernel(), c.pid)
	for _, n := range []int{childNone, -1, narrowsTo(childFile)} {
		_, err := f.GetFD(n)
		wantErr(t, err, unix.EBADF)
	}
	c.zombify(t, f)
	_, err := f.GetFD(childFile)
	wantErr(t, err, unix.ESRCH)
	c.reap()
	_, err = f.GetFD(childFile)
	wantErr(t, err, unix.ESRCH)
}

// Before some release a zombie's descriptors were EBADF.
func TestGetFDOldZombie(t *testing.T) {
	c := startChild(t)
	k := newKernel()
	k.pidfdGetfd = func(int, int) (int, error) { return -1, unix.EBADF }
	f := mustOpen(t, k, c.pid)
	_, err := f.GetFD(childFile)
	wantErr(t, err, unix.EBADF)
	c.zombify(t, f)
	_, err = f.GetFD(childFile)
	wantErr(t, err, unix.ESRCH)
}

// Status flags belong to the open file description, which the child still
// uses.
func TestGetFDLeavesNonblock(t *testing.T) {
	c := startChild(t)
	f := mustOpen(t, newKernel(), c.pid)
	for n, want := range map[int]bool{childPipe: false, childNonblock: true} {
		isNonblock := func() bool {
			fd, err := f.GetFD(n)
			must(t, err)
			defer unix.Close(fd)
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
			must(t, err)
			fdFlags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			must(t, err)
			if fdFlags&unix.FD_CLOEXEC == 0 {
				t.Error("not close-on-exec")
			}
			return flags&unix.O_NONBLOCK != 0
		}
		if got := isNonblock(); got != want {
			t.Errorf("descriptor %d: non-blocking %v", n, got)
		}
		file, err := f.GetFile(n, "pipe")
		must(t, err)
		useFile(t, file)
		must(t, file.Close())
		if got := isNonblock(); got != want {
			t.Errorf("descriptor %d: non-blocking %v after GetFile", n, got)
		}
	}
}

// useFile does to an os.File what might tempt it to change the flags.
func useFile(t *testing.T, file *os.File) {
	t.Helper()
	if file.Name() != "pipe" {
		t.Errorf("name %q", file.Name())
	}
	_, err := file.Stat()
	must(t, err)
	_ = file.Fd()
}
