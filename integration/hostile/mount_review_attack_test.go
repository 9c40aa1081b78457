package hostile

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/integration/internal/engine"
	"github.com/callgate/callgate/integration/internal/need"
)

// The holes that a security review of mount found, one test each. The attacks
// are shell scripts in a container with the program of reviewProgram; the rule
// for images is that of docs/images.md.
const reviewConfig = `
allowUids: [0]
profiles:
  default:
    mknod:
      allow: ["c 10:229", "b 7:*"]
    mount:
      maxLoops: 2
      allow:
        - {type: ext4, source: ["/build/*.img"], loop: true, options: [noatime]}
        - {type: ext2, source: ["b 7:*"], shift: false}
        - {type: ext3, source: ["/build/*.img", "b 7:*"], via: fuse, program: fuse2fs -o fakeroot}
        - {type: xfs, source: ["/build/*.img"]}
`

// reviewProgram makes single calls and says how they ended.
const reviewProgram = `#define main other_main
#include "attack.c"
#undef main

/* review mount SOURCE TARGET TYPE FLAGS [DATA]: what mount(2) said */
int main(int argc, char **argv) {
	if (argc > 5 && !strcmp(argv[1], "mount")) {
		int r = mount(argv[2], argv[3], argv[4], strtoul(argv[5], 0, 0), argc > 6 ? argv[6] : 0);
		printf("> %s %s: %s\n", argv[4], argv[2], r ? strerrorname_np(errno) : "mounted");
		return 0;
	}
	/* review fuse MINOR: a filesystem on /mnt with a node blk of b 7:MINOR */
	if (argc > 2 && !strcmp(argv[1], "fuse")) { int m = atoi(argv[2]); fuseRdev = (m & 0xff) | 7 << 8 | (m & ~0xff) << 12; }
	/* review mute: one that answers no lookup */
	else if (argc > 1 && !strcmp(argv[1], "mute")) fuseMute = 2;
	else return 2;
	if (fuseStart()) return 3;
	fflush(stdout);
	if (fuseRdev) { /* once more, without nodev */
		char o[100]; umount2("/mnt", MNT_DETACH); close(fuseFD); fuseFD = open("/tmp/fuse", O_RDWR);
		sprintf(o, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fuseFD);
		if (mount("fuse", "/mnt", "fuse", 0, o)) return 3;
		fuseServe();
	}
	for (;;) pause();
}
`

var review = sync.OnceValues(buildReview)

func buildReview() (string, error) {
	if _, err := shared.attack(); err != nil { // writes attack.c
		return "", err
	}
	source, out := filepath.Join(shared.dir, "review.c"), filepath.Join(shared.dir, "review")
	if err := os.WriteFile(source, []byte(reviewProgram), 0o600); err != nil {
		return "", err
	}
	text, err := exec.Command("gcc", "-std=gnu11", "-static", "-O1", "-pthread", "-o", out, source).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("compile review.c: %w\n%s", err, text)
	}
	return out, nil
}

// reviewStage is a stage whose containers run scripts.
type reviewStage struct{ *stage }

func newReviewStage(t *testing.T) reviewStage {
	t.Helper()
	need.Root(t)
	need.Program(t, "mke2fs", "mksquashfs", "tune2fs", "debugfs", "fuse2fs")
	return reviewStage{newStageOf(t, reviewConfig)}
}

