package tracee

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/pidfd"
	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

// TestReadUpTo: what memory there is, as mount(2) copies its options.
func TestReadUpTo(t *testing.T) {
	const pages = 3
	mem := arena(t, pages)
	end := pages * pageSize
	for i := range end {
		mem[i] = byte(i*7 + i/pageSize)
	}
	tr := own(t, alive)
	for _, c := range []struct{ at, size, want int }{
		{0, 0, 0}, {0, 1, 1}, {0, pageSize, pageSize}, {5, pageSize, pageSize}, {pageSize - 1, 2, 2}, {0, end, end}, {0, end + 1, end},
		{end - 1, 1, 1}, {end - 1, 100, 1}, {end - pageSize, pageSize, pageSize}, {end - 10, pageSize, 10}, {end - pageSize - 3, 2 * pageSize, pageSize + 3},
	} {
		buf := make([]byte, c.size)
		n, err := tr.ReadUpTo(addr(mem[c.at:]), buf)
		if err != nil || n != c.want || !bytes.Equal(buf[:n], mem[c.at:c.at+n]) {
			t.Errorf("%d bytes at %d: %d, %v, want %d", c.size, c.at, n, err, c.want)
		}
		if !bytes.Equal(buf[n:], make([]byte, len(buf)-n)) {
			t.Errorf("%d bytes at %d: more was written than %d", c.size, c.at, n)
		}
	}
	must(t, unix.Mprotect(mem[pageSize:2*pageSize], unix.PROT_NONE))
	if n, err := tr.ReadUpTo(addr(mem), make([]byte, end)); err != nil || n != pageSize {
		t.Errorf("up to a hole: %d, %v", n, err)
	}
	for name, a := range map[string]uint64{
		"NULL": 0, "first page": 8, "no access": addr(mem[pageSize:]), "behind the end": addr(mem[end:]), "kernel": 0xffffffff81000000,
		"last byte": ^uint64(0), "last page": ^uint64(pageSize - 1), "not canonical": 1 << 60,
	} {
		n, err := tr.ReadUpTo(a, make([]byte, 2*pageSize))
		wantErr(t, name, err, unix.EFAULT)
		if n != 0 {
			t.Errorf("%s: %d bytes", name, n)
		}
	}
	for k := range 3 {
		tr.Reset(tr.TID(), dying(k))
		n, err := tr.ReadUpTo(addr(mem[2*pageSize:]), make([]byte, pageSize+1))
		if gone := errors.Is(err, ErrGone); gone != (k < 2) || gone && n != 0 {
			t.Errorf("died after %d checks: %d, %v", k, n, err)
		}
	}
}

func TestMountRoot(t *testing.T) {
	root := tree(t, "d/")
	for path, want := range map[string]bool{"/": true, "/proc": true, "/proc/self/": false, root + "/d": false} {
		st, err := dir(t, path).Stat()
		if err != nil || st.MountRoot != want {
			t.Errorf("%s: %v, %v", path, st.MountRoot, err)
		}
	}
	st, err := dir(t, "/").StatAt("proc")
	if err != nil || !st.MountRoot {
		t.Errorf("StatAt of a mount point: %+v, %v", st, err)
	}
}

// TestOwner: a namespace belongs to the user namespace that its maker was in.
func TestOwner(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	mine, err := own(t, alive).UserNamespace()
	must(t, err)
	c := inNamespaces(t, unix.CLONE_NEWUSER|unix.CLONE_NEWNS)
	tr := callerOf(t, c)
	theirs, err := tr.UserNamespace()
	must(t, err)
	for ns, want := range map[pidfd.NS]pidfd.NSID{pidfd.NSMount: theirs, pidfd.NSNet: mine, pidfd.NSUser: mine} {
		h, err := tr.Namespace(ns)
		must(t, err)
		owner, err := Owner(&h)
		if ns == pidfd.NSUser {
			// Of a user namespace it is the one above.
			if err != nil || owner != mine {
				t.Errorf("user namespace: %v, %v, want %v", owner, err, mine)
			}
		} else if err != nil || owner != want {
			t.Errorf("namespace %v belongs to %v, %v, want %v", ns, owner, err, want)
		}
		h.Close()
	}
	initial, err := own(t, alive).Namespace(pidfd.NSUser)
	must(t, err)
	defer initial.Close()
	_, err = Owner(&initial)
	wantErr(t, "the initial user namespace", err, unix.EPERM)
	_, err = Owner(dir(t, "/"))
	wantErr(t, "no namespace", err, unix.EBADF)
}

