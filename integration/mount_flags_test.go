package integration

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/integration/internal/probe"
)

// effects is what the flags of mount(2) do, looked at by what then happens.
// Where a flag has no effect that can be seen, mountinfo has to do.
var effects = []struct {
	name  string
	flags uint64
	steps []step
}{
	{"none", 0, []step{
		{"write /mnt/file more!", ""}, {"suid /mnt/suid", "euid 0"}, {"open /mnt/null", ""}, {"exec /mnt/suid ids", "euid 0"},
		{"read /mnt/link", "more!"}, {"atime /mnt/file", "moved kept"}, {"atime /mnt/dir", "moved kept"},
	}},
	{"ro", unix.MS_RDONLY, []step{
		{"write /mnt/file x", "EROFS"}, {"mkdir /mnt/new", "EROFS"}, {"info /mnt", `~ ro,\S* ro`},
	}},
	{"nosuid", unix.MS_NOSUID, []step{{"suid /mnt/suid", "euid 1000"}, {"open /mnt/null", ""}}},
	{"nodev", unix.MS_NODEV, []step{{"suid /mnt/suid", "euid 0"}, {"open /mnt/null", "EACCES"}}},
	{"noexec", unix.MS_NOEXEC, []step{{"exec /mnt/suid ids", "EACCES"}, {"suid /mnt/suid", "EACCES"}}},
	{"nosymfollow", unix.MS_NOSYMFOLLOW, []step{{"read /mnt/link", "ELOOP"}, {"open /mnt/file", ""}}},
	{"relatime", unix.MS_RELATIME, []step{{"atime /mnt/file", "moved kept"}, {"atime /mnt/dir", "moved kept"}}},
	{"noatime", unix.MS_NOATIME, []step{{"atime /mnt/file", "kept kept"}, {"atime /mnt/dir", "kept kept"}}},
	{"strictatime", unix.MS_STRICTATIME, []step{{"atime /mnt/file", "moved moved"}, {"atime /mnt/dir", "moved moved"}}},
	{"strictatime and noatime", unix.MS_STRICTATIME | unix.MS_NOATIME, []step{{"atime /mnt/file", "moved moved"}}},
	{"relatime and noatime", unix.MS_RELATIME | unix.MS_NOATIME, []step{{"atime /mnt/file", "kept kept"}}},
	{"nodiratime", unix.MS_NODIRATIME, []step{{"atime /mnt/file", "moved kept"}, {"atime /mnt/dir", "kept kept"}}},
	{"strictatime and nodiratime", unix.MS_STRICTATIME | unix.MS_NODIRATIME, []step{
		{"atime /mnt/file", "moved moved"}, {"atime /mnt/dir", "kept kept"},
	}},
	{"sync", unix.MS_SYNCHRONOUS, []step{{"info /mnt", `~ rw,sync\b\S*$`}}},
	{"dirsync", unix.MS_DIRSYNC, []step{{"info /mnt", `~ rw,dirsync\b\S*$`}}},
	{"lazytime", unix.MS_LAZYTIME, []step{{"info /mnt", `~ rw,lazytime\b\S*$`}}},
	{"mandlock, which is nothing", unix.MS_MANDLOCK, []step{{"info /mnt", `~ rw,\S* rw`}}},
	{"silent, posixacl, i_version", unix.MS_SILENT | unix.MS_POSIXACL | unix.MS_I_VERSION, []step{{"info /mnt", `~ rw,\S* rw`}}},
	{"magic number of old", unix.MS_MGC_VAL | unix.MS_RDONLY, []step{{"write /mnt/file x", "EROFS"}}},
	{"ro, nosuid, nodev, noexec, noatime", unix.MS_RDONLY | lockedFlags | unix.MS_NOEXEC | unix.MS_NOATIME, []step{
		{"write /mnt/file x", "EROFS"}, {"suid /mnt/suid", "EACCES"}, {"open /mnt/null", "EACCES"},
	}},
}