// container has copies of images in /build, by their names there. A script that
// fails somewhere fails the test.
func (r reviewStage) container(script string, images map[string]string) engine.Container {
	r.t.Helper()
	program, err := review()
	if err != nil {
		r.t.Fatal(err)
	}
	c := r.stage.container()
	c.Args = []string{"/bin/sh", "-ec", "alias mount='busybox mount'; alias umount='busybox umount'; mkdir -p /d /e /over /t\n" + script + "\necho DONE good"}
	binary, build := filepath.Join(c.Rootfs, "bin/review"), filepath.Join(c.Rootfs, "build")
	err = errors.Join(copyFile(program, binary), os.Chmod(binary, 0o755), os.Mkdir(build, 0o755), os.Chown(build, engine.HostID, engine.HostID))
	for name, image := range images {
		path := filepath.Join(build, name)
		err = errors.Join(err, copyFile(image, path), os.Chown(path, engine.HostID, engine.HostID))
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// verdicts asserts how the calls of a script ended, by a regular expression
// for each.
func (r reviewStage) verdicts(out string, want ...string) {
	r.t.Helper()
	var got []string
	for line := range strings.Lines(out) {
		if verdict, ok := strings.CutPrefix(line, "> "); ok {
			got = append(got, strings.TrimSpace(verdict))
		}
	}
	bad := len(got) != len(want)
	for i := 0; !bad && i < len(got); i++ {
		bad = !regexp.MustCompile("^(" + want[i] + ")$").MatchString(got[i])
	}
	if bad {
		r.t.Errorf("the calls ended as\n%s\nnot as\n%s\nof\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"), out)
	}
}

// reasons asserts how many calls were denied for a reason: EPERM has many.
func (r reviewStage) reasons(want int, reason string) {
	r.t.Helper()
	if n := strings.Count(r.agent.Log(), reason); n != want {
		r.t.Errorf("%d calls, not %d, were denied as %q", n, want, reason)
	}
}

// attachHost attaches an image of the host's to a loop device, any if number is
// negative, until the test has ended.
func attachHost(t *testing.T, image string, number int) (int, error) {
	t.Helper()
	file, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		need.Missing(t, "needs loop devices: "+err.Error())
	}
	defer control.Close()
	for range 64 {
		at := number
		if number < 0 {
			if at, err = unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE); err != nil {
				return 0, err
			}
		}
		device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", at), os.O_RDWR, 0)
		if err != nil {
			return 0, err
		}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &unix.LoopConfig{Fd: uint32(file.Fd())})
		if err == nil {
			t.Cleanup(func() {
				if err := unix.IoctlSetInt(int(device.Fd()), unix.LOOP_CLR_FD, 0); err != nil {
					t.Errorf("detach loop%d: %v", at, err)
				}
				device.Close()
			})
			return at, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) || number >= 0 {
			return 0, err
		}
	}
	return 0, errors.New("no free loop device")
}

// hostDisk attaches a copy of an image to any loop device.
func (r reviewStage) hostDisk(image string) (number int, path string) {
	r.t.Helper()
	path = filepath.Join(r.dir, fmt.Sprintf("host-%d.img", containers.Add(1)))
	err := copyFile(image, path)
	if err == nil {
		number, err = attachHost(r.t, path, -1)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return number, path
}

// nodesWith are mounts of a node under all rules that it could match, with
// what has to become of them.
func nodesWith(verdict string, names ...string) (script string, want []string) {
	for _, name := range names {
		for _, fstype := range []string{"ext4", "ext2", "ext3", "xfs"} { // images, numbers, via: fuse, globs
			script += fmt.Sprintf("review mount /build/%s /t %s 1\nif umount /t 2>/dev/null; then echo it was mounted; fi\n", name, fstype)
			want = append(want, fmt.Sprintf("%s /build/%s: %s", fstype, name, verdict))
		}
	}
	return script, want
}

// TestReviewNodesOnFUSE: a program of the container's says of a file that it is
// the host's disk, below an overlay, too, which nodev does not reach. The
// kernel would open neither, and the agent does not take them for the disk.
func TestReviewNodesOnFUSE(t *testing.T) {
	r := newReviewStage(t)
	files, err := images()
	if err != nil {
		t.Fatal(err)
	}
	disk, _ := r.hostDisk(files.secretExt2)
	calls, want := nodesWith("EACCES", "fuse.img", "over.img")
	c := r.container(fmt.Sprintf(`
review fuse %d &
until [ -b /mnt/blk ]; do sleep 0.02; done
until grep ' /mnt ' /proc/self/mountinfo | grep -vq nodev; do sleep 0.02; done
mount -t overlay -o lowerdir=/mnt:/e,userxattr none /over
[ -b /over/blk ]
: > /build/fuse.img; mount --bind /mnt/blk /build/fuse.img
: > /build/over.img; mount --bind /over/blk /build/over.img
! grep nodev /proc/self/mountinfo | grep /build/
%s`, disk, calls), nil)
	r.verdicts(r.runContainer(c), want...)
}

// TestReviewNodesOnImages: an image of the container's has a node of the host's
// disk on it. The mount has nodev, an overlay on it has not.
func TestReviewNodesOnImages(t *testing.T) {
	r := newReviewStage(t)
	files, err := images()
	if err != nil {
		t.Fatal(err)
	}
	disk, _ := r.hostDisk(files.secretExt2)
	image := filepath.Join(r.dir, "nodes.img")
	if err := errors.Join(copyFile(files.ext4, image), (&mountStage{disks: disks{secret: disk}}).writeNode(image)); err != nil {
		t.Fatal(err)
	}
	calls, want := nodesWith("EACCES", "inside.img", "over.img")
	c := r.container(fmt.Sprintf(`
review mount /build/disk.img /d ext4 0
mount -t overlay -o lowerdir=/d:/e,userxattr none /over
[ -b /over/blk ]
: > /build/inside.img; mount --bind /d/blk /build/inside.img
: > /build/over.img; mount --bind /over/blk /build/over.img
! grep nodev /proc/self/mountinfo | grep /build/over
%s`, calls), map[string]string{"disk.img": image})
	r.verdicts(r.runContainer(c), append([]string{"ext4 /build/disk.img: mounted"}, want...)...)
}

// TestReviewNodesOfTheHost: what the two tests before have refused, the same
// rules allow where the kernel would open the node; but a glob for images is
// none for devices, wherever they come from.
func TestReviewNodesOfTheHost(t *testing.T) {
	r := newReviewStage(t)
	files, err := images()
	if err != nil {
		t.Fatal(err)
	}
	disk, _ := r.hostDisk(files.secretExt2)
	c := r.container(`
review mount /build/host.img /t ext4 1
review mount /build/host.img /t ext2 1
[ "$(cat /t/marker)" = secret ]`, nil)
	node := filepath.Join(c.Rootfs, "build/host.img")
	if err := errors.Join(unix.Mknod(node, unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(disk)))), os.Chown(node, engine.HostID, engine.HostID)); err != nil {
		t.Fatal(err)
	}
	r.verdicts(r.runContainer(c), "ext4 /build/host.img: EPERM", "ext2 /build/host.img: mounted")
	awaitNoHolder(t, disk)
}

