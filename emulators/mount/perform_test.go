package mount

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/emulators/emulatortest"
	"github.com/callgate/callgate/pkg/tracee"
)

// site is a folder with an image and a directory to mount it on.
func site(t *testing.T) (dir string) {
	t.Helper()
	emulatortest.NeedRoot(t)
	dir = folder(t)
	must(t, os.Mkdir(dir+"/target", 0o755))
	image(t, dir+"/image")
	return dir
}

func anyImage(dir, more string) string {
	return `allow: [{type: ext4, source: ["` + dir + `/*"], loop: true` + more + `}]`
}

// options of the mount at a path: its own, and the filesystem's.
func mountinfo(tb testing.TB, path string) (source, own, super string) {
	tb.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	must(tb, err)
	for line := range strings.Lines(string(text)) {
		before, after, _ := strings.Cut(line, " - ")
		if f := strings.Fields(before); f[4] == path {
			a := strings.Fields(after)
			source, own, super = a[1], f[5], a[2]
		}
	}
	return source, own, super
}

func has(list, option string) bool { return strings.Contains(","+list+",", ","+option+",") }

// TestImage: an image is mounted, can be used and unmounted, and its loop
// device goes.
func TestImage(t *testing.T) {
	dir := site(t)
	e := newEmulator(t, anyImage(dir, `, options: [noatime, "data=*"]`))
	a := arguments{dir + "/image", dir + "/target", "ext4", unix.MS_NOATIME | unix.MS_NOEXEC, "data=ordered"}
	emulatortest.OnThread(t, func(thread *tracee.Thread) {
		if r := emulate(t, e, thread, a); !r.ok() {
			t.Error(r)
			return
		}
		source, own, super := mountinfo(t, a.target)
		if !strings.HasPrefix(source, "/dev/loop") {
			t.Errorf("source %s", source)
		}
		for _, want := range []string{"rw", "nosuid", "nodev", "noexec", "noatime"} {
			if !has(own, want) {
				t.Errorf("mount options %s lack %s", own, want)
			}
		}
		if !has(super, "rw") {
			t.Errorf("filesystem's options %s", super)
		}
		if n := len(loopsOf(dir)); n != 1 {
			t.Errorf("%d loop devices", n)
		}
		must(t, elsewhere(func() error {
			return errors.Join(os.WriteFile(a.target+"/file", []byte("x"), 0o600), unix.Unmount(a.target, 0))
		}))
		released(t, dir)
		// Again, and what was written is there.
		if r := emulate(t, e, thread, a); !r.ok() {
			t.Error(r)
			return
		}
		must(t, elsewhere(func() error {
			_, err := os.Stat(a.target + "/file")
			return errors.Join(err, unix.Unmount(a.target, 0))
		}))
	})
}

// TestForcedFlags: a rule's flags are on the mount whatever the call says.
func TestForcedFlags(t *testing.T) {
	dir := site(t)
	for more, want := range map[string][2]string{
		"":                                      {"rw,nosuid,nodev,relatime", "rw"},
		", force: [ro]":                         {"ro,nosuid,nodev,relatime", "ro"},
		", force: [ro, noexec]":                 {"ro,nosuid,nodev,noexec,relatime", "ro"},
		", options: [suid]":                     {"rw,nodev,relatime", "rw"},
		", options: [suid, dev]":                {"rw,relatime", "rw"},
		", options: [suid, dev], force: [ro]":   {"ro,relatime", "ro"},
		", options: [suid], force: [nosuid]":    {"rw,nosuid,nodev,relatime", "rw"},
		`, options: ["data=*"], force: [nodev]`: {"rw,nosuid,nodev,relatime", "rw"},
	} {
		t.Run(more, func(t *testing.T) {
			e := newEmulator(t, anyImage(dir, more))
			emulatortest.OnThread(t, func(thread *tracee.Thread) {
				for _, data := range []string{"", "rw"} {
					if r := emulate(t, e, thread, arguments{dir + "/image", dir + "/target", "ext4", 0, data}); !r.ok() {
						t.Error(r)
						return
					}
					_, own, super := mountinfo(t, dir+"/target")
					if own != want[0] || !has(super, want[1]) {
						t.Errorf("with %q: %s, %s, want %v", data, own, super, want)
					}
					must(t, elsewhere(func() error { return unix.Unmount(dir+"/target", 0) }))
					released(t, dir)
				}
			})
		})
	}
}

// TestFlagsAsNative: each flag does what it does by the kernel.
func TestFlagsAsNative(t *testing.T) {
	dir := site(t)
	dev := losetup(t, dir+"/image")
	e := newEmulator(t, `allow: [{type: ext4, source: ["b 7:*"], options: [suid, dev, noatime, strictatime, nodiratime, sync, dirsync, lazytime, "errors=*"]}]`)
	emulatortest.OnThread(t, func(thread *tracee.Thread) {
		var list []arguments
		for _, f := range flags {
			list = append(list, arguments{flags: f.ms})
		}
		list = append(list, arguments{flags: allFlags}, arguments{flags: allFlags &^ unix.MS_STRICTATIME}, arguments{flags: unix.MS_MGC_VAL | unix.MS_NOEXEC},
			arguments{flags: unix.MS_SILENT | unix.MS_I_VERSION | unix.MS_POSIXACL | unix.MS_REC}, arguments{data: "ro"}, arguments{data: "errors=remount-ro,sync"}, arguments{data: ",,errors=continue,"})
		for _, a := range list {
			a.source, a.target, a.fstype = dev, dir+"/target", "ext4"
			var seen [2][3]string
			for i, mount := range []func() error{a.native, func() error {
				if r := emulate(t, e, thread, a); !r.ok() {
					return errors.New(r.String())
				}
				return nil
			}} {
				if err := mount(); err != nil {
					t.Errorf("%#x %q: %v", a.flags, a.data, err)
					return
				}
				source, own, super := mountinfo(t, a.target)
				seen[i] = [3]string{source, own, super}
				must(t, elsewhere(func() error { return unix.Unmount(a.target, 0) }))
			}
			if seen[0] != seen[1] {
				t.Errorf("%#x %q: %q, the kernel %q", a.flags, a.data, seen[1], seen[0])
			}
		}
	})
}

