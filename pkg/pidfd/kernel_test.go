//go:build linux

package pidfd

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"golang.org/x/sys/unix"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func wantErr(tb testing.TB, err, want error) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Fatalf("error %v, want %v", err, want)
	}
}

func closeFD(tb testing.TB, f *FD) {
	tb.Helper()
	tb.Cleanup(func() { _ = f.Close() })
}

func mustOpen(tb testing.TB, k *kernel, pid int) *FD {
	tb.Helper()
	f, err := k.open(pid)
	must(tb, err)
	closeFD(tb, f)
	return f
}

func mustOpenThread(tb testing.TB, k *kernel, tid int) *FD {
	tb.Helper()
	f, err := k.openThread(tid)
	must(tb, err)
	closeFD(tb, f)
	return f
}

// newKernel is the running kernel, with nothing known about it.
func newKernel() *kernel {
	return &kernel{
		pidfdOpen:       pidfdOpen,
		pidfdGetfd:      pidfdGetfd,
		pidfdSendSignal: pidfdSendSignal,
		getInfo:         getInfo,
		getNamespace:    getNamespace,
		procfs:          "/proc",
	}
}

// oldKernel has nothing that came after 5.6. nonLeader is what pidfd_open has
// for a thread.
func oldKernel(nonLeader unix.Errno) *kernel {
	k := newKernel()
	k.pidfdOpen = func(pid, flags int) (int, error) {
		if flags != 0 {
			return -1, unix.EINVAL
		}
		fd, err := pidfdOpen(pid, 0)
		if err == unix.EINVAL || err == unix.ENOENT {
			err = nonLeader
		}
		return fd, err
	}
	k.getInfo = func(int) (pidfdInfo, error) { return pidfdInfo{}, unix.ENOTTY }
	k.getNamespace = func(int, uint) (int, error) { return -1, unix.ENOTTY }
	return k
}

// kernels runs a test on the running kernel and on an old one. The test may
// expect no difference.
func kernels(t *testing.T, test func(t *testing.T, k *kernel)) {
	t.Run("running", func(t *testing.T) { test(t, newKernel()) })
	t.Run("old", func(t *testing.T) { test(t, oldKernel(unix.EINVAL)) })
}

// skipBefore skips on kernels that are too old. On others there is no excuse.
func skipBefore(t *testing.T, major, minor int) {
	t.Helper()
	var uts unix.Utsname
	must(t, unix.Uname(&uts))
	var haveMajor, haveMinor int
	_, err := fmt.Sscanf(unix.ByteSliceToString(uts.Release[:]), "%d.%d", &haveMajor, &haveMinor)
	must(t, err)
	if haveMajor < major || haveMajor == major && haveMinor < minor {
		t.Skipf("needs Linux %d.%d", major, minor)
	}
}

// narrowsTo returns a number whose low 32 bits are n. Where an int has no more
// than those, any bad number will do.
func narrowsTo(n int) int {
	if math.MaxInt == math.MaxInt32 {
		return -1
	}
	return int(int64(1)<<32 + int64(n))
}
