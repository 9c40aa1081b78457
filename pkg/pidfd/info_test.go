//go:build linux

package pidfd

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestInfo(t *testing.T) {
	c := startChild(t)
	process := Info{PID: uint32(c.pid), TGID: uint32(c.pid), PPID: uint32(os.Getpid())}
	thread := Info{
		PID: uint32(c.tid), TGID: uint32(c.pid), PPID: uint32(os.Getpid()),
		RUID: threadRUID, EUID: threadEUID, SUID: threadSUID, FSUID: threadFSUID,
		RGID: threadRGID, EGID: threadEGID, SGID: threadSGID, FSGID: threadFSGID,
	}
	kernels(t, func(t *testing.T, k *kernel) {
		threadPidfd := mustOpenThread(t, newKernel(), c.tid)
		threadPidfd.k = k
		want := thread
		if !threadPidfd.IsThread() {
			want = process
		}
		for _, tt := range []struct {
			name string
			f    *FD
			want Info
		}{
			{"process", mustOpen(t, k, c.pid), process},
			{"thread", threadPidfd, want},
		} {
			t.Run(tt.name, func(t *testing.T) {
				got, err := tt.f.Info()
				must(t, err)
				got.CgroupID, got.HasCgroup = 0, false
				if got != tt.want {
					t.Errorf("got  %+v\nwant %+v", got, tt.want)
				}
			})
		}
	})
}

func TestInfoGone(t *testing.T) {
	kernels(t, func(t *testing.T, k *kernel) {
		c := startChild(t)
		f := mustOpen(t, k, c.pid)
		c.zombify(t, f)
		info, err := f.Info()
		must(t, err)
		if info.TGID != uint32(c.pid) {
			t.Errorf("zombie's TGID %d, want %d", info.TGID, c.pid)
		}
		c.reap()
		_, err = f.Info()
		wantErr(t, err, unix.ESRCH)
	})
}

func TestInfoIoctl(t *testing.T) {
	skipBefore(t, 6, 13)
	k := newKernel()
	k.procfs = t.TempDir() // no fallback
	info, err := mustOpen(t, k, os.Getpid()).Info()
	must(t, err)
	if !info.HasCgroup || info.CgroupID == 0 {
		t.Errorf("no cgroup: %+v", info)
	}
	// The parent of kthreadd is nobody; releases around 6.13 called that ESRCH.
	if info, err = mustOpen(t, newKernel(), 2).Info(); err != nil || info.PPID != 0 {
		t.Errorf("kthreadd: %+v, %v", info, err)
	}
}

// Each way in which a kernel does not have the ioctl leads to /proc.
func TestInfoFallback(t *testing.T) {
	for _, tt := range []struct {
		name string
		mask uint64
		err  error
		want unix.Errno
	}{
		{"before 6.11", 0, unix.ENOTTY, 0},
		{"6.11 and 6.12", 0, unix.EINVAL, 0},
		{"parent outside our PID namespace", 0, unix.ESRCH, 0},
		{"without credentials", unix.PIDFD_INFO_PID, nil, 0},
		{"refused", 0, unix.EPERM, unix.EPERM},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := newKernel()
			k.getInfo = func(int) (pidfdInfo, error) { return pidfdInfo{mask: tt.mask}, tt.err }
			info, err := mustOpen(t, k, os.Getpid()).Info()
			if tt.want != 0 {
				wantErr(t, err, tt.want)
				return
			}
			must(t, err)
			if info.PID != uint32(os.Getpid()) || info.HasCgroup {
				t.Errorf("got %+v", info)
			}
		})
	}
}

// The number of a dead process is a living one's by now: /proc must not be
// believed.
func TestReusedPID(t *testing.T) {
	for name, k := range map[string]*kernel{"running": newKernel(), "old": oldKernel(unix.ENOENT)} {
		t.Run(name, func(t *testing.T) {
			c := startChild(t)
			f := mustOpen(t, k, c.pid)
			c.reap()
			f.pid = os.Getpid()
			for method, call := range methods(t) {
				if method == "Alive" || method == "Wait" {
					continue
				}
				t.Run(method, func(t *testing.T) { wantErr(t, call(f), unix.ESRCH) })
			}
			alive, err := f.Alive()
			must(t, err)
			if alive {
				t.Error("alive")
			}
			must(t, f.Wait(t.Context()))
		})
	}
}

func TestInfoDoesNotAllocate(t *testing.T) {
	skipBefore(t, 6, 13)
	f := mustOpen(t, newKernel(), os.Getpid())
	if n := testing.AllocsPerRun(100, func() { _, _ = f.Info() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
