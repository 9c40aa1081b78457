package integration

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMountKernels: what a user namespace may mount by itself goes on as
// without callgate; binds, moves and changes of propagation without anybody
// being asked.
func TestMountKernels(t *testing.T) {
	s := newMountStage(t)
	s.startAgent(map[string][]string{"kernel": {"type: ext4, source: ['b 7:*']"}})
	silent := []step{
		section("never notified"),
		{"mkdir /at/a", ""},
		{"write /at/a/file text", ""},
		{"repeat 50 " + mountCall("-", "/", "-", unix.MS_PRIVATE|unix.MS_REC, "-"), ""},
		{mountCall("/at", "/mnt", "-", unix.MS_BIND, "-"), ""},
		{"read /mnt/a/file", "text"},
		{"repeat 50 " + mountCall("-", "/mnt", "-", unix.MS_PRIVATE, "-"), ""},
		{mountCall("-", "/mnt", "-", unix.MS_SHARED, "-"), ""},
		{mountCall("-", "/mnt", "-", unix.MS_SLAVE, "-"), ""},
		{mountCall("-", "/mnt", "-", unix.MS_UNBINDABLE, "-"), ""},
		{mountCall("/mnt", "/img", "-", unix.MS_BIND, "-"), "EINVAL"},
		{mountCall("-", "/mnt", "-", unix.MS_PRIVATE, "-"), ""},
		{remountCall("/mnt", unix.MS_BIND|unix.MS_RDONLY|lockedFlags), ""},
		{"write /mnt/a/file x", "EROFS"},
		{mountCall("/mnt", "/img", "-", unix.MS_MOVE, "-"), ""},
		{"read /img/a/file", "text"},
		{"info /mnt", "ENOENT"},
		{"umount /img", ""},
		{mountCall("/proc", "/mnt", "-", unix.MS_BIND|unix.MS_REC, "-"), ""},
		{"read /mnt/self/comm", "mountprobe\n"},
		{"umount /mnt 2", ""},
		{"umount /mnt", "EINVAL"},
		{"newns " + mountCall("/at", "/mnt", "-", unix.MS_BIND, "-"), ""},
		{"nocap " + mountCall("/at", "/mnt", "-", unix.MS_BIND, "-"), "EPERM"},
		{mountCall("/missing", "/mnt", "-", unix.MS_BIND, "-"), "ENOENT"},
		{"unchanged", "*"},
	}
	own := []step{
		section("the kernel's own"),
		{"mkdir /at/tmpfs", ""},
		{"mkdir /at/merged", ""},
		{mountCall("tmpfs", "/at/tmpfs", "tmpfs", lockedFlags, "size=1m,mode=755"), ""},
		{"info /at/tmpfs", `~^tmpfs tmpfs rw,nosuid,nodev,relatime rw,size=1024k`},
		{"mkdir /at/tmpfs/lower", ""}, {"mkdir /at/tmpfs/upper", ""}, {"mkdir /at/tmpfs/work", ""},
		{"write /at/tmpfs/lower/file below", ""},
		{mountCall("overlay", "/at/merged", "overlay", 0,
			"userxattr,lowerdir=/at/tmpfs/lower,upperdir=/at/tmpfs/upper,workdir=/at/tmpfs/work"), ""},
		{"read /at/merged/file", "below"},
		{"write /at/merged/file above", ""},
		{"read /at/tmpfs/upper/file", "above"},
		{remountCall("/at/tmpfs", unix.MS_RDONLY|lockedFlags), ""},
		{"write /at/tmpfs/lower/file x", "EROFS"},
		{"umount /at/merged", ""},
		{"umount /at/tmpfs", ""},
		{mountCall("proc", "/mnt", "proc", lockedFlags|unix.MS_NOEXEC, "-"), ""},
		{"read /mnt/self/comm", "mountprobe\n"},
		{"umount /mnt", ""},
		{mountCall("sysfs", "/mnt", "sysfs", unix.MS_RDONLY|lockedFlags|unix.MS_NOEXEC, "-"), ""},
		{"open /mnt/kernel", ""},
		{"umount /mnt", ""},
		{mountCall("tmpfs", "/mnt", "tmpfs", 0, "bogus=1"), "EINVAL"},
		{"nested " + mountCall("tmpfs", "/mnt", "tmpfs", 0, "-"), ""},
		{"nocap " + mountCall("tmpfs", "/mnt", "tmpfs", 0, "-"), "EPERM"},
	}
	for _, v := range mountSettings {
		t.Run(v.String(), func(t *testing.T) {
			s := s.under(t)
			before := 0
			if v.engine != "run" {
				before = s.requests("")
			}
			judge(t, silent, s.box(v, "kernel").run(silent))
			if v.engine != "run" && s.requests("") != before {
				t.Errorf("the agent was asked %d times", s.requests("")-before)
			}
			if v.userNamespace {
				judge(t, own, s.box(v, "kernel").run(own))
			}
		})
	}
	if n := s.requests("") - s.requests(`outcome="continued"`); n != 0 {
		t.Errorf("%d calls were not left to the kernel", n)
	}
}

