package mount

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
)

const allFlags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOSYMFOLLOW | unix.MS_RELATIME | unix.MS_NOATIME |
	unix.MS_STRICTATIME | unix.MS_NODIRATIME | unix.MS_SYNCHRONOUS | unix.MS_DIRSYNC | unix.MS_LAZYTIME

// TestFlags is the whole of what mount(2) has: an attribute of the mount, a
// parameter of the filesystem, access times, or nothing.
func TestFlags(t *testing.T) {
	for _, c := range []struct {
		name  string
		ms    uint64
		attr  uint64 // from attributes
		atime uint64 // from atime
		sb    string
	}{
		{"ro", unix.MS_RDONLY, unix.MOUNT_ATTR_RDONLY, 0, "ro"},
		{"nosuid", unix.MS_NOSUID, unix.MOUNT_ATTR_NOSUID, 0, ""},
		{"nodev", unix.MS_NODEV, unix.MOUNT_ATTR_NODEV, 0, ""},
		{"noexec", unix.MS_NOEXEC, unix.MOUNT_ATTR_NOEXEC, 0, ""},
		{"nosymfollow", unix.MS_NOSYMFOLLOW, unix.MOUNT_ATTR_NOSYMFOLLOW, 0, ""},
		{"relatime", unix.MS_RELATIME, 0, unix.MOUNT_ATTR_RELATIME, ""},
		{"noatime", unix.MS_NOATIME, 0, unix.MOUNT_ATTR_NOATIME, ""},
		{"strictatime", unix.MS_STRICTATIME, 0, unix.MOUNT_ATTR_STRICTATIME, ""},
		{"nodiratime", unix.MS_NODIRATIME, 0, unix.MOUNT_ATTR_NODIRATIME, ""},
		{"sync", unix.MS_SYNCHRONOUS, 0, 0, "sync"},
		{"dirsync", unix.MS_DIRSYNC, 0, 0, "dirsync"},
		{"lazytime", unix.MS_LAZYTIME, 0, 0, "lazytime"},
		{"", unix.MS_MANDLOCK, 0, 0, ""}, {"", unix.MS_SILENT, 0, 0, ""}, {"", unix.MS_POSIXACL, 0, 0, ""}, {"", unix.MS_I_VERSION, 0, 0, ""},
		{"", unix.MS_KERNMOUNT, 0, 0, ""}, {"", unix.MS_ACTIVE, 0, 0, ""}, {"", 1 << 26, 0, 0, ""}, {"", 1 << 9, 0, 0, ""},
	} {
		if attr, times := attributes(c.ms), atime(c.ms); attr != c.attr || times != c.atime {
			t.Errorf("%#x: attributes %#x, atime %#x, want %#x, %#x", c.ms, attr, times, c.attr, c.atime)
		}
		f := flagNamed(c.name)
		if c.name == "" {
			if f != nil {
				t.Errorf("%#x has a name", c.ms)
			}
			continue
		}
		if f == nil || f.ms != c.ms || f.sb != c.sb {
			t.Errorf("%s: %+v", c.name, f)
			continue
		}
		if c.sb != "" {
			if got, set := sbFlag(c.sb); got == nil || got.name != f.name || !set {
				t.Errorf("parameter %s: %+v, %v", c.sb, got, set)
			}
		}
		if f.unset != "" {
			if got, set := sbFlag(f.unset); got == nil || got.name != f.name || set {
				t.Errorf("parameter %s: %+v, %v", f.unset, got, set)
			}
		}
	}
	var all uint64
	for _, f := range flags {
		all |= f.ms
	}
	if all != allFlags {
		t.Errorf("flags %#x, want %#x", all, uint64(allFlags))
	}
	for _, name := range []string{"", "nosuid", "noatime", "mand", "acl", "data", "Ro"} {
		if f, _ := sbFlag(name); f != nil {
			t.Errorf("%q is %+v", name, f)
		}
	}
}

func TestAtime(t *testing.T) {
	for ms, want := range map[uint64]uint64{
		0: unix.MOUNT_ATTR_RELATIME, unix.MS_RELATIME: unix.MOUNT_ATTR_RELATIME,
		unix.MS_NOATIME: unix.MOUNT_ATTR_NOATIME, unix.MS_NOATIME | unix.MS_RELATIME: unix.MOUNT_ATTR_NOATIME,
		unix.MS_STRICTATIME: unix.MOUNT_ATTR_STRICTATIME, unix.MS_STRICTATIME | unix.MS_NOATIME: unix.MOUNT_ATTR_STRICTATIME,
		unix.MS_STRICTATIME | unix.MS_NOATIME | unix.MS_RELATIME: unix.MOUNT_ATTR_STRICTATIME, unix.MS_STRICTATIME | unix.MS_RELATIME: unix.MOUNT_ATTR_STRICTATIME,
		unix.MS_NODIRATIME:                       unix.MOUNT_ATTR_NODIRATIME,
		unix.MS_NODIRATIME | unix.MS_NOATIME:     unix.MOUNT_ATTR_NODIRATIME | unix.MOUNT_ATTR_NOATIME,
		unix.MS_NODIRATIME | unix.MS_STRICTATIME: unix.MOUNT_ATTR_NODIRATIME | unix.MOUNT_ATTR_STRICTATIME,
		unix.MS_NODIRATIME | unix.MS_RELATIME:    unix.MOUNT_ATTR_NODIRATIME,
		unix.MS_RDONLY | unix.MS_NOSUID:          0,
	} {
		if got := atime(ms); got != want {
			t.Errorf("%#x: %#x, want %#x", ms, got, want)
		}
	}
}

