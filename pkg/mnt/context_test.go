package mnt

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
	"github.com/callgate/callgate/pkg/tracee"
)

func stat(t *testing.T, h *tracee.Handle) unix.Statfs_t {
	t.Helper()
	var fs unix.Statfs_t
	must(t, unix.Fstatfs(h.FD(), &fs))
	return fs
}

// TestContext makes a filesystem, with options that a comma does not end, and
// changes it.
func TestContext(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	fs, err := New("tmpfs")
	must(t, err)
	must(t, fs.Set("ro"))
	must(t, fs.SetString("source", "a,size=1m"))
	must(t, fs.SetString("size", "65536"))
	if err := fs.SetString("size", "65536,mode=0"); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a value with a comma: %v, want EINVAL", err)
	}
	if err := fs.SetString("source", strings.Repeat("x", 256)); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a value of 256 bytes: %v, want EINVAL", err)
	}
	if _, err := fs.Mount(0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("mounted before it is made: %v, want EINVAL", err)
	}
	must(t, fs.Create())
	if err := fs.Create(); !errors.Is(err, unix.EBUSY) {
		t.Errorf("made twice: %v, want EBUSY", err)
	}
	h, err := fs.Mount(unix.MOUNT_ATTR_NOEXEC)
	must(t, err)
	fs.Close()
	fs.Close()
	defer h.Close()
	if fs := stat(t, &h); fs.Blocks*uint64(fs.Bsize) != 65536 || fs.Flags&unix.ST_NOEXEC == 0 || fs.Flags&unix.ST_RDONLY == 0 || fs.Flags&unix.ST_NOSUID != 0 {
		t.Errorf("%+v", fs)
	}
	onThread(t, func(thread *tracee.Thread) {
		room, err := OpenRoom()
		if err != nil {
			t.Error(err)
			return
		}
		defer room.Close()
		if _, err := Pick(&tracee.Handle{}); !errors.Is(err, unix.EBADF) {
			t.Errorf("pick nothing: %v, want EBADF", err)
		}
		err = thread.InMounts(room.Namespace(), func() error {
			if err := room.Mount(&h, "x"); err != nil {
				return err
			}
			pick, err := Pick(&h)
			if err != nil {
				return err
			}
			defer pick.Close()
			if err := errors.Join(pick.Set("rw"), pick.SetString("size", "131072"), pick.Reconfigure()); err != nil {
				return err
			}
			file, err := os.Create("/x/file")
			if err != nil {
				return err
			}
			return file.Close()
		})
		if err != nil {
			t.Error(err)
		}
		if fs := stat(t, &h); fs.Blocks*uint64(fs.Bsize) != 131072 || fs.Flags&unix.ST_NOEXEC == 0 {
			t.Errorf("changed: %+v", fs)
		}
		must(t, room.Unmount("x"))
		if err := room.Unmount("x"); err == nil {
			t.Error("unmounted twice")
		}
	})
}

// TestCreateExclusive: one that is mounted is not shared, by Create it is.
func TestCreateExclusive(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	made := func(create func(*Context) error) (uint64, error) {
		fs, err := New("sysfs") // one for each network namespace
		must(t, err)
		defer fs.Close()
		if err := create(fs); err != nil {
			return 0, err
		}
		h, err := fs.Mount(0)
		must(t, err)
		defer h.Close()
		st, err := h.Stat()
		return st.Dev, err
	}
	var host unix.Stat_t
	must(t, unix.Stat("/sys", &host))
	if dev, err := made((*Context).Create); err != nil || dev != host.Dev {
		t.Errorf("shared: device %#x, the host's %#x, %v", dev, host.Dev, err)
	}
	switch _, err := made((*Context).CreateExclusive); {
	case errors.Is(err, unix.EOPNOTSUPP):
		t.Log("before Linux 6.6")
	case !errors.Is(err, unix.EBUSY):
		t.Errorf("exclusively: %v, want EBUSY", err)
	}
}