// TestLikeTheKernel: what is wrong is wrong with the same errno.
func TestLikeTheKernel(t *testing.T) {
	dir := site(t)
	dev := losetup(t, dir+"/image")
	target := dir + "/target"
	must(t, os.WriteFile(dir+"/file", nil, 0o600))
	must(t, os.Symlink("loop", dir+"/loop"))
	must(t, os.Symlink("target", dir+"/link"))
	must(t, os.Symlink(dev, dir+"/dev"))
	must(t, unix.Mkfifo(dir+"/fifo", 0o600))
	must(t, unix.Mknod(dir+"/none", unix.S_IFBLK|0o600, int(unix.Mkdev(7, 1<<20-1))))
	e := newEmulator(t, `allow: [{type: ext4, source: ["b *:*"], options: ["data=*", "nosuchoption", "nosuchoption=*"]}, {type: xfs, source: ["b *:*"]}, {type: nosuchfs, source: ["b *:*"]}]`)
	name := strings.Repeat("n", 255)
	emulatortest.OnThread(t, func(thread *tracee.Thread) {
		for _, a := range []arguments{
			{dev, target, "ext4", 0, ""},
			{dev, dir + "/link", "ext4", 0, ""},
			{dir + "/dev", target, "ext4", 0, ""},
			{dev, target + "/.", "ext4", unix.MS_RDONLY, "data=ordered"},
			{dev, dir + "/nothing", "ext4", 0, ""},
			{dev, dir + "/file", "ext4", 0, ""},
			{dev, dir + "/file/x", "ext4", 0, ""},
			{dev, dir + "/loop", "ext4", 0, ""},
			{dev, "", "ext4", 0, ""},
			{dev, dir + "/" + name + "n", "ext4", 0, ""},
			{dev, dir + "/fifo", "ext4", 0, ""},
			{dev, "/proc", "ext4", 0, "nosuchoption"},
			{dir + "/nothing", target, "ext4", 0, ""},
			{dir + "/loop", target, "ext4", 0, ""},
			{dir + "/file/x", target, "ext4", 0, ""},
			{dir + "/" + name + "n", target, "ext4", 0, ""},
			{dir, target, "ext4", 0, ""},
			{dir + "/file", target, "ext4", 0, ""},
			{dir + "/fifo", target, "ext4", 0, ""},
			{"/dev/null", target, "ext4", 0, ""},
			{dir + "/none", target, "ext4", 0, ""},
			{"", target, "ext4", 0, ""},
			{dev, target, "ext4", 0, "nosuchoption"},
			{dev, target, "ext4", 0, "nosuchoption=1"},
			{dev, target, "ext4", 0, "data=nonsense"},
			{dev, target, "xfs", 0, ""},
			{dev, target, "nosuchfs", 0, ""},
			{dir + "/nothing", dir + "/nothing", "ext4", 0, ""},
		} {
			want := a.native()
			if want == nil {
				must(t, elsewhere(func() error { return unix.Unmount(target, 0) }))
			}
			r := emulate(t, e, thread, a)
			if r.ok() {
				if elsewhere(func() error { return unix.Unmount(target, 0) }) != nil {
					t.Errorf("%v: mounted elsewhere", a)
				}
			}
			switch {
			case r.err != nil && !errors.As(r.err, new(emulators.BadArgument)):
				t.Errorf("%v: %v, the kernel %v", a, r, want)
			case want == nil && !r.ok(), want != nil && r.errno != want:
				t.Errorf("%v: %v, the kernel %v", a, r, want)
			}
		}
		// Where it is mounted already the kernel says so.
		a := arguments{dev, target, "ext4", 0, ""}
		must(t, a.native())
		if r := emulate(t, e, thread, a); r.errno != unix.EBUSY {
			t.Errorf("mounted already: %v", r)
		}
		must(t, elsewhere(func() error { return unix.Unmount(target, 0) }))
	})
}

// TestLongName: the name of a device may be longer than what fsconfig(2) takes.
func TestLongName(t *testing.T) {
	dir := site(t)
	dev := losetup(t, dir+"/image")
	var st unix.Stat_t
	must(t, unix.Stat(dev, &st))
	long := dir + "/" + strings.Repeat("d", 200)
	must(t, os.Mkdir(long, 0o755))
	for _, a := range []arguments{
		{long + "/" + strings.Repeat("n", 200), dir + "/target", "ext4", 0, ""},
		{dir + strings.Repeat("/s", 12) + "/n", dir + "/target", "ext4", 0, ""},
	} {
		must(t, os.MkdirAll(filepath.Dir(a.source), 0o755))
		must(t, unix.Mknod(a.source, unix.S_IFBLK|0o600, int(st.Rdev)))
		must(t, a.native())
		must(t, unix.Unmount(a.target, 0))
		e := newEmulator(t, `allow: [{type: ext4, source: ["b 7:*"]}]`)
		emulatortest.OnThread(t, func(thread *tracee.Thread) {
			if r := emulate(t, e, thread, a); !r.ok() {
				t.Errorf("%d bytes: %v", len(a.source), r)
			} else if source, _, _ := mountinfo(t, a.target); source != dev {
				t.Errorf("shows as %s", source)
			}
		})
		_ = unix.Unmount(a.target, 0)
	}
}

