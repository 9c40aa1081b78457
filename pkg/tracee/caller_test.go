package tracee

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/pidfd"
	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

func TestStoppedCaller(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	root := tree(t, "sub/", "file")
	c := notifytest.Start(t, notifytest.Options{})
	// The calling thread differs from its process in all that it can.
	c.Do(t, unix.SYS_UNSHARE, unix.CLONE_FILES|unix.CLONE_FS|unix.CLONE_NEWNS)
	c.Do(t, unix.SYS_CHROOT, c.String(t, root))
	c.Do(t, unix.SYS_CHDIR, c.String(t, "/sub"))
	c.Do(t, unix.SYS_UMASK, 0o037)
	at := int64(unix.AT_FDCWD)
	fd := c.Do(t, unix.SYS_OPENAT, uint64(at), c.String(t, "/file"), unix.O_RDONLY)
	dfd := c.Do(t, unix.SYS_OPENAT, uint64(at), c.String(t, "/"), unix.O_RDONLY)
	c.Do(t, unix.SYS_SETFSGID, 77)
	text := c.String(t, "hello")
	tr, answer := stopped(t, c)
	if tr.TID() != c.TID || tr.StillWaiting() != nil {
		t.Errorf("thread %d, want %d", tr.TID(), c.TID)
	}
	if s, err := tr.ReadString(text, PathMax); err != nil || s != "hello" {
		t.Errorf("ReadString: %q, %v", s, err)
	}
	for _, a := range []uint64{c.Arena + notifytest.ArenaSize, c.Arena + notifytest.ArenaSize + pageSize} {
		_, err := tr.ReadString(a, PathMax)
		wantErr(t, "no memory", err, unix.EFAULT)
	}
	s, err := tr.Status()
	must(t, err)
	if s.TGID != c.PID || s.FSGID != 77 || s.Umask != 0o037 {
		t.Errorf("status %+v", s)
	}
	look := func(name string, h Handle, err error, want string) {
		t.Helper()
		defer h.Close()
		must(t, err)
		if !sameFile(t, &h, want) {
			t.Errorf("%s is not %s", name, want)
		}
	}
	r, err := tr.Root()
	must(t, err)
	if !sameFile(t, r, root) {
		t.Errorf("root is not %s", root)
	}
	h, err := tr.Cwd()
	look("cwd", h, err, root+"/sub")
	h, err = tr.Dir(unix.AT_FDCWD)
	look("AT_FDCWD", h, err, root+"/sub")
	h, err = tr.File(int32(fd))
	look("file", h, err, root+"/file")
	h, err = tr.Dir(int32(dfd))
	look("dirfd", h, err, root)
	_, err = tr.Dir(int32(fd))
	wantErr(t, "file as a directory", err, unix.ENOTDIR)
	for _, n := range []int32{9999, -1, -1 << 31} {
		_, err = tr.File(n)
		wantErr(t, "no such descriptor", err, unix.EBADF)
	}
	// Its root is no mount: mountinfo does not tell of it.
	root1, err := tr.Root()
	must(t, err)
	st, err := root1.Stat()
	must(t, err)
	if owns, err := tr.OwnsMount(root1, &st, true); st.Unique && (err != nil || !owns) {
		t.Errorf("chrooted: %v, %v", owns, err)
	}
	st.Unique = false
	if owns, err := tr.OwnsMount(root1, &st, true); err != nil || owns {
		t.Errorf("chrooted, by mountinfo: %v, %v", owns, err)
	}
	t.Run("without thread pidfds", func(t *testing.T) {
		must(t, tr.pid.Close())
		tr.pid, err = pidfd.Open(c.PID)
		must(t, err)
		_, err := tr.File(int32(fd))
		wantErr(t, "a table of its own", err, unix.EOPNOTSUPP)
	})
	answer()
	wantErr(t, "after the answer", tr.StillWaiting(), ErrGone)
}

func TestNamespaces(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	c := notifytest.Start(t, notifytest.Options{})
	c.Do(t, unix.SYS_UNSHARE, unix.CLONE_FS|unix.CLONE_NEWNS)
	tr, answer := stopped(t, c)
	defer answer()
	us, err := tr.UserNamespace()
	must(t, err)
	mine, err := own(t, alive).UserNamespace()
	if err != nil || us != mine {
		t.Errorf("user namespace %v, ours %v, %v", us, mine, err)
	}
	// It unshared its mounts: its root is its own mount, "/" here is ours.
	root, err := tr.Root()
	must(t, err)
	for name, c := range map[string]struct {
		h    *Handle
		want bool
	}{"its own": {root, true}, "the host's": {dir(t, "/"), false}} {
		st, err := c.h.Stat()
		must(t, err)
		unique := st
		for _, how := range []string{"statmount", "mountinfo"} {
			owns, err := tr.OwnsMount(c.h, &st, true)
			if err != nil || owns != c.want {
				t.Errorf("%s by %s: %v, %v", name, how, owns, err)
			}
			st.Unique = false
		}
		_, err = tr.OwnsMount(c.h, &st, false)
		wantErr(t, "mountinfo in a hurry", err, ErrBlocks)
		if unique.Unique {
			if owns, err := tr.OwnsMount(c.h, &unique, false); err != nil || owns != c.want {
				t.Errorf("%s in a hurry: %v, %v", name, owns, err)
			}
		}
	}
}