// awaitNoHolder waits until the host's disk is nobody's: the kernel takes a
// container's mounts apart behind its last process.
func awaitNoHolder(t *testing.T, disk int) {
	t.Helper()
	path := fmt.Sprintf("/dev/loop%d", disk)
	for deadline := time.Now().Add(5 * time.Second); ; sleep() {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
		if err == nil {
			_ = unix.Close(fd)
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("open %s: %v", path, err)
			return
		}
	}
}

// loopOf finds the loop device of a mount in lines of mountinfo.
var loopOf = regexp.MustCompile(`(?m)^\d+ \d+ 7:(\d+) / /t `)

// TestReviewRemount: a device number that the container once had a mount of is
// the host's now, and so is its superblock, although the host has put a mount
// of it into the container.
func TestReviewRemount(t *testing.T) {
	r := newReviewStage(t)
	files, err := images()
	if err != nil {
		t.Fatal(err)
	}
	// Others on the host may be quicker with the number: up to three times.
	c := r.container(`
mkdir /hot
for i in 1 2 3; do
	review mount /build/disk.img /t ext4 0
	grep ' /t ' /proc/self/mountinfo
	umount /t
	echo READY$i
	until [ -e /go$i ]; do sleep 0.02; done
	if grep -q ' /hot ' /proc/self/mountinfo; then break; fi
done
grep ' /hot ' /proc/self/mountinfo
review mount none /hot none 0x421       # MS_REMOUNT | MS_RDONLY | MS_NOATIME
review mount none /hot none 0x20        # MS_REMOUNT
echo NOW $(grep ' /hot ' /proc/self/mountinfo)
`, map[string]string{"disk.img": files.ext4})
	out := r.start(c)
	host := filepath.Join(r.dir, "hot.img")
	if err := copyFile(files.secretExt2, host); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	pid, err := r.runtime.InitPID(ctx, c.ID)
	if err != nil {
		t.Fatal(err)
	}
	inserted := false
	for i := 1; i <= 3 && !inserted; i++ {
		text := await(t, out, fmt.Sprintf("READY%d\n", i))
		loops := loopOf.FindAllStringSubmatch(text, -1)
		if len(loops) != i {
			t.Fatalf("the image was not mounted:\n%s", text)
		}
		number, _ := strconv.Atoi(loops[i-1][1])
		_, err := attachHost(t, host, number)
		if err == nil {
			inserted = true
			err = insertMount(pid, fmt.Sprintf("/dev/loop%d", number), "/hot")
		} else if errors.Is(err, unix.EBUSY) {
			err = nil
		}
		if err = errors.Join(err, os.WriteFile(filepath.Join(c.Rootfs, fmt.Sprintf("go%d", i)), nil, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if !inserted {
		need.Missing(t, "others on the host always took the loop device")
	}
	text := await(t, out, "NOW ")
	_, remounts, _ := strings.Cut(text, " /hot ")
	r.verdicts(remounts, "none none: EPERM", "none none: EPERM")
	if now, _ := after(text, "NOW "); !regexp.MustCompile(` - ext2 \S+ ro\b`).MatchString(now) {
		t.Errorf("the host's filesystem is no longer read-only: %q", now)
	}
	_ = r.runtime.Kill(ctx, c.ID) // before the host detaches the device
}

// insertMount puts a read-only mount of the host's into a process's mount
// namespace.
func insertMount(pid int, device, target string) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is in the container now
		done <- func() error {
			ns, err := unix.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer func() { _ = unix.Close(ns) }()
			fs, err := unix.Fsopen("ext2", unix.FSOPEN_CLOEXEC)
			if err != nil {
				return err
			}
			defer func() { _ = unix.Close(fs) }()
			if err := errors.Join(unix.FsconfigSetString(fs, "source", device), unix.FsconfigSetFlag(fs, "ro"), unix.FsconfigCreate(fs)); err != nil {
				return err
			}
			tree, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer func() { _ = unix.Close(tree) }()
			if err := errors.Join(unix.Unshare(unix.CLONE_FS), unix.Setns(ns, unix.CLONE_NEWNS)); err != nil {
				return err
			}
			return unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
		}()
	}()
	return <-done
}

// TestReviewLoopOfAnother: the loop device of one container's image is not a
// source for another, whatever numbers policy has.
func TestReviewLoopOfAnother(t *testing.T) {
	r := newReviewStage(t)
	files, err := images()
	if err != nil {
		t.Fatal(err)
	}
	victim := r.container("review mount /build/disk.img /t ext4 1; grep ' /t ' /proc/self/mountinfo; echo READY; sleep 60",
		map[string]string{"disk.img": files.ext4})
	text := await(t, r.start(victim), "READY\n")
	loop := loopOf.FindStringSubmatch(text)
	if loop == nil {
		t.Fatalf("the image was not mounted:\n%s", text)
	}
	calls, want := nodesWith("EPERM", "n.img")
	c := r.container("mknod /build/n.img b 7 "+loop[1]+"\n"+calls, nil)
	r.verdicts(r.runContainer(c), want...)
	r.reasons(len(want), "loop device is the agent's")
}

// TestReviewTargetOnFUSE: the directory that is the target is locked for as
// long as a program of the container's likes. The agent does not wait for it.
func TestReviewTargetOnFUSE(t *testing.T) {
	r := newReviewStage(t)
	files, err := images()
	if err != nil {
		t.Fatal(err)
	}
	c := r.container(`
review mute &
until grep -q ' /mnt ' /proc/self/mountinfo; do sleep 0.02; done
mount -t overlay -o lowerdir=/mnt:/e,userxattr none /over
mkdir /mnt/x &
sleep 0.3
review mount /build/a.img /over ext4 0
review mount /build/b.img /mnt ext4 0
echo END
sleep 60`, map[string]string{"a.img": files.ext4, "b.img": files.ext4})
	out := r.start(c)
	text := ""
	for deadline := time.Now().Add(6 * time.Second); !strings.Contains(text, "END\n"); sleep() {
		if data, _ := os.ReadFile(out.Name()); data != nil {
			text = string(data)
		}
		if why, skip := after(text, "SKIP "); skip {
			need.Missing(t, why)
		}
		if time.Now().After(deadline) {
			t.Errorf("a call does not end:\n%s", text)
			break
		}
	}
	// EACCES: without allow_other for the host the agent may not even ask.
	r.verdicts(text, "ext4 /build/a.img: EPERM", "ext4 /build/b.img: (EPERM|EACCES)")
	for deadline := time.Now().Add(time.Second); ; sleep() {
		stuck := uninterruptible(t, r.agent.PID())
		if len(stuck) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("threads of the agent cannot be killed:\n%s", strings.Join(stuck, "\n"))
			break
		}
	}
}