// changes are remounts of a filesystem, in turn.
var changes = []struct {
	name  string
	flags uint64
	steps []step
}{
	{"ro", unix.MS_RDONLY, []step{{"write /mnt/file x", "EROFS"}}},
	{"rw and noexec", unix.MS_NOEXEC, []step{{"write /mnt/file again", ""}, {"exec /mnt/suid ids", "EACCES"}}},
	{"nosuid", unix.MS_NOSUID, []step{{"exec /mnt/suid ids", "euid 0"}, {"suid /mnt/suid", "euid 1000"}, {"open /mnt/null", ""}}},
	{"nodev", unix.MS_NODEV, []step{{"suid /mnt/suid", "euid 0"}, {"open /mnt/null", "EACCES"}}},
	{"nosymfollow", unix.MS_NOSYMFOLLOW, []step{{"read /mnt/link", "ELOOP"}}},
	{"none", 0, []step{{"read /mnt/link", "~."}, {"open /mnt/null", ""}}},
	{"sync", unix.MS_SYNCHRONOUS, []step{{"info /mnt", `~ rw,sync\b\S*$`}}},
	{"lazytime", unix.MS_LAZYTIME, []step{{"info /mnt", `~ rw,lazytime\b\S*$`}}},
	{"bind, ro", unix.MS_BIND | unix.MS_RDONLY, []step{{"write /mnt/file x", "EROFS"}, {"info /mnt", `~ ro,\S* rw`}}},
	{"bind, noexec", unix.MS_BIND | unix.MS_NOEXEC, []step{{"write /mnt/file x", ""}, {"exec /mnt/suid ids", "EACCES"}}},
	{"bind, none", unix.MS_BIND, []step{{"exec /mnt/suid ids", "euid 0"}}},
	{"noatime", unix.MS_NOATIME, []step{{"atime /mnt/file", "kept kept"}}},
	{"and so it stays", 0, []step{{"atime /mnt/file", "kept kept"}}},
	{"strictatime", unix.MS_STRICTATIME, []step{{"atime /mnt/file", "moved moved"}}},
	{"bind, noatime", unix.MS_BIND | unix.MS_NOATIME, []step{{"atime /mnt/file", "kept kept"}}},
	{"bind, nodiratime", unix.MS_BIND | unix.MS_NODIRATIME, []step{{"atime /mnt/file", "moved kept"}, {"atime /mnt/dir", "kept kept"}}},
}

// flagSteps is both tables as a script.
func flagSteps() (steps []step) {
	for _, e := range effects {
		steps = append(steps, section("mount "+e.name), step{mountCall("/blk/ext4", "/mnt", "ext4", e.flags, "-"), ""})
		steps = append(append(steps, e.steps...), step{"umount /mnt", ""})
	}
	steps = append(steps, section("remount"), step{mountCall("/blk/ext4", "/mnt", "ext4", 0, "-"), ""})
	for _, c := range changes {
		steps = append(steps, section("remount "+c.name), step{remountCall("/mnt", c.flags), ""})
		steps = append(steps, c.steps...)
	}
	return append(steps, step{"umount /mnt", ""})
}

// allFlags is an options list with every flag in it.
const allFlags = "suid, dev, noatime, strictatime, nodiratime, sync, dirsync, lazytime"

// TestMountFlags: where the policy lifts nosuid and nodev, each flag does what
// it does natively.
func TestMountFlags(t *testing.T) {
	s := newMountStage(t)
	l := s.attach("ext4", "flags")
	s.startAgent(map[string][]string{"flags": {fmt.Sprintf("type: ext4, source: [%s], options: [%s]", l.rule(), allFlags)}})
	steps := flagSteps()
	for _, v := range append([]setting{native}, mountSettings...) {
		t.Run(v.String(), func(t *testing.T) {
			s := s.under(t)
			b := s.box(v, "flags")
			b.node("blk/ext4", 7, l.number)
			judge(t, steps, b.run(steps))
		})
	}
}