// TestTree: clones, attributes and their absence, on detached mounts.
func TestTree(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	h, err := Tmpfs(TmpfsOptions{Bytes: 65536, Inodes: 10})
	must(t, err)
	defer h.Close()
	if fs := stat(t, &h); fs.Blocks*uint64(fs.Bsize) != 65536 || fs.Files != 10 || fs.Flags&(unix.ST_NOSUID|unix.ST_NOEXEC) != unix.ST_NOSUID|unix.ST_NOEXEC {
		t.Errorf("%+v", fs)
	}
	st, err := h.Stat()
	if err != nil || st.Mode != 0o700 || !st.MountRoot {
		t.Errorf("%+v, %v", st, err)
	}
	var none tracee.Handle
	must(t, Attributes{}.Change(&none)) // which does nothing
	if err := (Attributes{Set: unix.MOUNT_ATTR_RDONLY}).Change(&none); !errors.Is(err, unix.EBADF) {
		t.Errorf("no mount: %v", err)
	}
	onThread(t, func(thread *tracee.Thread) {
		change := func(a Attributes, want uint64) {
			t.Helper()
			if err := thread.Privileged(func() error { return a.Change(&h) }); err != nil {
				t.Error(err)
			}
			if fs := stat(t, &h); uint64(fs.Flags)&(unix.ST_NOSUID|unix.ST_NOEXEC|unix.ST_RDONLY|unix.ST_NOATIME) != want {
				t.Errorf("%+v: flags %#x, want %#x", a, fs.Flags, want)
			}
		}
		change(Attributes{Set: unix.MOUNT_ATTR_RDONLY}, unix.ST_NOSUID|unix.ST_NOEXEC|unix.ST_RDONLY)
		change(Attributes{Clear: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID}, unix.ST_NOEXEC)
		change(Attributes{Set: unix.MOUNT_ATTR_NOATIME, Clear: unix.MOUNT_ATTR__ATIME}, unix.ST_NOEXEC|unix.ST_NOATIME)

		room, err := OpenRoom()
		if err != nil {
			t.Error(err)
			return
		}
		defer room.Close()
		must(t, thread.InMounts(room.Namespace(), func() error {
			if _, err := Clone(&none); !errors.Is(err, unix.EBADF) {
				t.Errorf("clone of nothing: %v", err)
			}
			if err := unix.Mkdir("/a", 0o700); err != nil {
				return err
			}
			at, err := unix.Open("/a", unix.O_PATH|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			dir := tracee.NewHandle(at)
			defer dir.Close()
			if err := Attach(&h, &dir); err != nil {
				return err
			}
			clone, err := Clone(&h)
			if err != nil {
				return err
			}
			defer clone.Close()
			a, _ := h.Stat()
			b, err := clone.Stat()
			if err != nil || a.Ino != b.Ino || a.Dev != b.Dev || a.MountID == b.MountID || !b.MountRoot {
				t.Errorf("clone %+v of %+v, %v", b, a, err)
			}
			if fs := stat(t, &clone); fs.Flags&unix.ST_NOATIME == 0 || fs.Flags&unix.ST_NOEXEC == 0 {
				t.Errorf("flags of the clone %#x", fs.Flags)
			}
			if err := Detach(&h); err != nil {
				return err
			}
			if err := Detach(&h); !errors.Is(err, unix.EINVAL) {
				t.Errorf("detached twice: %v, want EINVAL", err)
			}
			return unix.Rmdir("/a")
		}))
		if thread.Broken() {
			t.Error("the thread did not come back")
		}
		// Elsewhere the room's mounts are nobody's to clone.
		if _, err := Clone(room.Dir()); !errors.Is(err, unix.EINVAL) {
			t.Errorf("clone from another mount namespace: %v, want EINVAL", err)
		}
	})
}

// TestShift: by the initial user namespace nothing is shifted, nor by what is
// none. That it shifts is for those to test who have a container.
func TestShift(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	fd, err := unix.Open("/proc/self/ns/user", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	user := tracee.NewHandle(fd)
	defer user.Close()
	h := tree(t, 0)
	defer h.Close()
	if err := Shift(&h, &user); !errors.Is(err, unix.EPERM) {
		t.Errorf("by the initial user namespace: %v, want EPERM", err)
	}
	net, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	network := tracee.NewHandle(net)
	defer network.Close()
	if err := Shift(&h, &network); !errors.Is(err, unix.EINVAL) {
		t.Errorf("by what is none: %v, want EINVAL", err)
	}
}

// TestRoom: it has one mount, a directory that is empty, and none of the host's
// files.
func TestRoom(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	before := mountsOfHost(t)
	room, err := OpenRoom()
	must(t, err)
	defer room.Close()
	onThread(t, func(thread *tracee.Thread) {
		must(t, thread.InMounts(room.Namespace(), func() error {
			names, err := os.ReadDir("/")
			if len(names) != 0 {
				t.Errorf("in the room: %v", names)
			}
			if _, err := os.Stat("/proc/self"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("/proc: %v", err)
			}
			return err
		}))
		busy := tree(t, 0)
		defer busy.Close()
		must(t, thread.InMounts(room.Namespace(), func() error { return room.Mount(&busy, "x") }))
		again := tree(t, 0)
		defer again.Close()
		if err := thread.InMounts(room.Namespace(), func() error { return room.Mount(&again, "x") }); !errors.Is(err, unix.EEXIST) {
			t.Errorf("the name is taken: %v, want EEXIST", err)
		}
		if err := room.Mount(&again, "y"); !errors.Is(err, unix.EINVAL) {
			t.Errorf("from outside: %v, want EINVAL", err)
		}
		must(t, room.Unmount("x"))
		if err := unix.Faccessat(room.Dir().FD(), "y", unix.F_OK, 0); !errors.Is(err, unix.ENOENT) {
			t.Errorf("a directory was left: %v", err)
		}
	})
	if after := mountsOfHost(t); after != before {
		t.Errorf("the host's mounts are now\n%s", after)
	}
}
