package mount

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/emulators/emulatortest"
	"github.com/callgate/callgate/pkg/pidfd"
	"github.com/callgate/callgate/pkg/seccompnotify"
	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
	"github.com/callgate/callgate/pkg/tracee"
)

// containerID is what 0 is in the container.
const containerID = 100000

// container is a child in namespaces of its own, whose calls stop.
type container struct {
	*notifytest.Child
	listener *seccompnotify.Listener
	caller   *tracee.Tracee
	host     pidfd.NSID
	ns       pidfd.NSID
}

// namespaces are those of most containers.
const namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET

func startContainer(t *testing.T, flags uintptr) *container {
	t.Helper()
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: containerID, Size: 65536}}
	c := &container{Child: notifytest.Start(t, notifytest.Options{Leader: true, Flags: unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, Attr: &syscall.SysProcAttr{
		Cloneflags:  flags,
		UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
		Credential: &syscall.Credential{},
	}})}
	var err error
	c.listener, err = seccompnotify.NewListener(c.Listener)
	must(t, err)
	t.Cleanup(func() { _ = c.listener.Close() })
	proc, err := tracee.OpenProc()
	must(t, err)
	t.Cleanup(proc.Close)
	c.caller = tracee.New(proc)
	t.Cleanup(func() { c.caller.Reset(0, nil); c.caller.Forget() })
	alive := func() error { return nil }
	for pid, into := range map[int]*pidfd.NSID{os.Getpid(): &c.host, c.PID: &c.ns} {
		c.caller.Reset(pid, alive)
		*into, err = c.caller.UserNamespace()
		must(t, err)
	}
	return c
}

// mount has the emulator make a call of the container's, which stands in
// another one meanwhile.
func (c *container) mount(t *testing.T, e emulators.Emulator, thread *tracee.Thread, a arguments) result {
	t.Helper()
	c.Go(t, unix.SYS_ACCT)
	var n seccompnotify.Notification
	must(t, c.listener.Receive(&n))
	c.caller.Reset(int(n.PID), func() error {
		if errors.Is(c.listener.Valid(n.ID), seccompnotify.ErrGone) {
			return emulators.ErrGone
		}
		return nil
	})
	req := emulators.NewRequest(emulators.Call{
		Syscall: "mount", Args: c.place(t, a), Caller: c.caller, Thread: thread, Patience: emulators.Patient, Host: c.host,
		Container: &emulators.Container{ID: "test", Profile: "test", UserNamespace: c.ns},
	})
	r := finish(e, req, nil, true)
	must(t, c.listener.Return(n.ID, 0))
	c.Result(t)
	return r
}

func (c *container) place(t *testing.T, a arguments) [6]uint64 {
	const page = 1024
	at := func(i int, s string) uint64 { return c.Put(t, i*page, s+"\x00") }
	return [6]uint64{at(0, a.source), at(1, a.target), at(2, a.fstype), a.flags, at(3, a.data)}
}

// native has the container make the call by itself.
func (c *container) native(t *testing.T, a arguments) syscall.Errno {
	t.Helper()
	args := c.place(t, a)
	c.Go(t, unix.SYS_MOUNT, args[:]...)
	_, errno := c.Result(t)
	return errno
}

// inside is a path of the container's as the test gets to it.
func (c *container) inside(path string) string { return fmt.Sprintf("/proc/%d/root%s", c.PID, path) }

