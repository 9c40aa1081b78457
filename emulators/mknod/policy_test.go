package mknod

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators/emulatortest"
)

func TestPolicy(t *testing.T) {
	made := func(text string) *policy {
		t.Helper()
		var p policy
		if err := emulatortest.Policy(text).Decode(&p); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return &p
	}
	for _, c := range []struct {
		policy       string
		kind         uint32
		major, minor uint32
		want         bool
	}{
		{`allow: ["c 1:3"]`, unix.S_IFCHR, 1, 3, true},
		{`allow: ["c 1:3"]`, unix.S_IFBLK, 1, 3, false},
		{`allow: ["c 1:3"]`, unix.S_IFCHR, 1, 4, false},
		{`allow: ["c 1:3"]`, unix.S_IFCHR, 3, 1, false},
		{`allow: ["b 7:*"]`, unix.S_IFBLK, 7, 1<<20 - 1, true},
		{`allow: ["b 7:*"]`, unix.S_IFBLK, 8, 0, false},
		{`allow: ["b 8:0-15"]`, unix.S_IFBLK, 8, 15, true},
		{`allow: ["b 8:0-15"]`, unix.S_IFBLK, 8, 16, false},
		{`allow: ["b 8-9:2"]`, unix.S_IFBLK, 9, 2, true},
		{`allow: ["c *:*"]`, unix.S_IFCHR, 4095, 1<<20 - 1, true},
		{`allow: ["c  10:200"]`, unix.S_IFCHR, 10, 200, true},
		{`allow: ["c 4095:1048575"]`, unix.S_IFCHR, 4095, 1<<20 - 1, true},
		{`allow: []`, unix.S_IFCHR, 1, 3, false},
	} {
		if got := made(c.policy).allows(&call{kind: c.kind, major: c.major, minor: c.minor}); got != c.want {
			t.Errorf("%s: %#x %d:%d is %v", c.policy, c.kind, c.major, c.minor, got)
		}
	}
}

func badPolicies() map[string]string {
	return map[string]string{
		`allow: ["1:3"]`: "want TYPE", `allow: ["d 1:3"]`: `type "d"`, `allow: ["c 1"]`: "want TYPE", `allow: ["c 1:"]`: "minor", `allow: ["c :3"]`: "major",
		`allow: ["c 1:x"]`: "minor", `allow: ["c -1:3"]`: "major", `allow: ["c 4096:0"]`: "0 to 4095", `allow: ["c 1:1048576"]`: "0 to 1048575",
		`allow: ["b 8:15-0"]`: "ends before", `allow: ["b 8:1-"]`: "minor", `allow: ["b 8:1-2-3"]`: "minor", `allow: ["c 1:3 rwm"]`: "minor", `allow: [""]`: "want TYPE",
		`allow: ["c 0x1:3"]`: "major", `allow: ["c +1:3"]`: "major", `allow: ["c 1:3:4"]`: "minor", `allow: "c 1:3"`: "", `allow: {c: 1}`: "", `alow: []`: "alow", `allow: ["c 4294967297:3"]`: "major",
	}
}

func TestPolicyRefuses(t *testing.T) {
	for text, want := range badPolicies() {
		_, err := Kind().New(emulatortest.Policy(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestDefaults(t *testing.T) {
	for text, want := range map[string]bool{"": true, "allow: []": false} {
		e, err := Kind().New(emulatortest.Policy(text))
		if err != nil {
			t.Fatal(err)
		}
		p := e.(*emulator).policy
		for _, minor := range []uint32{3, 5, 7, 8, 9} {
			if p.allows(&call{kind: unix.S_IFCHR, major: 1, minor: minor}) != want {
				t.Errorf("%q: c 1:%d", text, minor)
			}
		}
		if p.allows(&call{kind: unix.S_IFCHR, major: 1, minor: 1}) || p.allows(&call{kind: unix.S_IFBLK, major: 7}) {
			t.Errorf("%q allows too much", text)
		}
	}
}

func FuzzPolicy(f *testing.F) {
	for _, s := range []string{"c 1:3", "b 7:*", "b 8:0-15", "c *:*", "c 1:3-", " ", "c 18446744073709551617:0"} {
		f.Add(s, uint32(1), uint32(3))
	}
	f.Fuzz(func(t *testing.T, text string, major, minor uint32) {
		var d device
		if d.UnmarshalText([]byte(text)) != nil {
			return
		}
		if d.kind != unix.S_IFCHR && d.kind != unix.S_IFBLK || d.major.last < d.major.first || d.minor.last < d.minor.first {
			t.Errorf("%q: %+v", text, d)
		}
		p := policy{Allow: []device{d}}
		if p.allows(&call{kind: d.kind ^ unix.S_IFCHR ^ unix.S_IFBLK, major: major, minor: minor}) {
			t.Errorf("%q allows the other type", text)
		}
	})
}