// TestDeviceName: what mountinfo shows of a device is the container's own name.
func TestDeviceName(t *testing.T) {
	dir := site(t)
	var st unix.Stat_t
	must(t, unix.Stat(losetup(t, dir+"/image"), &st))
	must(t, os.MkdirAll(dir+"/dev/vg", 0o755))
	must(t, unix.Mknod(dir+"/dev/vg/home", unix.S_IFBLK|0o600, int(st.Rdev)))
	must(t, os.Symlink("vg/home", dir+"/dev/link"))
	e := newEmulator(t, `allow: [{type: ext4, source: ["`+dir+`/dev/vg/*"]}]`)
	emulatortest.OnThread(t, func(thread *tracee.Thread) {
		for _, source := range []string{"/dev/vg/home", "/dev/link", "/dev/../dev//vg/./home"} {
			a := arguments{dir + source, dir + "/target", "ext4", 0, ""}
			if r := emulate(t, e, thread, a); !r.ok() {
				t.Errorf("%s: %v", source, r)
				continue
			}
			if source, _, _ := mountinfo(t, a.target); source != dir+"/dev/vg/home" {
				t.Errorf("shows as %s", source)
			}
			must(t, elsewhere(func() error { return unix.Unmount(a.target, 0) }))
		}
	})
}

// TestNodevSource: a device node that does not open for the caller is none.
func TestNodevSource(t *testing.T) {
	dir := site(t)
	dev := losetup(t, dir+"/image")
	must(t, os.Mkdir(dir+"/nodev", 0o755))
	must(t, unix.Mount("none", dir+"/nodev", "tmpfs", unix.MS_NODEV, ""))
	var st unix.Stat_t
	must(t, unix.Stat(dev, &st))
	must(t, unix.Mknod(dir+"/nodev/loop", unix.S_IFBLK|0o600, int(st.Rdev)))
	e := newEmulator(t, `allow: [{type: ext4, source: ["b 7:*"]}]`)
	a := arguments{dir + "/nodev/loop", dir + "/target", "ext4", 0, ""}
	want := a.native()
	emulatortest.OnThread(t, func(thread *tracee.Thread) {
		if r := emulate(t, e, thread, a); r.errno != unix.EACCES || want != unix.EACCES || !strings.Contains(r.detail, "do not open") {
			t.Errorf("%v, the kernel %v", r, want)
		}
	})
}

// TestDenied: policy's no, and nothing is done.
func TestDenied(t *testing.T) {
	dir := site(t)
	dev := losetup(t, "-r", dir+"/image")
	for _, c := range []struct {
		policy string
		a      arguments
		errno  unix.Errno
		detail string
	}{
		{"", arguments{fstype: "ext4"}, unix.EPERM, "ext4"},
		{"allow: []", arguments{fstype: "ext4"}, unix.EPERM, "ext4"},
		{`allow: [{type: xfs, source: ["b *:*"]}]`, arguments{fstype: "ext4"}, unix.EPERM, "ext4"},
		{`allow: [{type: xfs, source: ["b *:*"]}]`, arguments{fstype: "no such type"}, unix.EPERM, "no such type"},
		{`allow: [{type: ext4, source: ["b 8:*"]}]`, arguments{fstype: "ext4"}, unix.EPERM, "b 7:"},
		{`allow: [{type: ext4, source: ["/dev/vg/*"]}]`, arguments{fstype: "ext4"}, unix.EPERM, dev},
		{`allow: [{type: ext4, source: ["b 7:*"]}]`, arguments{fstype: "ext4", source: dir + "/image"}, unix.ENOTBLK, "loop: true"},
		{`allow: [{type: ext4, loop: true, source: ["/images/*"]}]`, arguments{fstype: "ext4", source: dir + "/image"}, unix.EPERM, dir + "/image"},
		{`allow: [{type: ext4, source: ["b 7:*"]}]`, arguments{fstype: "ext4", data: "data=ordered"}, unix.EINVAL, "data=ordered"},
		{`allow: [{type: ext4, source: ["b 7:*"], options: ["data=*"]}]`, arguments{fstype: "ext4", data: `data="ordered,errors=panic"`}, unix.EINVAL, errComma.Error()},
		{`allow: [{type: ext4, source: ["b 7:*"], options: ["data=*"]}]`, arguments{fstype: "ext4", data: `data=ordered" ,x`}, unix.EINVAL, errQuote.Error()},
		{`allow: [{type: ext4, source: ["b 7:*"], options: ["data=*"]}]`, arguments{fstype: "ext4", data: "data=ordered,errors=panic"}, unix.EINVAL, "errors=panic"},
		{`allow: [{type: ext4, source: ["b 7:*"], options: []}]`, arguments{fstype: "ext4", flags: unix.MS_SYNCHRONOUS}, unix.EPERM, "sync"},
		{`allow: [{type: ext4, source: ["b 7:*"], options: []}]`, arguments{fstype: "ext4", data: "sync"}, unix.EPERM, "sync"},
		{`allow: [{type: ext4, source: ["b 7:*"]}]`, arguments{fstype: "ext4", data: "source=/dev/sda"}, unix.EINVAL, "source=/dev/sda"},
		{`allow: [{type: ext4, source: ["b 7:*"]}]`, arguments{fstype: "ext4", data: "loop"}, unix.EINVAL, "loop"},
	} {
		if c.a.source == "" {
			c.a.source = dev
		}
		c.a.target = dir + "/target"
		e := newEmulator(t, c.policy)
		emulatortest.OnThread(t, func(thread *tracee.Thread) {
			r := emulate(t, e, thread, c.a)
			if r.errno != c.errno || !strings.Contains(r.detail, c.detail) {
				t.Errorf("%s: %v: %v, want %v and %q", c.policy, c.a, r, c.errno, c.detail)
			}
			var denied emulators.Denied
			if errors.As(r.err, &denied) && (denied.ByKernel || strings.Contains(denied.Reason, dir)) {
				t.Errorf("%+v", denied)
			}
		})
		if mounted(t, dir+"/target") {
			t.Errorf("%s: something was mounted", c.policy)
			_ = unix.Unmount(dir+"/target", unix.MNT_DETACH)
		}
	}
	if n := len(loopsOf(dir)); n != 1 {
		t.Errorf("%d loop devices", n)
	}
}