// TestContainer: in a user namespace the mount shows the container's ids, its
// flags are there to stay, and the host sees nothing of it.
func TestContainer(t *testing.T) {
	dir := site(t)
	must(t, os.Chown(dir+"/image", containerID, containerID))
	notifytest.NoLeak(t)
	for more, want := range map[string]struct {
		own    string
		owner  uint32
		locked uint64
	}{
		"":                                {"rw,nosuid,nodev,noatime", containerID, unix.MS_NOSUID | unix.MS_NODEV},
		", force: [noexec, ro]":           {"ro,nosuid,nodev,noexec,noatime", containerID, unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_RDONLY},
		", shift: false":                  {"rw,nosuid,nodev,noatime", 0, unix.MS_NOSUID | unix.MS_NODEV},
		", options: [suid, noatime]":      {"rw,nodev,noatime", containerID, unix.MS_NODEV},
		", options: [suid, dev, noatime]": {"rw,noatime", containerID, 0},
	} {
		t.Run(more, func(t *testing.T) {
			before, err := os.ReadFile("/proc/self/mountinfo")
			must(t, err)
			c := startContainer(t, namespaces)
			e := newEmulator(t, anyImage(dir, more))
			a := arguments{dir + "/image", dir + "/target", "ext4", unix.MS_NOATIME, ""}
			if errno := c.native(t, a); errno != unix.EPERM && errno != unix.ENOTBLK {
				t.Errorf("by itself: %v", errno)
			}
			emulatortest.OnThread(t, func(thread *tracee.Thread) {
				if r := c.mount(t, e, thread, a); !r.ok() {
					t.Error(r)
					return
				}
				text, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", c.PID))
				must(t, err)
				line := lineOf(string(text), a.target)
				if f := strings.Fields(line); len(f) < 6 || strings.TrimSuffix(f[5], ",idmapped") != want.own || strings.Contains(line, "idmapped") != (want.owner != 0) {
					t.Errorf("mounted as %q, want %s", line, want.own)
				}
				var st unix.Stat_t
				must(t, elsewhere(func() error { return unix.Stat(c.inside(a.target), &st) }))
				if st.Uid != want.owner || st.Gid != want.owner {
					t.Errorf("its root belongs to %d:%d, want %d", st.Uid, st.Gid, want.owner)
				}
				// The container takes away what is not locked, and nothing else.
				for _, f := range []uint64{unix.MS_NOSUID, unix.MS_NODEV, unix.MS_NOEXEC, unix.MS_RDONLY} {
					all := uint64(unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RDONLY) &^ f
					errno := c.native(t, arguments{target: a.target, flags: unix.MS_REMOUNT | unix.MS_BIND | all | unix.MS_NOATIME})
					if locked := want.locked&f != 0; locked != (errno == unix.EPERM) || !locked && errno != 0 {
						t.Errorf("remounting without %#x: %v", f, errno)
					}
				}
				if errno := c.native(t, arguments{target: a.target, flags: unix.MS_REMOUNT | unix.MS_BIND | want.locked | unix.MS_STRICTATIME}); want.locked != 0 && errno != unix.EPERM {
					t.Errorf("remounting with other access times: %v", errno)
				}
				// A remount by the agent tells the kernel of the locked ones.
				if r := c.mount(t, e, thread, arguments{target: a.target, flags: unix.MS_REMOUNT | unix.MS_RDONLY}); !r.ok() {
					t.Errorf("remount: %v", r)
				}
				text, err = os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", c.PID))
				must(t, err)
				if f := strings.Fields(lineOf(string(text), a.target)); len(f) < 6 || !has(f[5], "ro") || !has(f[len(f)-1], "ro") || has(f[5], "nodev") != has(want.own, "nodev") {
					t.Errorf("remounted: %v", f)
				}
				after, err := os.ReadFile("/proc/self/mountinfo")
				if err != nil || string(after) != string(before) {
					t.Errorf("the host's mounts are now\n%s, were\n%s", after, before)
				}
				if errno := c.unmount(t, a.target); errno != 0 {
					t.Errorf("umount2: %v", errno)
				}
			})
			released(t, dir)
		})
	}
}

func (c *container) unmount(t *testing.T, target string) syscall.Errno {
	c.Go(t, unix.SYS_UMOUNT2, c.String(t, target), 0)
	_, errno := c.Result(t)
	return errno
}