func TestSharedTable(t *testing.T) {
	notifytest.NeedRoot(t)
	for _, leader := range []bool{true, false} {
		c := notifytest.Start(t, notifytest.Options{Leader: leader})
		if (c.TID == c.PID) != leader {
			t.Errorf("leader %v: process %d, thread %d", leader, c.PID, c.TID)
		}
		tr, answer := stopped(t, c)
		var err error
		tr.pid, err = pidfd.Open(c.PID)
		must(t, err)
		h, err := tr.File(0)
		wantErr(t, "File", err, nil)
		h.Close()
		answer()
	}
}

func TestKilledCaller(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	c := notifytest.Start(t, notifytest.Options{})
	tr, _ := stopped(t, c)
	_, err := tr.Pidfd()
	must(t, err)
	c.Kill()
	_, err = tr.Status()
	wantErr(t, "Status", err, ErrGone)
	_, err = tr.Root()
	wantErr(t, "Root", err, ErrGone)
	_, err = tr.File(0)
	wantErr(t, "File", err, ErrGone)
	_, err = tr.UserNamespace()
	wantErr(t, "UserNamespace", err, ErrGone)
	_, err = tr.ReadString(c.Arena, PathMax)
	wantErr(t, "ReadString", err, ErrGone)
	wantErr(t, "WriteMemory", tr.WriteMemory(c.Arena, []byte("x")), ErrGone)
}

func TestActor(t *testing.T) {
	tr := own(t, alive)
	for _, privileged := range []bool{true, false} {
		who, err := tr.Actor(privileged)
		must(t, err)
		if who.Override&^overriding != 0 || !privileged && who.Override != 0 {
			t.Errorf("override %#x", who.Override)
		}
		if int(who.FSUID) != os.Geteuid() {
			t.Errorf("fsuid %d", who.FSUID)
		}
		for id, want := range map[uint32]bool{uint32(os.Geteuid()): true, overflowID: false} {
			if owns, err := who.Owns(&Stat{UID: id, GID: uint32(os.Getegid())}); err != nil || owns != want {
				t.Errorf("owns %d: %v, %v", id, owns, err)
			}
		}
	}
	tr.Reset(0, alive)
	if _, err := tr.Pidfd(); err == nil || errors.Is(err, ErrGone) {
		t.Errorf("thread id 0: %v", err)
	}
}

func TestMounts(t *testing.T) {
	var m Mounts
	h := dir(t, "/")
	st, err := h.Stat()
	must(t, err)
	_, err = m.Look(h, &st, false)
	wantErr(t, "in a hurry, unknown", err, ErrBlocks)
	fs, err := m.Look(h, &st, true)
	must(t, err)
	again, err := m.Look(h, &st, false)
	if st.Unique && (err != nil || again != fs || fs.Tried) {
		t.Errorf("known: %+v, %v", again, err)
	}
	m.Learn(&st, fs, true)
	if again, err = m.Look(h, &st, false); st.Unique && (err != nil || !again.NoDevices || !again.Tried) {
		t.Errorf("learnt: %+v, %v", again, err)
	}
	reused := st
	reused.Unique = false
	_, err = m.Look(h, &reused, false)
	wantErr(t, "an id that is used again", err, ErrBlocks)
	for id := range uint64(10 * maxMounts) {
		m.remember(&Stat{MountID: id, Unique: true}, fs)
		if len(m.seen) > maxMounts {
			t.Fatalf("remembers %d mounts", len(m.seen))
		}
	}
	for magic, want := range map[int64]bool{unix.EXT4_SUPER_MAGIC: true, unix.TMPFS_MAGIC: true, unix.FUSE_SUPER_MAGIC: false,
		unix.NFS_SUPER_MAGIC: false, unix.OVERLAYFS_SUPER_MAGIC: false, unix.AUTOFS_SUPER_MAGIC: false, 0x12345: false} {
		if local(magic) != want {
			t.Errorf("local(%#x) = %v", magic, !want)
		}
	}
	overlay := Filesystem{Magic: unix.OVERLAYFS_SUPER_MAGIC}
	for _, inside := range []bool{true, false} {
		unique := Stat{MountID: 1, Unique: true}
		m.Learn(&unique, overlay, inside)
		if fs, err := m.Look(h, &unique, false); err != nil || fs.Local == inside {
			t.Errorf("overlay, mounted inside %v: %+v, %v", inside, fs, err)
		}
	}
}