func TestForced(t *testing.T) {
	const both = unix.MS_NOSUID | unix.MS_NODEV
	for text, want := range map[string]uint64{
		"": both, "options: []": both, "options: [suid]": unix.MS_NODEV, "options: [dev]": unix.MS_NOSUID, "options: [suid, dev]": 0, `options: ["suid=*", "dev=*"]`: both,
		"force: [ro]": both | unix.MS_RDONLY, "options: [suid, dev], force: [nosuid]": unix.MS_NOSUID, "force: [ro, noexec, nosuid, nodev]": both | unix.MS_RDONLY | unix.MS_NOEXEC,
	} {
		r := oneRule(t, join(`source: ["b 7:*"]`, text))
		if got := r.forced(); got != want {
			t.Errorf("%s: %#x, want %#x", text, got, want)
		}
	}
}

func join(a, b string) string {
	if b == "" {
		return a
	}
	return a + ", " + b
}

func TestAllowsFlags(t *testing.T) {
	const harmless = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOSYMFOLLOW | unix.MS_RELATIME
	const nameless = unix.MS_MANDLOCK | unix.MS_SILENT | unix.MS_POSIXACL | unix.MS_I_VERSION
	for _, c := range []struct {
		options string
		ms      uint64
		want    string // the flag that is not allowed
	}{
		{"", 0, ""}, {"", allFlags | nameless, ""},
		{"options: []", harmless | nameless, ""}, {"options: []", unix.MS_NOATIME, "noatime"}, {"options: []", unix.MS_STRICTATIME, "strictatime"}, {"options: []", unix.MS_NODIRATIME, "nodiratime"},
		{"options: []", unix.MS_SYNCHRONOUS, "sync"}, {"options: []", unix.MS_DIRSYNC, "dirsync"}, {"options: []", unix.MS_LAZYTIME, "lazytime"},
		{"options: [noatime]", harmless | unix.MS_NOATIME, ""}, {"options: [noatime]", unix.MS_NOATIME | unix.MS_SYNCHRONOUS, "sync"},
		{`options: ["noatime=*"]`, unix.MS_NOATIME, "noatime"},
		{"options: [noatime, strictatime, nodiratime, sync, dirsync, lazytime]", allFlags, ""},
	} {
		err := oneRule(t, join(`source: ["b 7:*"]`, c.options)).allowsFlags(c.ms)
		var denied emulators.Denied
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %#x: %v", c.options, c.ms, err)
		case c.want != "" && (!errors.As(err, &denied) || denied.Detail != c.want || denied.Errno != 0 || denied.Reason != "policy allows no such mount flag"):
			t.Errorf("%s: %#x: %+v, want no to %s", c.options, c.ms, err, c.want)
		}
	}
}

// TestFlagParameters are flags among the options: mount(8) leaves none there,
// others may.
func TestFlagParameters(t *testing.T) {
	for _, c := range []struct{ options, given, want string }{
		{"", "ro,sync,lazytime,dirsync", ""}, {"", "rw,async,nolazytime", ""}, {"options: []", "rw,async,nolazytime,ro", ""},
		{"options: []", "sync", "sync"}, {"options: []", "lazytime", "lazytime"}, {"options: [sync]", "sync", ""}, {"options: [sync]", "sync,dirsync", "dirsync"},
		{"", "noatime", "noatime"}, {"", "nosuid", "nosuid"}, {"options: [noatime]", "noatime", ""}, // the filesystem will not know it
	} {
		if got := judge(oneRule(t, join(`source: ["b 7:*"]`, c.options)), c.given); got != c.want {
			t.Errorf("%s: %s: %q, want %q", c.options, c.given, got, c.want)
		}
	}
}

// TestRemountAttributes: flags that are not given are cleared, but forced ones,
// and of access times only if one is given.
func TestRemountAttributes(t *testing.T) {
	const all = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOSYMFOLLOW
	const forced = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	const times = unix.MOUNT_ATTR__ATIME | unix.MOUNT_ATTR_NODIRATIME
	for ms, want := range map[uint64][2]uint64{
		0:                                    {forced, all &^ forced},
		unix.MS_RDONLY:                       {forced | unix.MOUNT_ATTR_RDONLY, all &^ forced &^ unix.MOUNT_ATTR_RDONLY},
		unix.MS_NOEXEC:                       {forced | unix.MOUNT_ATTR_NOEXEC, all &^ forced &^ unix.MOUNT_ATTR_NOEXEC},
		unix.MS_SYNCHRONOUS:                  {forced, all &^ forced},
		unix.MS_RELATIME:                     {forced, all&^forced | times},
		unix.MS_NOATIME:                      {forced | unix.MOUNT_ATTR_NOATIME, all&^forced | times},
		unix.MS_STRICTATIME:                  {forced | unix.MOUNT_ATTR_STRICTATIME, all&^forced | times},
		unix.MS_NODIRATIME:                   {forced | unix.MOUNT_ATTR_NODIRATIME, all&^forced | unix.MOUNT_ATTR__ATIME},
		unix.MS_NODIRATIME | unix.MS_NOATIME: {forced | unix.MOUNT_ATTR_NODIRATIME | unix.MOUNT_ATTR_NOATIME, all&^forced | unix.MOUNT_ATTR__ATIME},
	} {
		m := mounter{call: &call{flags: ms | unix.MS_REMOUNT}, rule: oneRule(t, `source: ["b 7:*"]`)}
		if got := m.attributes(); got.Set != want[0] || got.Clear != want[1] {
			t.Errorf("%#x: set %#x, clear %#x, want %#x", ms, got.Set, got.Clear, want)
		}
	}
}
