//go:build linux

package pidfd

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenThread(t *testing.T) {
	skipBefore(t, 6, 9)
	c := startChild(t)
	for _, tid := range []int{c.tid, c.pid} {
		f := mustOpenThread(t, newKernel(), tid)
		if !f.IsThread() || f.PID() != tid {
			t.Errorf("IsThread %v, PID %d of %d", f.IsThread(), f.PID(), tid)
		}
	}
}

func TestOpenThreadOldKernel(t *testing.T) {
	c := startChild(t)
	for _, nonLeader := range []unix.Errno{unix.EINVAL, unix.ENOENT} {
		t.Run(unix.ErrnoName(nonLeader), func(t *testing.T) {
			k := oldKernel(nonLeader)
			for _, tid := range []int{c.tid, c.pid, c.tid} {
				f := mustOpenThread(t, k, tid)
				if f.IsThread() || f.PID() != c.pid {
					t.Errorf("IsThread %v, PID %d of %d", f.IsThread(), f.PID(), tid)
				}
			}
			if k.threads.known() != unsupported {
				t.Error("a definite no was not remembered")
			}
		})
	}
}

func TestOpenThreadErrors(t *testing.T) {
	c := startChild(t)
	for _, tt := range []struct {
		name  string
		tid   int
		errno unix.Errno
	}{
		{"zero", 0, unix.EINVAL},
		{"negative", -1, unix.EINVAL},
		{"would be narrowed", narrowsTo(c.tid), unix.EINVAL},
		{"no such thread", 1<<31 - 1, unix.ESRCH},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kernels(t, func(t *testing.T, k *kernel) {
				_, err := k.openThread(tt.tid)
				wantErr(t, err, tt.errno)
			})
		})
	}
}

func TestProbeThreads(t *testing.T) {
	for _, tt := range []struct {
		name   string
		own    error // of pidfd_open on the calling thread
		errno  unix.Errno
		memory support
	}{
		{"supported", nil, unix.ESRCH, supported},
		{"could not tell", unix.EMFILE, unix.EINVAL, couldNotTell},
		{"refused", unix.EPERM, unix.EINVAL, couldNotTell},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := newKernel()
			k.pidfdOpen = func(pid, flags int) (int, error) {
				// As a process group whose leader is gone: a number without a task.
				if pid == 1<<30 {
					return -1, unix.EINVAL
				}
				if tt.own != nil {
					return -1, tt.own
				}
				return pidfdOpen(os.Getpid(), 0)
			}
			_, err := k.openThread(1 << 30)
			wantErr(t, err, tt.errno)
			if k.threads.known() != tt.memory {
				t.Errorf("remembers %d, want %d", k.threads.known(), tt.memory)
			}
		})
	}
}

// The tgid found in /proc may be another's by the time it is opened.
func TestOpenThreadTgidReused(t *testing.T) {
	c := startChild(t)
	fake := func(t *testing.T, tgid int) string {
		dir := t.TempDir()
		must(t, os.Mkdir(filepath.Join(dir, fmt.Sprint(c.tid)), 0o700))
		text := fmt.Sprintf("Tgid:\t%d\nPid:\t%d\nPPid:\t1\nUid:\t0 0 0 0\nGid:\t0 0 0 0\n", tgid, c.tid)
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(c.tid), "status"), []byte(text), 0o600))
		return dir
	}
	t.Run("thread moved", func(t *testing.T) {
		k := oldKernel(unix.EINVAL)
		k.procfs = fake(t, os.Getpid())
		open := k.pidfdOpen
		k.pidfdOpen = func(pid, flags int) (int, error) {
			if pid == os.Getpid() && flags == 0 { // flags: the probe, perhaps on our leader
				k.procfs = "/proc" // where the thread is the child's
			}
			return open(pid, flags)
		}
		_, err := k.openThread(c.tid)
		wantErr(t, err, unix.ESRCH)
	})
	t.Run("process reaped", func(t *testing.T) {
		k := oldKernel(unix.EINVAL)
		k.pidfdSendSignal = func(int, unix.Signal) error { return unix.ESRCH }
		_, err := k.openThread(c.tid)
		wantErr(t, err, unix.ESRCH)
	})
	t.Run("no procfs", func(t *testing.T) {
		k := oldKernel(unix.EINVAL)
		k.procfs = t.TempDir()
		_, err := k.openThread(c.tid)
		wantErr(t, err, unix.ENOENT)
	})
}