// uninterruptible lists a process's threads in state D.
func uninterruptible(t *testing.T, pid int) (stuck []string) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("no threads of %d: %v", pid, err)
	}
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		if end := bytes.LastIndexByte(text, ')'); end >= 0 && bytes.HasPrefix(text[end+1:], []byte(" D")) {
			stuck = append(stuck, string(text))
		}
	}
	return stuck
}

// TestReviewMaxLoops: an image that is renamed or removed still has its loop
// device.
func TestReviewMaxLoops(t *testing.T) {
	r := newReviewStage(t)
	files, err := images()
	if err != nil {
		t.Fatal(err)
	}
	c := r.container(`
mkdir /1 /2 /3
cd /build
review mount /build/a.img /1 ext4 0
mv a.img moved.img
review mount /build/moved.img /2 ext4 0
ln moved.img linked.img; rm moved.img
review mount /build/linked.img /2 ext4 1
review mount /build/b.img /2 ext4 0
rm b.img
review mount /build/c.img /3 ext4 0
umount /2
review mount /build/c.img /3 ext4 0
grep -c ' - ext4 /dev/loop' /proc/self/mountinfo`, map[string]string{"a.img": files.ext4, "b.img": files.ext4, "c.img": files.ext4})
	r.verdicts(r.runContainer(c), "ext4 /build/a.img: mounted", "ext4 /build/moved.img: EBUSY", "ext4 /build/linked.img: EBUSY",
		"ext4 /build/b.img: mounted", "ext4 /build/c.img: EPERM", "ext4 /build/c.img: mounted")
	r.reasons(1, "(maxLoops)")
}