func lineOf(mountinfo, target string) string {
	for line := range strings.Lines(mountinfo) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == target {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// TestImageRights: the caller needs a right to the image of its own.
func TestImageRights(t *testing.T) {
	dir := site(t)
	notifytest.NoLeak(t)
	c := startContainer(t, namespaces)
	e := newEmulator(t, anyImage(dir, ""))
	emulatortest.OnThread(t, func(thread *tracee.Thread) {
		for _, x := range []struct {
			uid   int
			mode  os.FileMode
			flags uint64
			errno unix.Errno
		}{
			{0, 0o600, 0, unix.EACCES}, {0, 0o600, unix.MS_RDONLY, unix.EACCES}, {0, 0o644, 0, unix.EACCES}, {0, 0o644, unix.MS_RDONLY, 0}, {0, 0o666, 0, 0},
			{containerID, 0o600, 0, 0}, {containerID + 5, 0, 0, 0}, // CAP_DAC_OVERRIDE counts where the owner is mapped
		} {
			must(t, elsewhere(func() error { return errors.Join(os.Chown(dir+"/image", x.uid, x.uid), os.Chmod(dir+"/image", x.mode)) }))
			r := c.mount(t, e, thread, arguments{dir + "/image", dir + "/target", "ext4", x.flags, ""})
			if r.errno != x.errno || r.ok() != (x.errno == 0) {
				t.Errorf("owner %d, mode %o, flags %#x: %v, want %v", x.uid, x.mode, x.flags, r, x.errno)
			}
			if r.ok() {
				if errno := c.unmount(t, dir+"/target"); errno != 0 {
					t.Error(errno)
				}
				released(t, dir)
			}
		}
	})
}

// TestOtherNamespaces: capabilities count in the container's own user namespace
// and for its own mount namespaces only.
func TestOtherNamespaces(t *testing.T) {
	dir := site(t)
	must(t, os.Chown(dir+"/image", containerID, containerID))
	notifytest.NoLeak(t)
	e := newEmulator(t, anyImage(dir, ""))
	a := arguments{dir + "/image", dir + "/target", "ext4", 0, ""}
	for name, x := range map[string]struct {
		flags  uintptr
		change func(t *testing.T, c *container)
	}{
		"capability dropped": {namespaces, func(t *testing.T, c *container) {
			header := c.Put(t, 8192, "\x22\x05\x08\x20\x00\x00\x00\x00") // _LINUX_CAPABILITY_VERSION_3, itself
			c.Do(t, unix.SYS_CAPSET, header, c.Put(t, 8192+64, strings.Repeat("\x00", 24)))
		}},
		"not the container's user namespace": {namespaces, func(_ *testing.T, c *container) { c.ns.Ino++ }},
		"the host's mount namespace":         {unix.CLONE_NEWUSER, func(*testing.T, *container) {}},
	} {
		t.Run(name, func(t *testing.T) {
			c := startContainer(t, x.flags)
			x.change(t, c)
			emulatortest.OnThread(t, func(thread *tracee.Thread) {
				var denied emulators.Denied
				if r := c.mount(t, e, thread, a); !errors.As(r.err, &denied) || !denied.ByKernel {
					t.Error(r)
				}
			})
		})
	}
	if n := len(loopsOf(dir)); n != 0 {
		t.Errorf("%d loop devices", n)
	}
}

// TestNetwork: a filesystem that is on no device belongs to the network
// namespace of the caller. sysfs stands for those that this kernel lacks; no
// configuration would have it in a policy.
func TestNetwork(t *testing.T) {
	dir := site(t)
	notifytest.NoLeak(t)
	c := startContainer(t, namespaces)
	e := newEmulator(t, "")
	no := false
	e.policy.Allow = []rule{{Type: "sysfs", Source: []source{{glob: "server:*"}}, Shift: &no}}
	var host, made unix.Stat_t
	must(t, unix.Stat("/sys", &host))
	emulatortest.OnThread(t, func(thread *tracee.Thread) {
		a := arguments{"server:export", dir + "/target", "sysfs", 0, ""}
		home, err := os.Readlink("/proc/thread-self/ns/net")
		must(t, err)
		if r := c.mount(t, e, thread, a); !r.ok() {
			t.Error(r)
			return
		}
		if now, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || now != home {
			t.Errorf("the thread is in %s, was in %s, %v", now, home, err)
		}
		names, err := elsewhereNames(c.inside(a.target) + "/class/net")
		if err != nil || len(names) != 1 || names[0] != "lo" {
			t.Errorf("network devices %v, %v", names, err)
		}
		must(t, elsewhere(func() error { return unix.Stat(c.inside(a.target), &made) }))
		if made.Dev == host.Dev {
			t.Error("it is the host's network namespace")
		}
		if line := lineOf(string(must2(os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", c.PID)))), a.target); !strings.Contains(line, " - sysfs server:export ") {
			t.Errorf("mounted as %q", line)
		}
		var denied emulators.Denied
		a.source = "other:export"
		if r := c.mount(t, e, thread, a); !errors.As(r.err, &denied) || !denied.ByKernel {
			t.Errorf("another server: %v", r)
		}
	})
}

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func elsewhereNames(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}
