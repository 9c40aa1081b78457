package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const lockedFlags = unix.MS_NOSUID | unix.MS_NODEV

// useFilesystem mounts a source and uses it as a container does.
func useFilesystem(fs filesystem, source, target string) []step {
	steps := []step{
		section(fs.name + " from " + source),
		{"mkdir " + target, ""},
		{"mark", ""},
	}
	if fs.readOnly {
		return append(steps, useReadOnly(fs, source, target)...)
	}
	return append(steps, useWritable(fs, source, target)...)
}

// noEffect is what set-user-id programs and device nodes have on what the
// policy does not trust.
func noEffect(target string) []step {
	return []step{
		{"suid " + target + "/suid", "euid 1000"},
		{"open " + target + "/null", "EACCES"},
	}
}

func useReadOnly(fs filesystem, source, target string) []step {
	mount := mountCall(source, target, fs.name, unix.MS_RDONLY, "-")
	steps := []step{
		{mount, ""},
		{"info " + target, `~^` + fs.name + ` \S+ ro,nosuid,nodev`},
		{"read " + target + "/file", "hello"},
		{"stat " + target + "/file", "100644 of 0:0"},
		{"write " + target + "/made text", "EROFS"},
		// Of the filesystem it is refused, of the mount it does not matter.
		{remountCall(target, unix.MS_BIND), ""},
		{"write " + target + "/made text", "EROFS"},
	}
	steps = append(steps, noEffect(target)...)
	steps = append(steps, []step{
		{"umount " + target, ""},
		{"unchanged", ""},
		{mount, ""},
		{"read " + target + "/file", "hello"},
		{"umount " + target, ""},
		{"unchanged", ""},
	}...)
	return append(steps, []step{
		// The filesystem makes it read-only by itself.
		{mountCall(source, target, fs.name, 0, "-"), ""},
		{"read " + target + "/file", "hello"},
		{"write " + target + "/made text", "EROFS"},
		{"umount " + target, ""},
		{"unchanged", ""},
	}...)
}

func useWritable(fs filesystem, source, target string) []step {
	mount := mountCall(source, target, fs.name, 0, "-")
	made := target + "/made"
	steps := []step{
		{mount, ""},
		{"info " + target, `~^` + fs.name + ` \S+ rw,nosuid,nodev`},
		{"read " + target + "/file", "hello"},
		{"stat " + target + "/file", "100644 of 0:0"},
		{"write " + made + " first", ""},
		{"stat " + made, "100644 of 0:0"},
		{"user 1000 write " + target + "/dir/theirs first", ""},
		{"stat " + target + "/dir/theirs", "100644 of 1000:1000"},
	}
	steps = append(steps, noEffect(target)...)
	steps = append(steps, []step{
		{remountCall(target, unix.MS_RDONLY), ""},
		{"info " + target, `~ ro,nosuid,nodev\S* ro`},
		{"write " + made + " second", "EROFS"},
		{remountCall(target, 0), ""},
		{"info " + target, `~ rw,nosuid,nodev\S* rw`},
		{"write " + made + " third", ""},
		{remountCall(target, unix.MS_BIND|unix.MS_RDONLY), ""},
		{"info " + target, `~ ro,nosuid,nodev\S* rw`},
		{"write " + made + " fourth", "EROFS"},
		{remountCall(target, unix.MS_BIND), ""},
		{"info " + target, `~ rw,nosuid,nodev\S* rw`},
		{"write " + made + " fifth", ""},
	}...)
	steps = append(steps, noEffect(target)...)
	return append(steps, []step{
		{"umount " + target, ""},
		{"unchanged", ""},
		{mount, ""},
		{"read " + made, "fifth"},
		{"umount " + target, ""},
		{"unchanged", ""},
	}...)
}

// notified counts the steps that the agent is asked about: every mount(2), and
// nothing else.
func notified(steps []step) (n int) {
	for _, st := range steps {
		if strings.HasPrefix(st.do, "mount ") {
			n++
		}
	}
	return n
}

// TestMountFilesystems: each type, from a device and from an image, in each
// kind of container.
func TestMountFilesystems(t *testing.T) {
	s := newMountStage(t)
	type device struct {
		fs filesystem
		loop
	}
	var devices []device
	var rules []string
	for _, fs := range filesystems {
		d := device{fs, s.attach(fs.name, "device-"+fs.name)}
		devices = append(devices, d)
		rules = append(rules, fmt.Sprintf("type: %s, source: [%s, '/img/*'], loop: true", fs.name, d.rule()))
	}
	s.startAgent(map[string][]string{"filesystems": rules})
	for _, v := range mountSettings {
		t.Run(v.String(), func(t *testing.T) {
			s := s.under(t)
			b := s.box(v, "filesystems")
			var steps []step
			for _, d := range devices {
				name := d.fs.name
				// What a container before this one has written.
				if err := copySparse(filepath.Join(s.images, name), d.image); err != nil {
					t.Fatal(err)
				}
				b.node("blk/"+name, 7, d.number)
				b.image("img/"+b.c.ID+"-"+name, name)
				steps = append(steps, useFilesystem(d.fs, "/blk/"+name, "/mnt/device-"+name)...)
				steps = append(steps, useFilesystem(d.fs, "/img/"+b.c.ID+"-"+name, "/mnt/image-"+name)...)
			}
			before := 0
			if v.engine != "run" {
				before = s.requests("")
			}
			judge(t, steps, b.run(steps))
			noLoops(t, b.c.ID)
			if v.engine != "run" {
				// umount(2), in particular, is none of its business.
				if got, want := s.requests("")-before, notified(steps); got != want {
					t.Errorf("the agent had %d calls, there were %d of mount(2)", got, want)
				}
			}
			for _, d := range devices {
				if !d.fs.readOnly {
					s.checkOwners(d.fs.name, d.image)
					s.checkOwners(d.fs.name, b.path("img/"+b.c.ID+"-"+d.fs.name))
				}
			}
		})
	}
}

// checkOwners looks natively at what a container has made on an image.
func (s *mountStage) checkOwners(fstype, image string) {
	s.t.Helper()
	at := filepath.Join(s.dir, "look")
	if err := os.MkdirAll(at, 0o755); err != nil {
		s.t.Fatal(err)
	}
	// A copy: the filesystem may still be going.
	copied := filepath.Join(s.dir, "copy")
	if err := copySparse(image, copied); err != nil {
		s.t.Fatal(err)
	}
	if fstype == "btrfs" { // which knows its filesystems by their ids
		if _, err := output(exec.Command("btrfstune", "-f", "-m", copied)); err != nil {
			s.t.Fatal(err)
		}
	}
	options := "loop"
	if fstype == "xfs" {
		options += ",nouuid"
	}
	if _, err := output(exec.Command("mount", "-t", fstype, "-o", options, copied, at)); err != nil {
		s.t.Fatal(err)
	}
	defer func() {
		if _, err := output(exec.Command("umount", at)); err != nil {
			s.t.Error(err)
		}
	}()
	for name, want := range map[string]uint32{"made": 0, "dir/theirs": 1000, "file": 0} {
		var st syscall.Stat_t
		if err := syscall.Lstat(filepath.Join(at, name), &st); err != nil {
			s.t.Errorf("%s: %s: %v", image, name, err)
			continue
		}
		if st.Uid != want || st.Gid != want {
			s.t.Errorf("%s: %s belongs to %d:%d, want %d", image, name, st.Uid, st.Gid, want)
		}
	}
}