// TestMountLift: a policy lifts nosuid and nodev each by its name, and forces
// what it wants.
func TestMountLift(t *testing.T) {
	s := newMountStage(t)
	l := s.attach("ext4", "lift")
	rule := func(more string) []string {
		return []string{fmt.Sprintf("type: ext4, source: [%s]%s", l.rule(), more)}
	}
	tests := []struct {
		profile, more string
		steps         []step
	}{
		{"both", "", []step{{"suid /mnt/suid", "euid 1000"}, {"open /mnt/null", "EACCES"}}},
		{"liftsuid", ", options: [suid]", []step{{"suid /mnt/suid", "euid 0"}, {"open /mnt/null", "EACCES"}}},
		{"liftdev", ", options: [dev]", []step{{"suid /mnt/suid", "euid 1000"}, {"open /mnt/null", ""}}},
		{"force", ", options: [suid, dev], force: [ro, noexec]", []step{
			{"suid /mnt/suid", "EACCES"}, {"open /mnt/null", ""}, {"write /mnt/file x", "EROFS"},
		}},
	}
	profiles := make(map[string][]string)
	for _, test := range tests {
		profiles[test.profile] = rule(test.more)
	}
	s.startAgent(profiles)
	for _, v := range mountSettings {
		for _, test := range tests {
			t.Run(v.String()+","+test.profile, func(t *testing.T) {
				b := s.under(t).box(v, test.profile)
				b.node("blk/ext4", 7, l.number)
				steps := append([]step{{mountCall("/blk/ext4", "/mnt", "ext4", 0, "-"), ""}}, test.steps...)
				// Asking without them changes nothing.
				for _, flags := range []uint64{unix.MS_BIND, 0, unix.MS_BIND | unix.MS_RELATIME} {
					steps = append(append(steps, step{remountCall("/mnt", flags), "*"}), test.steps...)
				}
				steps = append(steps, step{"umount /mnt", ""})
				judge(t, steps, b.run(steps))
			})
		}
	}
}

// TestMountLocked: the kernel itself keeps the flags that are forced, for a
// process in the container that no filter stops.
func TestMountLocked(t *testing.T) {
	s := newMountStage(t)
	l := s.attach("ext4", "locked")
	s.startAgent(map[string][]string{"locked": {"type: ext4, source: [" + l.rule() + "]"}})
	for _, v := range mountSettings {
		if v.engine == "run" || !v.userNamespace {
			continue
		}
		t.Run(v.String(), func(t *testing.T) {
			s := s.under(t)
			b := s.box(v, "locked")
			b.node("blk/ext4", 7, l.number)
			r := b.pause()
			mounted := []step{{mountCall("/blk/ext4", "/mnt", "ext4", 0, "-"), ""}}
			judge(t, mounted, b.exec(r, mounted))
			steps := []step{
				{remountCall("/mnt", unix.MS_BIND), "EPERM"},
				{remountCall("/mnt", unix.MS_BIND|unix.MS_NOSUID), "EPERM"},
				{remountCall("/mnt", unix.MS_BIND|unix.MS_NODEV), "EPERM"},
				{remountCall("/mnt", 0), "EPERM"},
				{remountCall("/mnt", lockedFlags), "EPERM"},
				{remountCall("/mnt", unix.MS_BIND|lockedFlags), ""},
				{mountCall("/mnt", "/at", "-", unix.MS_BIND, "-"), ""},
				{remountCall("/at", unix.MS_BIND), "EPERM"},
				{"suid /at/suid", "euid 1000"},
				{"open /at/null", "EACCES"},
				{"umount /at", ""},
				{"newns " + remountCall("/mnt", unix.MS_BIND), "EPERM"},
				{"suid /mnt/suid", "euid 1000"},
				{"open /mnt/null", "EACCES"},
				{"umount /mnt", ""},
			}
			judge(t, steps, b.enter(r, steps))
		})
	}
}

// enter runs the steps in the container's namespaces, as its root with all
// capabilities, but without its filter.
func (b *box) enter(r interface {
	InitPID(context.Context, string) (int, error)
}, steps []step) []probe.Result {
	b.s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	pid, err := r.InitPID(ctx, b.c.ID)
	if err != nil {
		b.s.t.Fatal(err)
	}
	b.file("script", script(steps))
	out, err := exec.CommandContext(ctx, "nsenter", "--target", strconv.Itoa(pid), "--user", "--mount", "--pid",
		"/bin/mountprobe", "run", "/script", "/work").Output()
	return b.s.parse(out, err)
}