// inNamespaces is a child whose 0 is nobody's.
func inNamespaces(t *testing.T, flags uintptr) *notifytest.Child {
	t.Helper()
	return notifytest.Start(t, notifytest.Options{Leader: true, Attr: userNamespace(flags)})
}

// callerOf is a child that need not be stopped.
func callerOf(t *testing.T, c *notifytest.Child) *Tracee {
	t.Helper()
	tr := New(proc(t))
	tr.Reset(c.TID, alive)
	t.Cleanup(func() { tr.Reset(0, alive); tr.Forget(); must(t, unix.Close(c.Listener)) })
	return tr
}

// TestHasMount: of its own mount namespace, by a number that is used once.
func TestHasMount(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	tr := own(t, alive)
	st, err := dir(t, "/proc").Stat()
	must(t, err)
	if !st.Unique {
		t.Skip("needs Linux 6.8")
	}
	has, err := tr.HasMount(st.MountID)
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.ENOSYS) {
		t.Skip("needs Linux 6.11")
	}
	if err != nil || !has {
		t.Errorf("/proc: %v, %v", has, err)
	}
	if has, err = tr.HasMount(st.MountID + 1<<40); err != nil || has {
		t.Errorf("no mount: %v, %v", has, err)
	}
	c := notifytest.Start(t, notifytest.Options{})
	c.Do(t, unix.SYS_UNSHARE, unix.CLONE_FS|unix.CLONE_NEWNS)
	if has, err = callerOf(t, c).HasMount(st.MountID); err != nil || has {
		t.Errorf("somebody else's: %v, %v", has, err)
	}
}

// TestSuperOptions: the filesystem's own, of the mount that is on top.
func TestSuperOptions(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	root := tree(t, "a b/")
	c := notifytest.Start(t, notifytest.Options{})
	c.Do(t, unix.SYS_UNSHARE, unix.CLONE_FS|unix.CLONE_NEWNS)
	c.Do(t, unix.SYS_MOUNT, 0, c.String(t, "/"), 0, unix.MS_REC|unix.MS_PRIVATE)
	target := c.String(t, root+"/a b")
	for _, size := range []string{"64k", "128k"} {
		c.Do(t, unix.SYS_MOUNT, c.Put(t, 8192, "none\x00"), target, c.Put(t, 8192+64, "tmpfs\x00"), unix.MS_NOEXEC, c.Put(t, 8192+128, "size="+size+"\x00"))
	}
	tr, answer := stopped(t, c)
	defer answer()
	caller, err := tr.Root()
	must(t, err)
	onThread(t, func(th *Thread) {
		who, err := tr.Actor(true)
		if err != nil {
			t.Error(err)
			return
		}
		h, err := th.Open(&who, Lookup{Root: caller, Patient: true}, root+"/a b", unix.O_PATH)
		if err != nil {
			t.Error(err)
			return
		}
		defer h.Close()
		text, err := tr.SuperOptions(&h)
		if err != nil || !strings.Contains(","+text+",", ",size=128k,") || strings.Contains(text, "noexec") {
			t.Errorf("options %q, %v", text, err)
		}
	})
	// Not in the caller's list.
	if text, err := tr.SuperOptions(dir(t, "/proc")); err != nil || text != "" {
		t.Errorf("of the host's mount: %q, %v", text, err)
	}
}

// TestInNetwork: it comes home, also from within another mount namespace.
func TestInNetwork(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	network := func() string {
		link, err := os.Readlink("/proc/thread-self/ns/net")
		must(t, err)
		return link
	}
	c := inNamespaces(t, unix.CLONE_NEWUSER|unix.CLONE_NEWNS|unix.CLONE_NEWNET)
	tr := callerOf(t, c)
	net, err := tr.Namespace(pidfd.NSNet)
	must(t, err)
	defer net.Close()
	mounts, err := tr.Namespace(pidfd.NSMount)
	must(t, err)
	defer mounts.Close()
	fault := errors.New("fault")
	onThread(t, func(th *Thread) {
		home := network()
		leaves := func() error {
			if network() == home {
				t.Error("still at home")
			}
			return fault
		}
		back := func(from string) {
			t.Helper()
			if now := network(); now != home || th.Broken() {
				t.Errorf("after %s: in %s, left %s, broken %v", from, now, home, th.Broken())
			}
		}
		wantErr(t, "f's error", th.InNetwork(&net, leaves), fault)
		back("an error")
		func() {
			defer func() { _ = recover() }()
			_ = th.InNetwork(&net, func() error { panic("in the middle") })
		}()
		back("a panic")
		must(t, th.InNetwork(&net, func() error {
			return th.As(&Identity{FSUID: 7, FSGID: 7}, 0, func() error { return nil }) // without capabilities
		}))
		back("acting as somebody")
		wantErr(t, "within InMounts", th.InMounts(&mounts, func() error { return th.InNetwork(&net, func() error { return fault }) }), fault)
		back("another mount namespace")
		wantErr(t, "nowhere", th.InNetwork(&mounts, func() error { return nil }), unix.EINVAL)
		wantErr(t, "no handle", th.InNetwork(&Handle{}, func() error { return nil }), unix.EBADF)
		back("nowhere")
	})
}

