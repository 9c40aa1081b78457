package mount

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators/emulatortest"
)

// load decodes a policy and makes the checks that the configuration makes
// after it.
func load(text string) (*policy, error) {
	var p policy
	if err := emulatortest.Policy(text).Decode(&p); err != nil {
		return nil, err
	}
	for i := range p.Allow {
		if err := p.Allow[i].Validate(); err != nil {
			return nil, err
		}
	}
	return &p, p.Validate()
}

func TestPolicy(t *testing.T) {
	for _, text := range []string{
		"", "{}", "allow: []", "maxLoops: 1",
		`allow: [{type: ext4, source: ["b 7:*"]}]`,
		`allow: [{type: ext4, source: ["b 7:0-15", "/dev/vg/*"], options: [noatime, "data=*", suid, dev], force: [ro, noexec], shift: false}]`,
		`allow: [{type: squashfs, loop: true}]`,
		`allow: [{type: squashfs, loop: true, source: []}]`,
		`allow: [{type: ext4, loop: true, source: ["/images/*.img"], directIO: true}]`,
		`allow: [{type: nfs4, source: ["server:/export/*"]}]`,
		`allow: [{type: ext4, source: ["b 7:*"], via: kernel}]`,
		`allow: [{type: ext4, source: ["b 7:*"], options: []}, {type: xfs, source: ["b *:*"]}]`,
	} {
		if _, err := load(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// decodeErrors are policies that cannot be decoded: New refuses them, and the
// error names the field.
func decodeErrors() map[string]string {
	return map[string]string{
		`alow: []`: "alow", `allow: [{type: ext4, sources: []}]`: "sources", `maxLoops: x`: "x", `maxLoops: [1]`: "", `allow: {type: ext4}`: "", `allow: "ext4"`: "", `allow: [ext4]`: "",
		`allow: [{type: ext4, source: "b 7:*"}]`: "", `allow: [{type: ext4, source: [{b: 7}]}]`: "", `allow: [{type: ext4, source: [""]}]`: "want block device numbers",
		`allow: [{type: ext4, source: ["b 7"]}]`: "want block device numbers", `allow: [{type: ext4, source: ["b "]}]`: "want block device numbers", `allow: [{type: ext4, source: ["b x:1"]}]`: "major",
		`allow: [{type: ext4, source: ["b 7:x"]}]`: "minor", `allow: [{type: ext4, source: ["b 7:1-"]}]`: "minor", `allow: [{type: ext4, source: ["b 7:5-1"]}]`: "ends before",
		`allow: [{type: ext4, source: ["b 7:-1"]}]`: "minor", `allow: [{type: ext4, source: ["b 4294967296:0"]}]`: "major", `allow: [{type: ext4, source: ["b 7:1:2"]}]`: "minor",
		`allow: [{type: ext4, source: ["b 7:1 rwm"]}]`: "minor", `allow: [{type: ext4, source: ["c 1:3"]}]`: "character device", `allow: [{type: ext4, source: ["/dev/[a"]}]`: "want block device numbers",
		`allow: [{type: ext4, source: ["b 7:*"], options: [""]}]`: "want NAME", `allow: [{type: ext4, source: ["b 7:*"], options: ["a b"]}]`: "want NAME", `allow: [{type: ext4, source: ["b 7:*"], options: ["=x"]}]`: "want NAME",
		`allow: [{type: ext4, source: ["b 7:*"], options: ["a,b"]}]`: "want NAME", `allow: [{type: ext4, source: ["b 7:*"], options: ["*"]}]`: "want NAME", `allow: [{type: ext4, source: ["b 7:*"], options: ["data=[a"]}]`: "bad glob",
		`allow: [{type: ext4, source: ["b 7:*"], options: noatime}]`: "", `allow: [{type: ext4, source: ["b 7:*"], shift: maybe}]`: "maybe", `allow: [{type: ext4, source: ["b 7:*"], loop: 2}]`: "2",
		`allow: [{type: ext4, source: ["b 7:*"], via: magic}]`: `want "kernel" or "fuse"`, `allow: [{type: ext4, source: ["b 7:*"], force: ro}]`: "",
		`allow: [{type: ext4, source: ["b 7:*"], options: [source]}]`: "agent's to set", `allow: [{type: ext4, source: ["b 7:*"], options: ["source=*"]}]`: "agent's to set",
		`allow: [{type: ext4, source: ["b 7:*"], options: ["fd=*"]}]`: "agent's to set", `allow: [{type: ext4, source: ["b 7:*"], options: ["context=*"]}]`: "agent's to set",
		`allow: [{type: ext4, source: ["b 7:*"], options: [loop]}]`: "agent's to set", `allow: [{type: ext4, source: ["b 7:*"], options: ["rfdno=*"]}]`: "agent's to set",
		`allow: [{type: ext4, source: ["b 7:*"], options: ["fscontext=*"]}]`: "agent's to set", `allow: [{type: ext4, source: ["b 7:*"], options: ["rootcontext=*"]}]`: "agent's to set",
	}
}

// TestPolicyRefuses: what is wrong is named, and so is the entry.
func TestPolicyRefuses(t *testing.T) {
	for text, want := range decodeErrors() {
		if _, err := Kind().New(emulatortest.Policy(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// TestValidate: what only the whole of a rule can know. Errors begin with the
// field.
func TestValidate(t *testing.T) {
	for text, want := range map[string]string{
		`maxLoops: -1`:                                                                          "maxLoops: -1 is negative",
		`allow: [{}]`:                                                                           "type: missing",
		`allow: [{source: ["b 7:*"]}]`:                                                          "type: missing",
		`allow: [{type: "", source: ["b 7:*"]}]`:                                                "type: missing",
		`allow: [{type: "a b", source: ["b 7:*"]}]`:                                             "type: ",
		`allow: [{type: a/b, source: ["b 7:*"]}]`:                                               "type: ",
		`allow: [{type: "ext4,xfs", source: ["b 7:*"]}]`:                                        "type: ",
		`allow: [{type: tmpfs, source: ["*"]}]`:                                                 "type: a user namespace mounts tmpfs by itself",
		`allow: [{type: proc, source: ["*"]}]`:                                                  "type: ",
		`allow: [{type: overlay, source: ["*"]}]`:                                               "type: ",
		`allow: [{type: fuse, source: ["*"]}]`:                                                  "type: ",
		`allow: [{type: fuse.sshfs, source: ["*"]}]`:                                            "type: ",
		`allow: [{type: fuseblk.ntfs, source: ["b 7:*"]}]`:                                      "type: ",
		`allow: [{type: ext4}]`:                                                                 "source: missing",
		`allow: [{type: ext4, source: []}]`:                                                     "source: missing",
		`allow: [{type: ext4, source: ["b 7:*"], force: [rw]}]`:                                 `force: "rw": want some of ro, nosuid, nodev, noexec`,
		`allow: [{type: ext4, source: ["b 7:*"], force: [sync]}]`:                               "force: ",
		`allow: [{type: ext4, source: ["b 7:*"], force: [noatime]}]`:                            "force: ",
		`allow: [{type: ext4, source: ["b 7:*"], force: [ro, RO]}]`:                             `force: "RO"`,
		`allow: [{type: ext4, source: ["b 7:*"], force: [""]}]`:                                 "force: ",
		`allow: [{type: ext4, source: ["b 7:*"], via: fuse}]`:                                   "program: missing",
		`allow: [{type: ext4, source: ["b 7:*"], via: fuse, program: " "}]`:                     "program: missing",
		`allow: [{type: ext4, source: ["b 7:*"], via: kernel, program: fuse2fs}]`:               "program: is for via: fuse",
		`allow: [{type: ext4, source: ["b 7:*"], program: fuse2fs}]`:                            "program: is for via: fuse",
		`allow: [{type: ext4, source: ["b 7:*"], via: fuse, program: fuse2fs, directIO: true}]`: "directIO: ",
	} {
		if _, err := load(text); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	for fstype := range kernelsOwn {
		if _, err := load(`allow: [{type: ` + fstype + `, source: ["*"]}]`); err == nil {
			t.Errorf("a rule for %s", fstype)
		}
	}
}

// oneRule is the first of a policy.
func oneRule(tb testing.TB, text string) *rule {
	tb.Helper()
	p, err := load("allow: [{type: ext4, " + text + "}]")
	must(tb, err)
	return &p.Allow[0]
}

func TestAllowsDevice(t *testing.T) {
	for _, c := range []struct {
		source       string
		major, minor uint32
		name         string
		want         bool
	}{
		{`"b 7:*"`, 7, 0, "", true}, {`"b 7:*"`, 7, 1<<20 - 1, "/dev/x", true}, {`"b 7:*"`, 8, 0, "", false}, {`"b 7:*"`, 0, 7, "", false},
		{`"b  7:* "`, 7, 3, "", true}, {`"b 8:0-15"`, 8, 0, "", true}, {`"b 8:0-15"`, 8, 15, "", true}, {`"b 8:0-15"`, 8, 16, "", false}, {`"b 8:3"`, 8, 3, "", true}, {`"b 8:3"`, 8, 2, "", false},
		{`"b 8-9:1-2"`, 9, 2, "", true}, {`"b 8-9:1-2"`, 10, 2, "", false}, {`"b *:*"`, 259, 65537, "", true}, {`"b *:1"`, 259, 2, "", false},
		{`"/dev/vg/*"`, 253, 0, "/dev/vg/a", true}, {`"/dev/vg/*"`, 253, 0, "/dev/vg/a/b", false}, {`"/dev/vg/*"`, 253, 0, "/dev/vga", false}, {`"/dev/vg/*"`, 253, 0, "", false},
		{`"/dev/vg/*"`, 253, 0, "/x/dev/vg/a", false}, {`"/dev/vg/*"`, 253, 0, "dev/vg/a", false}, {`"/dev/sd[ab]?"`, 8, 1, "/dev/sda1", true}, {`"/dev/sd[ab]?"`, 8, 1, "/dev/sdc1", false},
		{`"/dev/sd\\*"`, 8, 1, "/dev/sd*", true}, {`"/dev/sd\\*"`, 8, 1, "/dev/sda", false}, {`"*"`, 8, 1, "/dev", false}, {`"*"`, 8, 1, "", false},
		{`"b 8:1", "/dev/x"`, 9, 9, "/dev/x", true}, {`"b 8:1", "/dev/x"`, 8, 1, "/dev/y", true}, {`"b 8:1", "/dev/x"`, 9, 9, "/dev/y", false},
	} {
		if got := oneRule(t, "source: ["+c.source+"]").allowsDevice(unix.Mkdev(c.major, c.minor), c.name); got != c.want {
			t.Errorf("%s: %d:%d %q is %v", c.source, c.major, c.minor, c.name, got)
		}
	}
	// A glob for images, the container's own files, is none for device nodes that it put there.
	for source, want := range map[string]bool{"/images/*": false, "/*": false, "*": false, "/dev/vg/*": true, "b 7:*": true} {
		name := "/images/x"
		if strings.HasPrefix(source, "/dev/") {
			name = "/dev/vg/x"
		}
		if got := oneRule(t, `loop: true, source: ["`+source+`"]`).allowsDevice(unix.Mkdev(7, 0), name); got != want {
			t.Errorf("loop: true, source %s: device %s is %v", source, name, got)
		}
	}
	if oneRule(t, "loop: true").allowsDevice(unix.Mkdev(7, 0), "/dev/loop0") {
		t.Error("a rule for images only allows a device")
	}
}

func TestAllowsImage(t *testing.T) {
	for _, c := range []struct {
		rule, name string
		want       bool
	}{
		{`loop: true`, "/a.img", true}, {`loop: true`, "", true},
		{`source: ["b 7:*"]`, "/a.img", false}, {`source: ["/*.img"]`, "/a.img", false}, {`loop: false, source: ["/*.img"]`, "/a.img", false},
		{`loop: true, source: ["b 7:*"]`, "/a.img", true}, {`loop: true, source: ["b 7:5"]`, "/a.img", true}, {`loop: true, source: ["b *:*"]`, "/a.img", true},
		{`loop: true, source: ["b 8:*"]`, "/a.img", false}, {`loop: true, source: ["b 8:*", "b 7:0"]`, "/a.img", true},
		{`loop: true, source: ["/*.img"]`, "/a.img", true}, {`loop: true, source: ["/*.img"]`, "/a/b.img", false}, {`loop: true, source: ["/*.img"]`, "", false},
		{`loop: true, source: ["b 7:*", "/images/*"]`, "/images/a", true}, {`loop: true, source: ["b 7:*", "/images/*"]`, "/a.img", false},
	} {
		if got := oneRule(t, c.rule).allowsImage(c.name); got != c.want {
			t.Errorf("%s: %q is %v", c.rule, c.name, got)
		}
	}
}

func TestAllowsName(t *testing.T) {
	for _, c := range []struct {
		source, name string
		want         bool
	}{
		{`"server:/export/*"`, "server:/export/home", true}, {`"server:/export/*"`, "server:/export/home/x", false}, {`"server:/export/*"`, "other:/export/home", false},
		{`"*"`, "share", true}, {`"*"`, "//server/share", false}, {`"//server/*"`, "//server/share", true}, {`"*"`, "", false}, {`"b 7:*"`, "b 7:1", false},
		{`"server:/export/*"`, "server:/export/..", false}, {`"server:/*/home"`, "server:/../home", false}, {`"//server/*"`, "//server/..", false}, {`"*"`, "..", false}, {`"a:*"`, "a:..", false}, {`"*"`, `x\..`, false},
		{`"server:/*/*"`, "server://x", false}, {`"server:/export/*"`, "server:/export/a..b", true},
	} {
		if got := oneRule(t, "source: ["+c.source+"]").allowsName(c.name); got != c.want {
			t.Errorf("%s: %q is %v", c.source, c.name, got)
		}
	}
}

func TestAllowsOption(t *testing.T) {
	for _, c := range []struct {
		options string
		o       parameter
		want    bool
	}{
		{"", value("data", "x"), false}, {"", key("data"), false}, // absent: none of the filesystem's own
		{"options: []", value("data", "x"), false},
		{`options: ["data=*"]`, value("data", "x"), true}, {`options: ["data=*"]`, value("data", ""), true}, {`options: ["data=*"]`, key("data"), false}, {`options: ["data=*"]`, value("data2", "x"), false},
		{`options: ["data"]`, key("data"), true}, {`options: ["data"]`, value("data", "x"), false}, {`options: ["data="]`, value("data", ""), true}, {`options: ["data="]`, value("data", "x"), false}, {`options: ["data="]`, key("data"), false},
		{`options: ["data=ordered"]`, value("data", "ordered"), true}, {`options: ["data=ordered"]`, value("data", "orderedx"), false}, {`options: ["data=[ow]*"]`, value("data", "writeback"), true},
		{`options: ["data=a=b"]`, value("data", "a=b"), true}, {`options: ["errors=remount-ro", "errors=continue"]`, value("errors", "continue"), true}, {`options: ["errors=remount-ro", "errors=continue"]`, value("errors", "panic"), false},
		{`options: ["subvol=*"]`, value("subvol", "a/b"), false}, {`options: ["subvol=*/*"]`, value("subvol", "a/b"), true},
	} {
		text := `source: ["b 7:*"]`
		if c.options != "" {
			text += ", " + c.options
		}
		if got := oneRule(t, text).allowsOption(c.o); got != c.want {
			t.Errorf("%s: %s is %v", c.options, c.o, got)
		}
	}
}

func TestDefaults(t *testing.T) {
	p, err := load(`allow: [{type: ext4, source: ["b 7:*"]}, {type: xfs, source: ["b 7:*"], shift: false}, {type: ext4, loop: true, shift: true}]`)
	must(t, err)
	if p.maxLoops() != defaultMaxLoops || (&policy{MaxLoops: 3}).maxLoops() != 3 {
		t.Error("maxLoops")
	}
	if !p.Allow[0].shifts() || p.Allow[1].shifts() || !p.Allow[2].shifts() {
		t.Error("shift")
	}
	if p.Allow[0].Via != viaKernel || p.Allow[0].Loop || p.Allow[0].DirectIO {
		t.Errorf("%+v", p.Allow[0])
	}
	for fstype, want := range map[string]int{"ext4": 2, "xfs": 1, "ext3": 0, "": 0, "EXT4": 0} {
		if got := p.ofType(fstype); len(got) != want {
			t.Errorf("%d rules of type %q", len(got), fstype)
		}
	}
}

func FuzzSource(f *testing.F) {
	for _, s := range []string{"b 7:*", "b 8:0-15", "/dev/*", "b 1:3-", "b ", "c 1:3", "[", "b 18446744073709551617:0"} {
		f.Add(s, uint32(7), uint32(3), "/dev/x")
	}
	f.Fuzz(func(t *testing.T, text string, major, minor uint32, name string) {
		var s source
		if s.UnmarshalText([]byte(text)) != nil {
			return
		}
		if s.device == (s.glob != "") || s.major.last < s.major.first || s.minor.last < s.minor.first {
			t.Errorf("%q: %+v", text, s)
		}
		r := rule{Source: []source{s}}
		if s.device && (r.allowsName(name) || r.allowsDevice(unix.Mkdev(major, minor), name) != r.allowsDevice(unix.Mkdev(major, minor), "")) {
			t.Errorf("%q: numbers match the name %q", text, name)
		}
		if !s.device && r.allowsDevice(unix.Mkdev(major, minor), "") {
			t.Errorf("%q: a glob matches no name", text)
		}
		if r.allowsImage(name) {
			t.Errorf("%q allows an image", text)
		}
	})
}
