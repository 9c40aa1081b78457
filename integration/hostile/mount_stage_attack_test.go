package hostile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/integration/internal/engine"
	"github.com/callgate/callgate/integration/internal/need"
)

// mountConfig has, for the numbers of two loop devices, what the attackers may
// mount: one device by its number, images below /img, and what is called
// /vg/… .
const mountConfig = `
allowUids: [0]
profiles:
  default:
    mknod:
      allow: ["c 1:3", "c 1:5", "c 10:229", "c 0:0"]
    mount:
      maxLoops: %d
      allow:
        - {type: ext4, source: ["b 7:%d"], options: [noatime, "data=*"]}
        - {type: ext4, loop: true, source: ["/img/*"], options: [noatime, "data=*"]}
        - {type: squashfs, loop: true, source: ["/img/*"]}
        - {type: ext2, source: ["/vg/*"], shift: false}
`

const maxLoops = 8

// mountStage is a stage with disks.
type mountStage struct {
	*stage
	disks disks
}

// disks are loop devices that the host has attached: one that policy has by
// its number, one by its name, and two of which it knows nothing.
type disks struct {
	allowed, named, secret, secret2 int
}

// images are the filesystems that are copied for each stage.
var images = sync.OnceValues(makeImages)

type imageFiles struct{ ext4, squash, badExt4, badSquash, ext2, secretExt2 string }

func newMountStage(t *testing.T) *mountStage {
	t.Helper()
	need.Root(t)
	need.Program(t, "mke2fs", "mksquashfs", "tune2fs")
	files, err := images()
	if err != nil {
		t.Fatal(err)
	}
	m := &mountStage{}
	for _, disk := range []struct {
		number *int
		image  string
	}{
		{&m.disks.secret, files.secretExt2}, {&m.disks.secret2, files.badExt4},
		{&m.disks.allowed, files.ext4}, {&m.disks.named, files.ext2},
	} {
		*disk.number = m.attachDisk(t, disk.image)
	}
	m.stage = newStageOf(t, m.config())
	return m
}

func (m *mountStage) config() string { return fmt.Sprintf(mountConfig, maxLoops, m.disks.allowed) }

// attachDisk attaches a copy of an image until the test has ended.
func (m *mountStage) attachDisk(t *testing.T, image string) int {
	t.Helper()
	path := filepath.Join(shared.dir, fmt.Sprintf("disk-%d.img", containers.Add(1)))
	if err := errors.Join(copyFile(image, path), m.writeNode(path)); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		need.Missing(t, "needs loop devices: "+err.Error())
	}
	defer control.Close()
	for range 64 {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Fatal(err)
		}
		device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", number), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		config := unix.LoopConfig{Fd: uint32(file.Fd())}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if errors.Is(err, unix.EBUSY) {
			device.Close()
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.IoctlSetInt(int(device.Fd()), unix.LOOP_CLR_FD, 0); err != nil {
				t.Errorf("detach loop%d: %v", number, err)
			}
			device.Close()
			os.Remove(path)
		})
		return number
	}
	t.Fatal("no free loop device")
	return 0
}

// makeImages makes the images. What may be mounted says so in its file
// marker, and has on it what an attacker would put there.
func makeImages() (imageFiles, error) {
	at := func(name string) string { return filepath.Join(shared.dir, name) }
	files := imageFiles{at("good.ext4"), at("good.sqfs"), at("bad.ext4"), at("bad.sqfs"), at("good.ext2"), at("secret.ext2")}
	evil, plain := at("evil"), at("plain")
	if err := makeEvil(evil); err != nil {
		return files, err
	}
	if err := errors.Join(os.MkdirAll(plain, 0o755), os.WriteFile(filepath.Join(plain, "marker"), []byte("secret"), 0o644)); err != nil {
		return files, err
	}
	for _, args := range [][]string{
		{"mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-d", evil, files.ext4, "8M"},
		{"mke2fs", "-q", "-F", "-t", "ext2", "-b", "1024", "-d", evil, files.ext2, "8M"},
		{"mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-d", plain, files.badExt4, "8M"},
		{"mke2fs", "-q", "-F", "-t", "ext2", "-b", "1024", "-d", plain, files.secretExt2, "2M"},
		{"mksquashfs", filepath.Join(evil, "marker"), files.squash, "-no-progress", "-quiet", "-noappend"},
		{"mksquashfs", plain, files.badSquash, "-no-progress", "-quiet", "-noappend"},
	} {
		if text, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return files, fmt.Errorf("%s: %w\n%s", args[0], err, text)
		}
	}
	return files, nil
}