// mountsOf is a process's mountinfo.
func mountsOf(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestMountKilled: with the container its mounts end and its loop devices are
// released; the agent sees nothing of them at any time.
func TestMountKilled(t *testing.T) {
	s := newMountStage(t)
	l := s.attach("ext4", "killed")
	s.startAgent(map[string][]string{"killed": {"type: ext4, source: [" + l.rule() + ", '/img/*'], loop: true",
		"type: xfs, source: ['/img/*'], loop: true"}})
	before := mountsOf(t, s.agent.PID())
	for _, v := range mountSettings {
		if v.engine == "run" {
			continue
		}
		t.Run(v.String(), func(t *testing.T) {
			s := s.under(t)
			holds := s.holds()
			b := s.box(v, "killed")
			b.node("blk/ext4", 7, l.number)
			var steps []step
			mount := func(source, fstype string) {
				target := fmt.Sprintf("/at/%d", len(steps))
				steps = append(steps, step{"mkdir " + target, ""}, step{mountCall(source, target, fstype, 0, "-"), ""},
					step{"write " + target + "/made text", ""})
			}
			mount("/blk/ext4", "ext4")
			for i, fstype := range []string{"ext4", "ext4", "xfs"} {
				name := fmt.Sprintf("img/%s-%d", b.c.ID, i)
				b.image(name, fstype)
				mount("/"+name, fstype)
			}
			r := b.pause()
			judge(t, steps, b.exec(r, steps))
			if found := loopsOf(b.c.ID); len(found) != 3 {
				t.Errorf("loop devices: %q, want three", found)
			}
			if now := mountsOf(t, s.agent.PID()); now != before {
				t.Errorf("the agent's mounts:\n%s\nbefore:\n%s", now, before)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			if err := r.Kill(ctx, b.c.ID); err != nil {
				t.Fatal(err)
			}
			noLoops(t, b.c.ID)
			// Nobody uses the device any more: it may be opened exclusively.
			eventually(t, func() bool {
				fd, err := unix.Open(fmt.Sprintf("/dev/loop%d", l.number), unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
				if err == nil {
					_ = unix.Close(fd)
				}
				return err == nil
			})
			if now := mountsOf(t, s.agent.PID()); now != before {
				t.Errorf("the agent's mounts afterwards:\n%s\nbefore:\n%s", now, before)
			}
			eventually(t, func() bool { return !s.knows(b.c.ID) })
			s.agent.AwaitNoMoreThan(t, holds)
		})
	}
}

// TestMountBusy: a device that another container has mounted is busy, and free
// when that one has ended.
func TestMountBusy(t *testing.T) {
	s := newMountStage(t)
	l := s.attach("ext4", "busy")
	s.startAgent(map[string][]string{"busy": {"type: ext4, source: [" + l.rule() + "]"}})
	boxes := make([]*box, 2)
	mount := mountCall("/blk/ext4", "/mnt", "ext4", 0, "-")
	for i, v := range mountSettings[:2] {
		boxes[i] = s.box(v, "busy")
		boxes[i].node("blk/ext4", 7, l.number)
	}
	first, second := boxes[0].pause(), boxes[1].pause()
	steps := []step{{mount, ""}, {"write /mnt/made first", ""}, {mountCall("/blk/ext4", "/at", "ext4", 0, "-"), "EBUSY"}}
	judge(t, steps, boxes[0].exec(first, steps))
	steps = []step{{"mark", ""}, {mount, "EBUSY"}, {"unchanged", ""}}
	judge(t, steps, boxes[1].exec(second, steps))
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := first.Kill(ctx, boxes[0].c.ID); err != nil {
		t.Fatal(err)
	}
	steps = []step{{mount, ""}, {"read /mnt/made", "first"}, {"umount /mnt", ""}}
	eventually(t, func() bool {
		results := boxes[1].exec(second, steps[:1])
		return len(results) == 1 && outcome(results[0]) == ""
	})
	judge(t, steps[1:], boxes[1].exec(second, steps[1:]))
	if strings.Contains(s.agent.Log(), "level=error") {
		t.Errorf("an error in the agent's log:\n%s", s.agent.Log())
	}
}