// TestDying: a caller that was killed, and nobody else.
func TestDying(t *testing.T) {
	notifytest.NeedRoot(t)
	if own(t, alive).Dying() {
		t.Error("this process is not dying")
	}
	c := notifytest.Start(t, notifytest.Options{})
	tr, _ := stopped(t, c)
	if tr.Dying() {
		t.Error("a caller that waits is not dying")
	}
	c.Signal(t, unix.SIGURG) // the Go runtime has a handler
	if tr.Dying() {
		t.Error("a caller that gets a signal is not dying")
	}
	must(t, unix.Kill(c.PID, unix.SIGKILL))
	if !tr.Dying() {
		t.Error("a caller that was killed is dying")
	}
	c.Kill()
	if !tr.Dying() {
		t.Error("a caller that is no more is dying")
	}
}

func TestTaskStat(t *testing.T) {
	numbers := func(flags, pending string) string {
		fields := strings.Fields(strings.Repeat("0 ", 50))
		fields[0], fields[9-3], fields[31-3] = "S", flags, pending
		return strings.Join(fields, " ") + "\n"
	}
	for _, c := range []struct {
		text           string
		flags, pending uint64
		ok             bool
	}{
		{"1 (a) " + numbers("4194304", "256"), 4194304, 256, true},
		{"1 (a) 1 (b) S) " + numbers("4", "0"), 4, 0, true},
		{"1 ()) " + numbers("1", "18446744073709551615"), 1, 1<<64 - 1, true},
		{"1 (a) " + numbers("x", "0"), 0, 0, false},
		{"1 (a) " + numbers("0", "-1"), 0, 0, false},
		{"1 (a) S 1 2 3", 0, 0, false},
		{"", 0, 0, false},
		{")", 0, 0, false},
	} {
		flags, pending, ok := taskStat([]byte(c.text))
		if ok != c.ok || ok && (flags != c.flags || pending != c.pending) {
			t.Errorf("%.20q: %d, %d, %v", c.text, flags, pending, ok)
		}
	}
}

// TestDevicesOpen: on what mounts, and never by opening the device.
func TestDevicesOpen(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	onThread(t, func(th *Thread) {
		must(t, unix.Unshare(unix.CLONE_NEWNS))
		must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		for flags, want := range map[uintptr]bool{0: true, unix.MS_NODEV: false, unix.MS_RDONLY: true} {
			root := t.TempDir()
			must(t, th.Privileged(func() error {
				return errors.Join(unix.Mount("none", root, "tmpfs", 0, ""),
					// No driver has it: to open it would be ENXIO.
					unix.Mknod(root+"/node", unix.S_IFBLK|0o600, int(unix.Mkdev(7, 1<<20-1))),
					unix.Mount("none", root, "", flags|unix.MS_REMOUNT, ""))
			}))
			for _, owner := range []int{0, 1000, overflowID} {
				if flags&unix.MS_RDONLY == 0 {
					must(t, th.Privileged(func() error { return os.Chown(root+"/node", owner, owner) }))
				}
				h, err := openat(unix.AT_FDCWD, root+"/node", unix.O_PATH)
				must(t, err)
				st, err := h.Stat()
				must(t, err)
				if opens, err := th.DevicesOpen(&h, &st); err != nil || opens != want {
					t.Errorf("flags %#x, owner %d: %v, %v", flags, owner, opens, err)
				}
				h.Close()
			}
			must(t, th.Privileged(func() error { return unix.Unmount(root, unix.MNT_DETACH) }))
		}
	})
}

func userNamespace(flags uintptr) *syscall.SysProcAttr {
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
	return &syscall.SysProcAttr{Cloneflags: flags, UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true, Credential: &syscall.Credential{}}
}