// TestReviewJournal: an image names another device of the host's as its
// journal, which the kernel would write to.
func TestReviewJournal(t *testing.T) {
	r := newReviewStage(t)
	command := func(args ...string) {
		t.Helper()
		if text, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", args[0], err, text)
		}
	}
	made, image := filepath.Join(r.dir, "journal.img"), filepath.Join(r.dir, "external.img")
	command("mke2fs", "-q", "-F", "-O", "journal_dev", "-b", "1024", made, "4M")
	journal, path := r.hostDisk(made)
	command("mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-O", "^has_journal", image, "8M")
	command("tune2fs", "-J", fmt.Sprintf("device=/dev/loop%d", journal), image)
	hash := func() (sum [sha256.Size]byte) {
		t.Helper()
		command("sync", path)
		text, err := os.ReadFile(fmt.Sprintf("/dev/loop%d", journal))
		if err != nil || len(text) == 0 {
			t.Fatalf("%d bytes, %v", len(text), err)
		}
		return sha256.Sum256(text)
	}
	before := hash()
	c := r.container(`
review mount /build/disk.img /t ext4 1
if umount /t 2>/dev/null; then echo it was mounted; fi
review mount /build/disk.img /t ext4 0
if grep ' /t ' /proc/self/mountinfo; then echo x > /t/x; busybox sync; umount /t; fi`, map[string]string{"disk.img": image})
	r.verdicts(r.runContainer(c), "ext4 /build/disk.img: EPERM", "ext4 /build/disk.img: EPERM")
	r.reasons(2, "journal on another device")
	if hash() != before {
		t.Error("the container has changed the other device")
	}
}

// TestReviewPolicy: what no policy may say, for the kernel would not keep it or
// it would hand over what is the agent's.
func TestReviewPolicy(t *testing.T) {
	callgate, err := shared.callgate()
	if err != nil {
		t.Fatal(err)
	}
	check := func(rest string) (string, error) {
		path := filepath.Join(t.TempDir(), "config.yaml")
		text := fmt.Sprintf("profiles:\n  default:\n    mount:\n      allow:\n        - {type: ext4, source: [\"/build/*.img\"], loop: true, %s}\n", rest)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(callgate, "check", path).CombinedOutput()
		return string(out), err
	}
	if out, err := check(`force: [nosuid, nodev, noexec], options: [noatime, "data=*"]`); err != nil {
		t.Errorf("a good policy: %v\n%s", err, out)
	}
	for _, bad := range []struct{ rest, says string }{
		{`force: [nosymfollow]`, "nosymfollow"},
		{`options: ["journal_path=*"]`, "journal_path"}, {`options: ["journal_dev=*"]`, "journal_dev"},
		{`options: ["device=*"]`, "device"}, {`options: ["device=/dev/loop0"]`, "device"},
		{`options: ["source=*"]`, "source"}, {`options: ["fd=*"]`, "fd"},
		{`options: [journal_path]`, "journal_path"}, {`options: [device]`, "device"},
		{`options: [source]`, "source"}, {`options: [fd]`, "fd"},
	} {
		out, err := check(bad.rest)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || !strings.Contains(out, bad.says) || strings.Contains(out, "panic") {
			t.Errorf("%s: %v, %q", bad.rest, err, out)
		}
	}
}
