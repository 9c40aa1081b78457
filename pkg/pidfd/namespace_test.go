//go:build linux

package pidfd

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func statID(t *testing.T, path string) NSID {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	return NSID{Dev: uint64(st.Dev), Ino: st.Ino}
}

func TestNamespaceID(t *testing.T) {
	kernels(t, func(t *testing.T, k *kernel) {
		f := mustOpen(t, k, os.Getpid())
		for ns := NSUser; ns <= NSTimeForChildren; ns++ {
			t.Run(ns.String(), func(t *testing.T) {
				if _, err := os.Stat("/proc/self/ns/" + ns.String()); err != nil {
					_, err := f.NamespaceID(ns)
					wantErr(t, err, unix.EOPNOTSUPP)
					return
				}
				got, err := f.NamespaceID(ns)
				must(t, err)
				if want := statID(t, "/proc/self/ns/"+ns.String()); got != want {
					t.Errorf("got %v, want %v", got, want)
				}
			})
		}
	})
}

func TestNamespaceOfThread(t *testing.T) {
	skipBefore(t, 6, 9)
	c := startChild(t)
	kernels(t, func(t *testing.T, k *kernel) {
		thread := mustOpenThread(t, newKernel(), c.tid)
		thread.k = k
		ofThread, err := thread.NamespaceID(NSUTS)
		must(t, err)
		ofProcess, err := mustOpen(t, k, c.pid).NamespaceID(NSUTS)
		must(t, err)
		if ofThread == ofProcess {
			t.Error("the thread's own namespace was not seen")
		}
		if want := statID(t, k.procPath(c.tid, "ns/uts")); ofThread != want {
			t.Errorf("got %v, want %v", ofThread, want)
		}
	})
}

func TestNamespaceDescriptor(t *testing.T) {
	kernels(t, func(t *testing.T, k *kernel) {
		fd, err := mustOpen(t, k, os.Getpid()).Namespace(NSNet)
		must(t, err)
		defer unix.Close(fd)
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		must(t, err)
		if flags&unix.FD_CLOEXEC == 0 {
			t.Error("not close-on-exec")
		}
		kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
		must(t, err)
		if kind != unix.CLONE_NEWNET {
			t.Errorf("type %#x", kind)
		}
	})
}

func TestNamespaceGone(t *testing.T) {
	kernels(t, func(t *testing.T, k *kernel) {
		c := startChild(t)
		f := mustOpen(t, k, c.pid)
		gone := func(t *testing.T) {
			for ns := NSUser; ns <= NSTimeForChildren; ns++ {
				if _, err := os.Stat("/proc/self/ns/" + ns.String()); err == nil {
					_, err := f.Namespace(ns)
					wantErr(t, err, unix.ESRCH)
				}
			}
		}
		c.zombify(t, f)
		t.Run("zombie", gone)
		c.reap()
		t.Run("reaped", gone)
	})
}

func TestNamespaceErrors(t *testing.T) {
	for _, tt := range []struct {
		name   string
		ioctl  unix.Errno
		procfs string
		ns     NS
		want   unix.Errno
	}{
		{"zero", 0, "/proc", 0, unix.EINVAL},
		{"unknown", 0, "/proc", NSTimeForChildren + 1, unix.EINVAL},
		{"not permitted", unix.EACCES, "/proc", NSNet, unix.EACCES},
		{"kernel without it", unix.EOPNOTSUPP, "/proc", NSNet, unix.EOPNOTSUPP},
		{"no procfs", unix.ENOTTY, t.TempDir(), NSNet, unix.ENOENT},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := newKernel()
			k.getNamespace = func(int, uint) (int, error) { return -1, tt.ioctl }
			k.procfs = tt.procfs
			_, err := mustOpen(t, k, os.Getpid()).Namespace(tt.ns)
			wantErr(t, err, tt.want)
		})
	}
	t.Run("old kernel without it", func(t *testing.T) {
		k := oldKernel(unix.EINVAL)
		k.procfs = t.TempDir()
		must(t, os.Symlink("1", k.procfs+"/self"))
		_, err := mustOpen(t, k, os.Getpid()).Namespace(NSTime)
		wantErr(t, err, unix.EOPNOTSUPP)
	})
}

func TestNSString(t *testing.T) {
	for ns, want := range map[NS]string{0: "NS(0)", NSMount: "mnt", NSPIDForChildren: "pid_for_children", 99: "NS(99)"} {
		if got := ns.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