// makeEvil fills a directory for an image.
func makeEvil(dir string) error {
	attack, err := shared.attack()
	if err != nil {
		return err
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	err = errors.Join(
		os.MkdirAll(at("sub"), 0o755),
		os.WriteFile(at("marker"), []byte("allowed"), 0o644),
		os.WriteFile(at("sub/deep"), []byte("deep"), 0o644),
		unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
		copyFile(attack, at("suid")), os.Chmod(at("suid"), 0o6755),
		copyFile(attack, at("filecap")), os.Chmod(at("filecap"), 0o755),
		// struct vfs_cap_data of linux/capability.h: version 2, effective, all.
		unix.Setxattr(at("filecap"), "security.capability", []byte("\x01\x00\x00\x02\xff\xff\xff\xff\x00\x00\x00\x00\xff\x01\x00\x00\x00\x00\x00\x00"), 0),
		unix.Setxattr(at("marker"), "trusted.evil", []byte("x"), 0),
	)
	if err != nil {
		return err
	}
	return os.Chmod(dir, 0o755)
}

func copyFile(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o600)
}

// container is [stage.container] with images in /img and /out and device nodes
// in /n and /vg that the host has made.
func (m *mountStage) container(args ...string) engine.Container {
	m.t.Helper()
	c := m.stage.container(args...)
	files, err := images()
	if err != nil {
		m.t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(c.Rootfs, name) }
	for _, dir := range []string{"img", "out", "n", "vg"} {
		err = errors.Join(err, os.Mkdir(at(dir), 0o755))
	}
	node := func(name string, minor int) error {
		return unix.Mknod(at(name), unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(minor))))
	}
	err = errors.Join(err,
		os.WriteFile(at("token"), fmt.Appendf(nil, "%s %d %d\n", c.ID, m.disks.allowed, m.disks.secret), 0o644),
		copyFile(files.ext4, at("img/"+c.ID+".ext4")), copyFile(files.squash, at("img/"+c.ID+".sqfs")),
		copyFile(files.badExt4, at("out/"+c.ID+".ext4")),
		copyFile(files.squash, at("img/x.sqfs")), copyFile(files.badSquash, at("out/x.sqfs")),
		node("n/allowed", m.disks.allowed), node("n/secret", m.disks.secret), node("n/secret2", m.disks.secret2), node("vg/ok", m.disks.named),
		m.writeNode(at("img/"+c.ID+".ext4")),
	)
	for _, dir := range []string{"img", "out", "n", "vg", "token"} {
		err = errors.Join(err, filepath.WalkDir(at(dir), func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Lchown(path, engine.HostID, engine.HostID))
		}))
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

// writeNode puts a node of the device that policy does not know onto an image.
func (m *mountStage) writeNode(image string) error {
	text, err := exec.Command("debugfs", "-w", "-R", fmt.Sprintf("mknod blk b 7 %d", m.disks.secret), image).CombinedOutput()
	if err == nil {
		text, err = exec.Command("debugfs", "-w", "-R", "set_inode_field blk mode 060666", image).CombinedOutput()
	}
	if err != nil {
		return fmt.Errorf("debugfs: %w\n%s", err, text)
	}
	return nil
}

func (m *mountStage) run(args ...string) (string, engine.Container) {
	m.t.Helper()
	c := m.container(args...)
	return m.runContainer(c), c
}

// ready starts an attack and waits until it says READY; what it has printed
// is returned.
func (m *mountStage) ready(args ...string) (engine.Container, string) {
	m.t.Helper()
	c := m.container(args...)
	text := await(m.t, m.start(c), "READY\n")
	if strings.Contains(text, "BAD ") {
		m.t.Errorf("%s", text)
	}
	return c, text
}

// attached lists the host's loop devices whose image is named after the
// container.
func attached(t *testing.T, id string) (found []string) {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), id) {
			found = append(found, path+": "+strings.TrimSpace(string(text)))
		}
	}
	return found
}

// awaitDetached waits until no loop device has an image of the container's:
// seconds, as the kernel takes mounts apart behind the last process.
func awaitDetached(t *testing.T, id string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		left := attached(t, id)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("loop devices are left:\n%s", strings.Join(left, "\n"))
			return
		}
	}
}

// watchMounts looks at the host's mounts all the while, for one of a loop
// device.
func watchMounts(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan string)
	go func() {
		looks, found := 0, ""
		for ; ctx.Err() == nil; looks++ {
			text, err := os.ReadFile("/proc/self/mountinfo")
			if err != nil {
				found = err.Error()
			}
			for line := range strings.Lines(string(text)) {
				if fields := strings.Fields(line); strings.HasPrefix(fields[2], "7:") || strings.Contains(line, " - squashfs ") {
					found = line
				}
			}
			time.Sleep(500 * time.Microsecond)
		}
		if found != "" {
			found = fmt.Sprintf("after %d looks: %s", looks, found)
		}
		done <- found
	}()
	return func() {
		t.Helper()
		cancel()
		if found := <-done; found != "" {
			t.Errorf("a mount appeared on the host: %s", found)
		}
	}
}