// TestRules: the first rule that allows all of a call counts, and where none
// does the first about the source says why.
func TestRules(t *testing.T) {
	dir := site(t)
	e := newEmulator(t, `allow:
  - {type: ext4, source: ["/nowhere"], loop: true, options: [sync]}
  - {type: ext4, source: ["`+dir+`/*"], loop: true, force: [ro], options: []}
  - {type: ext4, source: ["`+dir+`/*"], loop: true, options: [noatime]}
`)
	emulatortest.OnThread(t, func(thread *tracee.Thread) {
		for ms, want := range map[uint64]string{0: "ro,nosuid,nodev,relatime", unix.MS_NOATIME: "rw,nosuid,nodev,noatime"} {
			if r := emulate(t, e, thread, arguments{dir + "/image", dir + "/target", "ext4", ms, ""}); !r.ok() {
				t.Errorf("%#x: %v", ms, r)
				continue
			}
			if _, own, _ := mountinfo(t, dir+"/target"); own != want {
				t.Errorf("%#x: %s, want %s", ms, own, want)
			}
			must(t, elsewhere(func() error { return unix.Unmount(dir+"/target", 0) }))
			released(t, dir)
		}
		if r := emulate(t, e, thread, arguments{dir + "/image", dir + "/target", "ext4", unix.MS_SYNCHRONOUS, ""}); r.errno != unix.EPERM || r.detail != "sync" {
			t.Error(r)
		}
	})
}

// TestKernelsOwn: what the kernel mounts for a user namespace, and all that is
// no new mount, is continued before anything is looked at.
func TestKernelsOwn(t *testing.T) {
	emulatortest.NeedRoot(t)
	e := newEmulator(t, `allow: [{type: ext4, source: ["b 7:*"], loop: true}]`)
	var list []arguments
	for fstype := range kernelsOwn {
		list = append(list, arguments{fstype: fstype})
	}
	list = append(list, arguments{fstype: "fuse.sshfs"}, arguments{fstype: "fuseblk.ntfs-3g"}, arguments{fstype: null}, arguments{fstype: ""})
	for _, ms := range []uint64{unix.MS_BIND, unix.MS_BIND | unix.MS_REC, unix.MS_MOVE, unix.MS_PRIVATE, unix.MS_SHARED | unix.MS_REC, unix.MS_SLAVE, unix.MS_UNBINDABLE, 1 << 31, 1<<40 | unix.MS_REMOUNT} {
		list = append(list, arguments{fstype: "ext4", flags: ms})
	}
	for _, patience := range []emulators.Patience{emulators.Hurry, emulators.Patient} {
		for _, a := range list {
			c := emulatortest.NewCaller(t)
			c.Syscall, c.Patience = "mount", patience
			c.Args = a.place(c)
			// Nothing of these may be read: they could say something else later.
			c.Args[argSource], c.Args[argTarget], c.Args[argData] = c.Unmapped(), c.Unmapped(), c.Unmapped()
			if a.fstype == "ext4" {
				c.Args[argType] = c.Unmapped()
			}
			r := finish(e, c.Request(), nil, true)
			if r.err != nil || r.action != emulators.ActionContinue {
				t.Errorf("type %q, flags %#x: %v", a.fstype, a.flags, r)
			}
			c.Close()
		}
	}
	if e.bench.ready {
		t.Error("a workshop was made for it")
	}
}

// TestUndo: a mount of which the caller did not learn is taken back, with the
// loop device; what is mounted there instead by then is not.
func TestUndo(t *testing.T) {
	dir := site(t)
	e := newEmulator(t, anyImage(dir, ""))
	a := arguments{dir + "/image", dir + "/target", "ext4", 0, ""}
	emulatortest.OnThread(t, func(thread *tracee.Thread) {
		undone := func(meanwhile func()) {
			t.Helper()
			if r := emulateThen(t, e, thread, a, meanwhile, false); !r.ok() {
				t.Error(r)
			}
		}
		undone(func() {
			if !mounted(t, a.target) {
				t.Error("nothing was mounted")
			}
		})
		if mounted(t, a.target) {
			t.Error("the mount is still there")
		}
		released(t, dir)
		undone(func() { must(t, unix.Unmount(a.target, 0)) })
		if mounted(t, a.target) {
			t.Error("a mount is there")
		}
		released(t, dir)
		undone(func() { must(t, unix.Mount("other", a.target, "tmpfs", 0, "")) })
		if source, _, _ := mountinfo(t, a.target); source != "other" {
			t.Errorf("%q is there instead of what was mounted over", source)
		}
		must(t, elsewhere(func() error { return errors.Join(unix.Unmount(a.target, 0), unix.Unmount(a.target, 0)) }))
		released(t, dir)
		must(t, os.Mkdir(dir+"/folder", 0o755))
		a.target = dir + "/folder/target"
		must(t, os.Mkdir(a.target, 0o755))
		undone(func() { must(t, os.Rename(dir+"/folder", dir+"/moved")) })
		must(t, elsewhere(func() error {
			return errors.Join(unix.Unmount(dir+"/moved/target", 0), os.Rename(dir+"/moved", dir+"/folder"))
		}))
		released(t, dir)
		if r := emulate(t, e, thread, a); !r.ok() || !mounted(t, a.target) {
			t.Errorf("after all that: %v", r)
		}
	})
}

