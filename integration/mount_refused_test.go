package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/integration/internal/probe"
)

// damaged is an image that the kernel refuses.
type damaged struct {
	name, fstype string
	damage       func(image string) error
	says         string // the kernel's words: a regular expression; "": it has none
}

// flip inverts a bit of each byte at an offset.
func flip(at int64, n int) func(string) error {
	return func(image string) error {
		f, err := os.OpenFile(image, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		data := make([]byte, n)
		if _, err := f.ReadAt(data, at); err != nil {
			return err
		}
		for i := range data {
			data[i] ^= 1
		}
		_, err = f.WriteAt(data, at)
		return err
	}
}

func truncate(size int64) func(string) error {
	return func(image string) error { return os.Truncate(image, size) }
}

var damages = []damaged{
	{"ext4-magic", "ext4", flip(1024+0x38, 2), `find.*ext4|ext4.*find`},
	{"ext4-short", "ext4", truncate(8 << 20), `bad geometry`},
	{"ext4-feature", "ext4", flip(1024+0x60+3, 1), `unsupported|optional features|superblock checksum`},
	{"xfs-magic", "xfs", flip(0, 4), `(?i)superblock|magic`},
	{"xfs-short", "xfs", truncate(100 << 20), `(?i)last sector|device|size|read failed|i/o|superblock`},
	{"btrfs-magic", "btrfs", flip(0x10040, 8), ``},
	{"btrfs-sum", "btrfs", flip(0x10000, 4), `(?i)checksum`},
	{"squashfs-magic", "squashfs", flip(0, 4), `(?i)squashfs superblock`},
	{"squashfs-short", "squashfs", truncate(8192), ``},
	{"erofs-magic", "erofs", flip(1024, 4), `(?i)erofs|superblock`},
}

// kernelRefusals are calls that fail natively, too: with the same errno. The
// policy allows type and source of all of them.
func kernelRefusals() (steps []step) {
	ext4 := func(source, target string, flags uint64, data string) string {
		return mountCall(source, target, "ext4", flags, data)
	}
	long := strings.Repeat("x", 300)
	for _, r := range []struct{ name, do string }{
		{"unknown type", mountCall("/blk/ext4", "/mnt", "nosuchfs", 0, "-")},
		{"empty type", mountCall("/blk/ext4", "/mnt", `""`, 0, "-")},
		{"NULL type", mountCall("/blk/ext4", "/mnt", "-", 0, "-")},
		{"bad type", mountCall("/blk/ext4", "/mnt", "BAD", 0, "-")},
		{"NULL everything", mountCall("-", "-", "-", 0, "-")},
		{"target is missing", ext4("/blk/ext4", "/missing", 0, "-")},
		{"target's parent is missing", ext4("/blk/ext4", "/missing/mnt", 0, "-")},
		{"target's parent is a file", ext4("/blk/ext4", "/script/mnt", 0, "-")},
		{"target is a file", ext4("/blk/ext4", "/script", 0, "-")},
		{"target loops", ext4("/blk/ext4", "/at/loop", 0, "-")},
		{"target dangles", ext4("/blk/ext4", "/at/dangling", 0, "-")},
		{"target is too long", ext4("/blk/ext4", "/at/"+long, 0, "-")},
		{"empty target", ext4("/blk/ext4", `""`, 0, "-")},
		{"NULL target", ext4("/blk/ext4", "-", 0, "-")},
		{"bad target", ext4("/blk/ext4", "BAD", 0, "-")},
		{"source is missing", ext4("/blk/missing", "/mnt", 0, "-")},
		{"source's parent is a file", ext4("/script/ext4", "/mnt", 0, "-")},
		{"source is a directory", ext4("/blk", "/mnt", 0, "-")},
		{"source is a character device", ext4("/blk/null", "/mnt", 0, "-")},
		{"source loops", ext4("/at/loop", "/mnt", 0, "-")},
		{"source is too long", ext4("/blk/"+long, "/mnt", 0, "-")},
		{"empty source", ext4(`""`, "/mnt", 0, "-")},
		{"NULL source", ext4("-", "/mnt", 0, "-")},
		{"bad source", ext4("BAD", "/mnt", 0, "-")},
		{"no such device", ext4("/blk/none", "/mnt", 0, "-")},
		{"option that ext4 does not know", ext4("/blk/ext4", "/mnt", 0, "bogus")},
		{"value that ext4 does not know", ext4("/blk/ext4", "/mnt", 0, "data=bogus")},
		{"data without an end", ext4("/blk/ext4", "/mnt", 0, "LONG")},
		{"data up to the end of what is mapped", ext4("/blk/ext4", "/mnt", 0, "EDGE:nodelalloc,bogus")},
		{"bad data", ext4("/blk/ext4", "/mnt", 0, "BAD")},
		{"MS_NOUSER", ext4("/blk/ext4", "/mnt", 1<<31, "-")},
		{"bit 40", ext4("/blk/ext4", "/mnt", 1<<40, "-")},
		{"remount of no mount", remountCall("/at", 0)},
		{"remount of what is missing", remountCall("/missing", 0)},
		{"without CAP_SYS_ADMIN", "nocap " + ext4("/blk/ext4", "/mnt", 0, "-")},
		{"without CAP_SYS_ADMIN, target is missing", "nocap " + ext4("/blk/ext4", "/missing", 0, "-")},
		{"without CAP_SYS_ADMIN, source is missing", "nocap " + ext4("/blk/missing", "/mnt", 0, "-")},
		{"a user", "user 1000 " + ext4("/blk/ext4", "/mnt", 0, "-")},
		{"a nested user namespace", "nested " + ext4("/blk/ext4", "/mnt", 0, "-")},
		{"source is outside of the root", "chroot /at " + ext4("/blk/ext4", "/", 0, "-")},
		{"source is outside of the root, by dots", "chroot /at " + ext4("/../../blk/ext4", "/", 0, "-")},
	} {
		steps = append(steps, section(r.name), step{"mark", ""}, step{r.do, "~^E"}, step{"unchanged", ""})
	}
	for _, d := range damages {
		steps = append(steps, section("damaged "+d.name), step{"mark", ""},
			step{mountCall("/blk/"+d.name, "/mnt", d.fstype, unix.MS_RDONLY, "-"), "~^E"}, step{"unchanged", ""})
	}
	return steps
}

// kernelAccepts are unusual calls that succeed natively, too.
func kernelAccepts() (steps []step) {
	for _, a := range []struct {
		name, do string
		then     []step
	}{
		{"relative", "cd /at " + mountCall("../blk/ext4", "../mnt", "ext4", 0, "-"), nil},
		{"by symlinks", mountCall("/at/source", "/at/target", "ext4", 0, "-"), nil},
		{"a thread", "thread " + mountCall("/blk/ext4", "/mnt", "ext4", 0, "-"), nil},
		{"options at the end of what is mapped", mountCall("/blk/ext4", "/mnt", "ext4", 0, "EDGE:nodelalloc"),
			[]step{{"info /mnt", `~ rw,\S*\bnodelalloc`}}},
		{"options at the end of the page", mountCall("/blk/ext4", "/mnt", "ext4", 0, "FILL:nodelalloc"),
			[]step{{"info /mnt", `~ rw,\S*\bnodelalloc`}}},
		{"flags among the options", mountCall("/blk/ext4", "/mnt", "ext4", 0, "ro,,lazytime,"),
			[]step{{"info /mnt", `~ ro,lazytime`}}},
		{"empty options", mountCall("/blk/ext4", "/mnt", "ext4", 0, `""`), nil},
		{"option with a value", mountCall("/blk/ext4", "/mnt", "ext4", 0, "data=ordered,stripe=7"),
			[]step{{"info /mnt", `~ rw,\S*\bstripe=7`}}},
		{"trailing slash", mountCall("/blk/ext4", "/mnt/", "ext4", 0, "-"), nil},
		{"squashfs without MS_RDONLY", mountCall("/blk/squashfs", "/mnt", "squashfs", 0, "-"),
			[]step{{"info /mnt", `~ \S+ ro`}, {"write /mnt/file x", "EROFS"}}},
		{"erofs without MS_RDONLY", mountCall("/blk/erofs", "/mnt", "erofs", 0, "-"),
			[]step{{"info /mnt", `~ \S+ ro`}, {"write /mnt/file x", "EROFS"}}},
	} {
		steps = append(steps, section(a.name), step{"mark", ""}, step{a.do, ""}, step{"read /mnt/file", "~^hello"})
		steps = append(steps, a.then...)
		steps = append(steps, step{"umount /mnt", ""}, step{"unchanged", ""})
	}
	return append(steps, section("another mount namespace"), step{"mark", ""},
		step{"newns " + mountCall("/blk/ext4", "/mnt", "ext4", 0, "-"), ""}, step{"unchanged", ""})
}

// mountExceptions are where the errno in a container differs from natively.
var mountExceptions = []struct {
	section string // a regular expression
	when    func(setting) bool
	want    string
	why     string
}{
	{`^unknown type$`, hasRights, "EPERM",
		"policy says no where the kernel would not have to; with a user namespace the kernel is left to say what is wrong"},
	{`^unknown type$`, func(v setting) bool { return !v.userNamespace }, "EPERM",
		"the kernel, which would know, cannot be left to answer a caller that it trusts"},
}

// hasRights: the kernel would let the container mount anything.
func hasRights(v setting) bool { return !v.userNamespace }

// expected is what a step must give, given what it gives natively.
func expected(v setting, section, golden string) string {
	for _, e := range mountExceptions {
		if e.when(v) && strings.HasPrefix(golden, "E") && regexp.MustCompile(e.section).MatchString(section) {
			return e.want
		}
	}
	return golden
}

// compareMounts compares all errnos with those of the native run.
func compareMounts(t *testing.T, v setting, golden, got []probe.Result) {
	t.Helper()
	if len(golden) != len(got) {
		t.Fatalf("%d results, natively %d", len(got), len(golden))
	}
	for i, g := range golden {
		if g.Name != got[i].Name {
			t.Fatalf("result %d is of %q, natively of %q", i, got[i].Name, g.Name)
		}
		if strings.HasPrefix(g.Name, "info ") {
			continue // which has the forced flags
		}
		if want := expected(v, g.Scenario, outcome(g)); outcome(got[i]) != want {
			t.Errorf("%s: %s: %q, want %q; natively %q", g.Scenario, g.Name, outcome(got[i]), want, outcome(g))
		}
	}
}

// TestMountErrno: what fails natively fails in a container with the same errno
// and leaves nothing behind, and what the kernel said is in the agent's log.
func TestMountErrno(t *testing.T) {
	s := newMountStage(t)
	devices := make(map[string]loop)
	rules := make(map[string][]string)
	attach := func(fstype, name string, damage func(string) error) {
		l := loop{image: filepath.Join(s.dir, name)}
		if err := copySparse(filepath.Join(s.images, fstype), l.image); err != nil {
			t.Fatal(err)
		}
		if damage != nil {
			if err := damage(l.image); err != nil {
				t.Fatal(err)
			}
		}
		l.number = s.losetup(l.image)
		devices[name] = l
		rules[fstype] = append(rules[fstype], l.rule())
	}
	attach("ext4", "ext4", nil)
	attach("squashfs", "squashfs", nil)
	attach("erofs", "erofs", nil)
	for _, d := range damages {
		attach(d.fstype, d.name, d.damage)
	}
	var allow []string
	for fstype, sources := range rules {
		allow = append(allow, fmt.Sprintf("type: %s, source: [%s, 'b 7:9999'], options: [nodelalloc, 'data=ordered', 'stripe=*', %s]",
			fstype, strings.Join(sources, ", "), allFlags))
	}
	s.startAgent(map[string][]string{"errno": allow})
	steps := append(kernelRefusals(), kernelAccepts()...)
	prepared := func(t *testing.T, v setting) *box {
		b := s.under(t).box(v, "errno")
		for name, l := range devices {
			b.node("blk/"+name, 7, l.number)
		}
		b.node("blk/none", 7, 9999)
		char := b.path("blk/char")
		if err := unix.Mknod(char, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
			t.Fatal(err)
		}
		b.own("blk/char")
		if err := unix.Mknod(b.path("blk/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
			t.Fatal(err)
		}
		for from, to := range map[string]string{
			"at/loop": "loop", "at/dangling": "nothing", "at/source": "../blk/ext4", "at/target": "../mnt",
		} {
			if err := os.Symlink(to, b.path(from)); err != nil {
				t.Fatal(err)
			}
			b.own(from)
		}
		return b
	}
	var golden []probe.Result
	t.Run("native", func(t *testing.T) {
		golden = prepared(t, native).run(steps)
		judge(t, steps, golden)
		for _, r := range golden {
			if r.Ret < 0 {
				t.Logf("%s: %s", r.Scenario, outcome(r))
			}
		}
	})
	for _, v := range mountSettings {
		t.Run(v.String(), func(t *testing.T) {
			b := prepared(t, v)
			got := b.run(steps)
			compareMounts(t, v, golden, got)
			if v.engine != "run" {
				b.log = s.agent.Log()
			}
			checkWords(t, b.log, b.c.ID)
		})
	}
}

// checkWords looks for what the kernel says of each damaged image.
func checkWords(t *testing.T, log, id string) {
	t.Helper()
	var details []string
	for _, line := range strings.Split(log, "\n") {
		// callgate run's log has one container.
		if m := regexp.MustCompile(`detail="([^"]*)"`).FindStringSubmatch(line); m != nil &&
			(strings.Contains(line, id) || !strings.Contains(log, id)) {
			details = append(details, m[1])
		}
	}
	for _, d := range damages {
		found := d.says == ""
		for _, detail := range details {
			found = found || regexp.MustCompile(d.says).MatchString(detail)
		}
		if !found {
			t.Errorf("%s: no detail of the log has %q:\n%s", d.name, d.says, strings.Join(details, "\n"))
		}
	}
}

// TestMountPolicy: what policy does not have is refused, whatever the container
// could do by itself, and leaves nothing behind.
func TestMountPolicy(t *testing.T) {
	s := newMountStage(t)
	allowed, other := s.attach("ext4", "allowed"), s.attach("ext4", "other")
	erofs := s.attach("erofs", "erofs")
	s.startAgent(map[string][]string{"policy": {
		"type: ext4, source: [" + allowed.rule() + ", '/img/yes-*'], loop: true, options: [nodelalloc, 'data=ordered']",
		"type: xfs, source: [" + other.rule() + "]",
	}})
	ext4 := func(source string, flags uint64, data string) string {
		return mountCall(source, "/mnt", "ext4", flags, data)
	}
	tests := []struct{ name, do, want string }{
		{"type", mountCall("/blk/erofs", "/mnt", "erofs", unix.MS_RDONLY, "-"), "EPERM"},
		{"type with a subtype", mountCall("/blk/ext4", "/mnt", "ext4.sub", 0, "-"), "~^(EPERM|ENODEV|EINVAL)$"},
		{"another type's source", ext4("/blk/other", 0, "-"), "EPERM"},
		{"another source's type", mountCall("/blk/ext4", "/mnt", "xfs", 0, "-"), "EPERM"},
		{"device of no rule", ext4("/blk/erofs", 0, "-"), "EPERM"},
		{"image of no rule", ext4("/img/no", 0, "-"), "EPERM"},
		{"image of no rule by an allowed name", ext4("/img/yes-link", 0, "-"), "EPERM"},
		{"image, and the type has devices only", mountCall("/img/yes-ext4", "/mnt", "xfs", 0, "-"), "ENOTBLK"},
		{"option", ext4("/blk/ext4", 0, "noload"), "EINVAL"},
		{"option's value", ext4("/blk/ext4", 0, "data=journal"), "EINVAL"},
		{"option after an allowed one", ext4("/blk/ext4", 0, "nodelalloc,noload"), "EINVAL"},
		{"option in a value", ext4("/blk/ext4", 0, `data="ordered,noload"`), "EINVAL"},
		{"open quote", ext4("/blk/ext4", 0, `nodelalloc,"`), "EINVAL"},
		{"comma behind a backslash", ext4("/blk/ext4", 0, `data=ordered\,noload`), "EINVAL"},
		{"source as an option", ext4("/blk/ext4", 0, "source=/blk/other"), "EINVAL"},
		{"context", ext4("/blk/ext4", 0, "context=x"), "EINVAL"},
		{"noatime", ext4("/blk/ext4", unix.MS_NOATIME, "-"), "EPERM"},
		{"sync", ext4("/blk/ext4", unix.MS_SYNCHRONOUS, "-"), "EPERM"},
		{"lazytime", ext4("/blk/ext4", unix.MS_LAZYTIME, "-"), "EPERM"},
		{"sync among the options", ext4("/blk/ext4", 0, "sync"), "EPERM"},
	}
	var steps []step
	for _, test := range tests {
		steps = append(steps, section(test.name), step{"mark", ""}, step{test.do, test.want}, step{"unchanged", ""})
	}
	steps = append(steps, []step{
		section("remounts"),
		{ext4("/blk/ext4", 0, "nodelalloc"), ""},
		{"mark", ""},
		{remountCall("/mnt", unix.MS_SYNCHRONOUS), "EPERM"},
		{mountCall("-", "/mnt", "-", unix.MS_REMOUNT, "noload"), "EINVAL"},
		{mountCall("-", "/mnt", "-", unix.MS_REMOUNT, "sync"), "EPERM"},
		{"nocap " + remountCall("/mnt", unix.MS_RDONLY), "EPERM"},
		{"nested " + remountCall("/mnt", unix.MS_RDONLY), "EPERM"},
		{"user 1000 " + remountCall("/mnt", unix.MS_RDONLY), "EPERM"},
		{"unchanged", ""},
		{"write /mnt/file x", ""},
		{"umount /mnt", ""},
		section("allowed"),
		{ext4("/img/yes-ext4", 0, "nodelalloc,data=ordered"), ""},
		{"umount /mnt", ""},
	}...)
	for _, v := range mountSettings {
		t.Run(v.String(), func(t *testing.T) {
			b := s.under(t).box(v, "policy")
			b.node("blk/ext4", 7, allowed.number)
			b.node("blk/other", 7, other.number)
			b.node("blk/erofs", 7, erofs.number)
			b.image("img/yes-ext4", "ext4")
			b.image("img/no", "ext4")
			if err := os.Symlink("no", b.path("img/yes-link")); err != nil {
				t.Fatal(err)
			}
			b.own("img/yes-link")
			judge(t, steps, b.run(steps))
			noLoops(t, "/img/yes-ext4")
			noLoops(t, "/img/no")
		})
	}
}