// TestKernelsWords: the kernel says what is wrong with an image.
func TestKernelsWords(t *testing.T) {
	dir := site(t)
	good, err := os.ReadFile(dir + "/image")
	must(t, err)
	broken := func(name string, change func(b []byte)) string {
		b := append([]byte(nil), good...)
		change(b)
		must(t, os.WriteFile(dir+"/"+name, b, 0o600))
		return dir + "/" + name
	}
	e := newEmulator(t, `allow: [{type: ext4, source: ["`+dir+`/*"], loop: true, options: ["data=*"]}, {type: squashfs, loop: true}]`)
	log, err := os.Open("/dev/kmsg")
	if err != nil {
		t.Skip(err)
	}
	must(t, log.Close())
	emulatortest.OnThread(t, func(thread *tracee.Thread) {
		for _, c := range []struct {
			source, fstype, data string
			errno                unix.Errno
			words                string
		}{
			{broken("zero", func(b []byte) { clear(b[1024:2048]) }), "ext4", "", unix.EINVAL, "ext4"},
			{broken("superblock", func(b []byte) { b[1024+4] ^= 0xff }), "ext4", "", unix.EINVAL, "EXT4-fs (loop"},

			{dir + "/image", "ext4", "data=nonsense", unix.EINVAL, "data"},
		} {
			r := emulate(t, e, thread, arguments{c.source, dir + "/target", c.fstype, 0, c.data})
			if r.err != nil || r.action != emulators.ActionFail || !strings.Contains(strings.ToLower(r.detail), strings.ToLower(c.words)) {
				t.Errorf("%s: %v, want the word %q", c.source, r, c.words)
			}
			t.Log(r.errno, r.detail)
		}
	})
	released(t, dir)
}

// TestMaxLoops: a container has so many loop devices at a time.
func TestMaxLoops(t *testing.T) {
	dir := site(t)
	e := newEmulator(t, anyImage(dir, "")+"\nmaxLoops: 2")
	target := func(n int) string { return fmt.Sprintf("%s/target%d", dir, n) }
	for n := range 4 {
		must(t, os.Mkdir(target(n), 0o755))
		image(t, fmt.Sprintf("%s/image%d", dir, n))
	}
	emulatortest.OnThread(t, func(thread *tracee.Thread) {
		mount := func(n int) result {
			return emulate(t, e, thread, arguments{fmt.Sprintf("%s/image%d", dir, n), target(n), "ext4", 0, ""})
		}
		refused := func(n int, when string) {
			t.Helper()
			r := mount(n)
			var denied emulators.Denied
			if r.errno != unix.EPERM || !errors.As(r.err, &denied) || !strings.Contains(denied.Reason, "maxLoops") {
				t.Errorf("one too many %s: %v", when, r)
			}
			if mounted(t, target(n)) {
				must(t, elsewhere(func() error { return unix.Unmount(target(n), 0) }))
			}
		}
		for n := range 2 {
			if r := mount(n); !r.ok() {
				t.Error(r)
				return
			}
		}
		refused(2, "")
		must(t, elsewhere(func() error { return unix.Unmount(target(0), 0) }))
		if r := mount(2); !r.ok() {
			t.Errorf("after one was unmounted: %v", r)
		}
		refused(3, "after another took its place")
		// The container may call its images what it likes.
		must(t, elsewhere(func() error { return os.Rename(dir+"/image1", dir+"/other") }))
		refused(3, "after an image was renamed")
		must(t, elsewhere(func() error { return os.Remove(dir + "/other") }))
		refused(3, "after an image was removed")
	})
}

// TestSameImage: two filesystems on the same blocks would spoil each other.
func TestSameImage(t *testing.T) {
	dir := site(t)
	must(t, os.Mkdir(dir+"/other", 0o755))
	must(t, os.Link(dir+"/image", dir+"/link"))
	e := newEmulator(t, anyImage(dir, ""))
	emulatortest.OnThread(t, func(thread *tracee.Thread) {
		for _, c := range []struct {
			first, second uint64
			errno         unix.Errno
		}{
			{0, 0, unix.EBUSY}, {0, unix.MS_RDONLY, unix.EBUSY}, {unix.MS_RDONLY, 0, unix.EBUSY}, {unix.MS_RDONLY, unix.MS_RDONLY, 0},
		} {
			if r := emulate(t, e, thread, arguments{dir + "/image", dir + "/target", "ext4", c.first, ""}); !r.ok() {
				t.Error(r)
				continue
			}
			for _, source := range []string{"/image", "/link"} {
				r := emulate(t, e, thread, arguments{dir + source, dir + "/other", "ext4", c.second, ""})
				if r.errno != c.errno || r.err != nil {
					t.Errorf("%#x, then %s %#x: %v, want %v", c.first, source, c.second, r, c.errno)
				}
				if r.ok() {
					must(t, elsewhere(func() error { return unix.Unmount(dir+"/other", 0) }))
				}
			}
			must(t, elsewhere(func() error { return unix.Unmount(dir+"/target", 0) }))
			released(t, dir)
		}
		// Called otherwise it is the same image still.
		if r := emulate(t, e, thread, arguments{dir + "/image", dir + "/target", "ext4", 0, ""}); !r.ok() {
			t.Error(r)
		}
		must(t, elsewhere(func() error { return os.Rename(dir+"/image", dir+"/renamed") }))
		if r := emulate(t, e, thread, arguments{dir + "/renamed", dir + "/other", "ext4", 0, ""}); r.errno != unix.EBUSY {
			t.Errorf("renamed: %v, want EBUSY", r)
		}
	})
}

// TestReadOnlyImage: what the caller may not write it mounts read-only, or not.
func TestReadOnlyImage(t *testing.T) {
	dir := site(t)
	must(t, os.Mkdir(dir+"/ro", 0o755))
	must(t, unix.Mount(dir, dir+"/ro", "", unix.MS_BIND, ""))
	must(t, unix.Mount("", dir+"/ro", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	e := newEmulator(t, `allow: [{type: ext4, loop: true}]`)
	emulatortest.OnThread(t, func(thread *tracee.Thread) {
		a := arguments{dir + "/ro/image", dir + "/target", "ext4", 0, ""}
		if r := emulate(t, e, thread, a); r.errno != unix.EACCES {
			t.Errorf("to write: %v, want EACCES", r)
		}
		a.flags = unix.MS_RDONLY
		if r := emulate(t, e, thread, a); !r.ok() {
			t.Errorf("to read: %v", r)
		}
	})
}

// TestOverlayImage: an overlay that the container put together may have layers
// that a program serves, which would hold the host's locks for as long as it
// likes.
func TestOverlayImage(t *testing.T) {
	dir := site(t)
	for _, d := range []string{"lower", "upper", "work", "merged", "after"} {
		must(t, os.Mkdir(dir+"/"+d, 0o755))
	}
	image(t, dir+"/lower/image")
	overlay := func(target string) {
		must(t, unix.Mount("overlay", target, "overlay", 0, "lowerdir="+dir+"/lower,upperdir="+dir+"/upper,workdir="+dir+"/work,index=off"))
	}
	overlay(dir + "/merged")
	e := newEmulator(t, `allow: [{type: ext4, loop: true}]`)
	if e.bench.born == 0 {
		t.Skip("no mount ids that are never used again")
	}
	emulatortest.OnThread(t, func(thread *tracee.Thread) {
		if r := emulate(t, e, thread, arguments{dir + "/merged/image", dir + "/target", "ext4", unix.MS_RDONLY, ""}); !r.ok() {
			t.Errorf("on the host's overlay: %v", r)
		}
		must(t, elsewhere(func() error {
			return errors.Join(unix.Unmount(dir+"/target", 0), unix.Unmount(dir+"/merged", unix.MNT_DETACH))
		}))
		released(t, dir)
		elsewhere(func() bool { overlay(dir + "/after"); return true })
		var denied emulators.Denied
		if r := emulate(t, e, thread, arguments{dir + "/after/image", dir + "/target", "ext4", unix.MS_RDONLY, ""}); !errors.As(r.err, &denied) {
			t.Errorf("on an overlay of the container's: %v", r)
		}
	})
}

// TestReadOnlyType: a filesystem that is never written to needs no MS_RDONLY.
func TestReadOnlyType(t *testing.T) {
	dir := site(t)
	if _, err := exec.LookPath("mksquashfs"); err != nil {
		t.Skip("needs mksquashfs")
	}
	must(t, os.Mkdir(dir+"/content", 0o755))
	if out, err := exec.Command("mksquashfs", dir+"/content", dir+"/squash").CombinedOutput(); err != nil {
		t.Fatalf("mksquashfs: %v: %s", err, out)
	}
	dev := losetup(t, dir+"/squash")
	native := arguments{dev, dir + "/target", "squashfs", 0, ""}
	must(t, native.native())
	_, own, super := mountinfo(t, dir+"/target")
	must(t, unix.Unmount(dir+"/target", 0))
	must(t, exec.Command("losetup", "-d", dev).Run())
	e := newEmulator(t, `allow: [{type: squashfs, loop: true, options: [suid, dev]}]`)
	emulatortest.OnThread(t, func(thread *tracee.Thread) {
		for _, ms := range []uint64{unix.MS_RDONLY, 0} {
			r := emulate(t, e, thread, arguments{dir + "/squash", dir + "/target", "squashfs", ms, ""})
			if !r.ok() {
				t.Errorf("flags %#x: %v, the kernel on a loop device: %s %s", ms, r, own, super)
				continue
			}
			must(t, elsewhere(func() error { return unix.Unmount(dir+"/target", 0) }))
			released(t, dir)
		}
	})
}

// TestAgentsLoop: a loop device that the agent made for one image is a source for
// nobody, whatever policy says of its number.
func TestAgentsLoop(t *testing.T) {
	dir := site(t)
	must(t, os.Mkdir(dir+"/other", 0o755))
	e := newEmulator(t, `allow: [{type: ext4, source: ["b 7:*"], loop: true}]`)
	emulatortest.OnThread(t, func(thread *tracee.Thread) {
		if r := emulate(t, e, thread, arguments{dir + "/image", dir + "/target", "ext4", 0, ""}); !r.ok() {
			t.Error(r)
			return
		}
		source, _, _ := mountinfo(t, dir+"/target")
		var denied emulators.Denied
		if r := emulate(t, e, thread, arguments{source, dir + "/other", "ext4", 0, ""}); !errors.As(r.err, &denied) || !strings.Contains(denied.Reason, "loop device") {
			t.Errorf("%s: %v", source, r)
		}
	})
}

// TestMountedElsewhere: no two share a filesystem, not even container and host.
func TestMountedElsewhere(t *testing.T) {
	dir := site(t)
	must(t, os.Mkdir(dir+"/host", 0o755))
	dev := losetup(t, dir+"/image")
	host := arguments{dev, dir + "/host", "ext4", 0, ""}
	must(t, host.native())
	e := newEmulator(t, `allow: [{type: ext4, source: ["b 7:*"]}]`)
	emulatortest.OnThread(t, func(thread *tracee.Thread) {
		a := arguments{dev, dir + "/target", "ext4", 0, ""}
		if r := emulate(t, e, thread, a); r.errno != unix.EBUSY {
			t.Errorf("mounted by the host: %v", r)
		}
		must(t, elsewhere(func() error { return unix.Unmount(dir+"/host", 0) }))
		if r := emulate(t, e, thread, a); !r.ok() {
			t.Errorf("after it was unmounted: %v", r)
		}
	})
}

// TestJournalDevice: a superblock may name another device by its number.
func TestJournalDevice(t *testing.T) {
	dir := site(t)
	f, err := os.OpenFile(dir+"/image", os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte{0, 7}, extSuperblock+extJournalDev)
	must(t, err)
	must(t, f.Close())
	e := newEmulator(t, `allow: [{type: ext4, loop: true}, {type: ext3, loop: true}, {type: ext2, loop: true}]`)
	emulatortest.OnThread(t, func(thread *tracee.Thread) {
		for _, fstype := range []string{"ext2", "ext3", "ext4"} {
			var denied emulators.Denied
			if r := emulate(t, e, thread, arguments{dir + "/image", dir + "/target", fstype, 0, ""}); !errors.As(r.err, &denied) || !strings.Contains(denied.Reason, "journal") {
				t.Errorf("%s: %v", fstype, r)
			}
		}
	})
}

// TestServedTarget: the lock of a directory that the container serves is not
// one to wait for.
func TestServedTarget(t *testing.T) {
	dir := site(t)
	for _, d := range []string{"lower", "lower/target", "upper", "work", "merged"} {
		must(t, os.Mkdir(dir+"/"+d, 0o755))
	}
	e := newEmulator(t, anyImage(dir, ""))
	if e.bench.born == 0 {
		t.Skip("no mount ids that are never used again")
	}
	must(t, unix.Mount("overlay", dir+"/merged", "overlay", 0, "lowerdir="+dir+"/lower,upperdir="+dir+"/upper,workdir="+dir+"/work,index=off"))
	emulatortest.OnThread(t, func(thread *tracee.Thread) {
		var denied emulators.Denied
		if r := emulate(t, e, thread, arguments{dir + "/image", dir + "/merged/target", "ext4", 0, ""}); !errors.As(r.err, &denied) || !strings.Contains(denied.Reason, "target") {
			t.Error(r)
		}
		must(t, elsewhere(func() error { return unix.Mount("none", dir+"/lower", "tmpfs", 0, "") }))
		must(t, elsewhere(func() error { return os.Mkdir(dir+"/lower/target", 0o755) }))
		if r := emulate(t, e, thread, arguments{dir + "/image", dir + "/lower/target", "ext4", 0, ""}); !r.ok() {
			t.Errorf("on a tmpfs of the container's: %v", r)
		}
	})
}

// TestHurry: a call in a hurry does nothing, a remount neither.
func TestHurry(t *testing.T) {
	dir := site(t)
	e := newEmulator(t, anyImage(dir, ""))
	c := emulatortest.NewCaller(t)
	c.Syscall, c.Patience = "mount", emulators.Hurry
	for _, ms := range []uint64{0, unix.MS_REMOUNT, unix.MS_REMOUNT | unix.MS_BIND} {
		c.Args = (&arguments{dir + "/image", dir + "/target", "ext4", ms, ""}).place(c)
		if r := finish(e, c.Request(), nil, true); !errors.Is(r.err, emulators.ErrBlocks) {
			t.Errorf("%#x: %v", ms, r)
		}
	}
	if e.bench.ready || len(loopsOf(dir)) != 0 {
		t.Error("something was done")
	}
}

// TestRemount: what the agent mounted it changes, by the rule that it was
// mounted by; all else is the kernel's.
func TestRemount(t *testing.T) {
	dir := site(t)
	target := dir + "/target"
	must(t, os.Mkdir(dir+"/bind", 0o755))
	must(t, os.Mkdir(dir+"/tmpfs", 0o755))
	must(t, unix.Mount("none", dir+"/tmpfs", "tmpfs", 0, ""))
	e := newEmulator(t, anyImage(dir, `, options: [noatime, "errors=*"]`))
	emulatortest.OnThread(t, func(thread *tracee.Thread) {
		if r := emulate(t, e, thread, arguments{dir + "/image", target, "ext4", unix.MS_NOATIME, ""}); !r.ok() {
			t.Error(r)
			return
		}
		_, _, super := mountinfo(t, target)
		for _, c := range []struct {
			a          arguments
			own, super string // "" where the kernel is to do it
			errno      unix.Errno
		}{
			{a: arguments{target: target, flags: unix.MS_REMOUNT | unix.MS_RDONLY}, own: "ro,nosuid,nodev,noatime", super: "ro"},
			{a: arguments{target: target, flags: unix.MS_REMOUNT}, own: "rw,nosuid,nodev,noatime", super: "rw"},
			{a: arguments{target: target, flags: unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY}, own: "ro,nosuid,nodev,noatime", super: "rw"},
			{a: arguments{target: target, flags: unix.MS_REMOUNT | unix.MS_BIND | unix.MS_NOEXEC | unix.MS_RELATIME}, own: "rw,nosuid,nodev,noexec,relatime", super: "rw"},
			{a: arguments{target: target, flags: unix.MS_REMOUNT, data: "errors=remount-ro"}, own: "rw,nosuid,nodev,relatime", super: "errors=remount-ro"},
			{a: arguments{target: target, flags: unix.MS_REMOUNT, data: super + ",idmapped"}, own: "rw,nosuid,nodev,relatime", super: "rw"},
			{a: arguments{target: target, flags: unix.MS_REMOUNT | unix.MS_SYNCHRONOUS}, errno: unix.EPERM},
			{a: arguments{target: target, flags: unix.MS_REMOUNT, data: "data=journal"}, errno: unix.EINVAL},
			{a: arguments{target: target, flags: unix.MS_REMOUNT, data: `errors="a,b"`}, errno: unix.EINVAL},
			{a: arguments{target: target, flags: unix.MS_REMOUNT, data: "errors=nonsense"}, errno: unix.EINVAL},
			{a: arguments{target: dir + "/nothing", flags: unix.MS_REMOUNT}, errno: unix.ENOENT},
			{a: arguments{target: target + "/lost+found", flags: unix.MS_REMOUNT}},
			{a: arguments{target: dir + "/tmpfs", flags: unix.MS_REMOUNT}},
			{a: arguments{target: dir, flags: unix.MS_REMOUNT}},
		} {
			c.a.source, c.a.fstype = null, null
			r := emulate(t, e, thread, c.a)
			switch {
			case c.errno != 0 && (r.errno != c.errno || r.ok()), c.errno == 0 && c.own != "" && !r.ok(), c.errno == 0 && c.own == "" && (r.err != nil || r.action != emulators.ActionContinue):
				t.Errorf("%v: %v", c.a, r)
			case c.own != "":
				if _, own, super := mountinfo(t, target); own != c.own || !has(super, c.super) {
					t.Errorf("%v: %s, %s, want %s, %s", c.a, own, super, c.own, c.super)
				}
			}
		}
	})
}

// TestNothingIsLeft: neither in the agent's mount namespace nor in its workshop.
func TestNothingIsLeft(t *testing.T) {
	dir := site(t)
	before, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	kind := Kind()
	e, err := kind.New(emulatortest.Policy(anyImage(dir, "")))
	must(t, err)
	second, err := kind.New(emulatortest.Policy(anyImage(dir, "")))
	must(t, err)
	shop := e.(*emulator).bench.shop
	emulatortest.OnThread(t, func(thread *tracee.Thread) {
		a := arguments{dir + "/image", dir + "/target", "ext4", 0, ""}
		for _, delivered := range []bool{false, true} {
			if r := emulateThen(t, e, thread, a, nil, delivered); !r.ok() {
				t.Error(r)
			}
		}
		must(t, elsewhere(func() error { return unix.Unmount(a.target, 0) }))
		a.data = "nosuchoption"
		if r := emulate(t, e, thread, a); r.ok() {
			t.Error(r)
		}
		empty(t, thread, shop)
		a.data = ""
		if r := emulate(t, second, thread, a); !r.ok() || shop.benches != 2 {
			t.Errorf("%d containers at work: %v", shop.benches, r)
		}
	})
	must(t, unix.Unmount(dir+"/target", 0))
	must(t, e.(*emulator).Close())
	if shop.benches != 1 || shop.room == nil {
		t.Errorf("%d containers at work", shop.benches)
	}
	must(t, second.(*emulator).Close())
	must(t, second.(*emulator).Close())
	if shop.benches != 0 || shop.room != nil || shop.sealer != nil {
		t.Errorf("%d containers at work", shop.benches)
	}
	if after, err := os.ReadFile("/proc/self/mountinfo"); err != nil || string(after) != string(before) {
		t.Errorf("mounts are now\n%s, were\n%s", after, before)
	}
}

// empty makes sure that the workshop's room has one mount and no files.
func empty(tb testing.TB, thread *tracee.Thread, shop *workshop) {
	tb.Helper()
	proc, err := unix.Open("/proc", unix.O_PATH|unix.O_CLOEXEC, 0)
	must(tb, err)
	defer unix.Close(proc)
	err = thread.InMounts(shop.room.Namespace(), func() error {
		fd, err := unix.Openat(proc, "thread-self/mounts", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "mounts")
		defer f.Close()
		var buf [4096]byte
		n, err := f.Read(buf[:])
		if lines := strings.Count(string(buf[:n]), "\n"); lines != 1 {
			tb.Errorf("want one mount, there are\n%s", buf[:n])
		}
		if names, err := os.ReadDir("/"); err != nil || len(names) > maxFreeJails {
			tb.Errorf("in the room: %v, %v", names, err)
		}
		// What is left of a jail is nothing, or an empty /dev.
		for _, pattern := range []string{"/*/*", "/*/dev/*"} {
			names, err := filepath.Glob(pattern)
			if slices.ContainsFunc(names, func(name string) bool { return path.Base(name) != "dev" }) || err != nil {
				tb.Errorf("in the room: %v, %v", names, err)
			}
		}
		return err
	})
	if err != nil {
		tb.Error(err)
	}
}

// TestClosed: an emulator of a container that is gone mounts nothing.
func TestClosed(t *testing.T) {
	dir := site(t)
	e, err := Kind().New(emulatortest.Policy(anyImage(dir, "")))
	must(t, err)
	must(t, e.(*emulator).Close())
	emulatortest.OnThread(t, func(thread *tracee.Thread) {
		if r := emulate(t, e, thread, arguments{dir + "/image", dir + "/target", "ext4", 0, ""}); !errors.Is(r.err, os.ErrClosed) {
			t.Error(r)
		}
	})
}
