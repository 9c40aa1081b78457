package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wanted are flags that the agent has every mount have, so that the native
// mount is the same.
const wanted = unix.MS_NOSUID | unix.MS_NODEV

// ext4 is the type of what is mounted.
var ext4 = &[]byte("ext4\x00")[0]

// measureMount measures mount(2): filesystems that the agent mounts against
// root's own, and what the kernel keeps against a container without callgate.
func measureMount(ctx context.Context, t *table, root string, calls int) (err error) {
	device, err := provide(root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, device.Close()) }()
	st, err := device.Stat()
	if err != nil {
		return err
	}
	dev := st.Sys().(*syscall.Stat_t).Rdev
	if err := unix.Mknod(filepath.Join(root, "source"), unix.S_IFBLK|0o666, int(dev)); err != nil {
		return os.NewSyscallError("mknod", err)
	}
	a, stop, err := serve(fmt.Sprintf(
		"{mknod: {}, mount: {allow: [{type: ext4, source: ['b %d:%d']}, {type: ext4, loop: true}]}}", unix.Major(dev), unix.Minor(dev)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	against := func(base, other placed) func() ([][]time.Duration, error) {
		return func() ([][]time.Duration, error) { return inTurns(ctx, a, base, other) }
	}

	few := max(calls/100, 20)
	native := task{Call: "mount", Source: device.Name(), Path: filepath.Join(root, "mnt"), Flags: wanted, Plain: true, Calls: few}
	emulated := task{Call: "mount", Root: root, Source: "/source", Path: "/mnt", Flags: wanted, Filter: filterCallgate, Plain: true, Calls: few}
	nativeLoop, emulatedLoop := native, emulated
	nativeLoop.Call, nativeLoop.Source = "mount-loop", filepath.Join(root, "images", "image")
	emulatedLoop.Source = "/images/image"

	stock := task{Call: "private", Root: root, Path: "/mnt", Flags: unix.MS_PRIVATE, Tmpfs: "/mnt", Filter: filterStock, Plain: true, Calls: few, Batch: 100}
	all := stock
	all.Path, all.Flags, all.Below = "/", unix.MS_REC|unix.MS_PRIVATE, 20
	compiled := func(t task) task {
		t.Filter = filterCallgate
		return t
	}
	return errors.Join(
		t.pair("ext4 mounted natively as real root", "ext4 mount emulated, ids shifted, flags locked", within(300*time.Microsecond),
			against(placed{native, inMounts}, placed{emulated, inContainer})),
		t.pair("ext4 image mounted natively as real root, loop device included", "ext4 image mount emulated (loop: true)", within(300*time.Microsecond),
			against(placed{nativeLoop, inMounts}, placed{emulatedLoop, inContainer})),
		t.pair("mount(MS_PRIVATE) of one mount, stock profile", "mount(MS_PRIVATE) of one mount, callgate's profile", factor(1.05),
			against(placed{stock, inContainer}, placed{compiled(stock), inContainer})),
		t.pair("mount(MS_REC|MS_PRIVATE) of / with 21 mounts below, stock profile", "mount(MS_REC|MS_PRIVATE) of / with 21 mounts below, callgate's profile", factor(1.05),
			against(placed{all, inContainer}, placed{compiled(all), inContainer})),
	)
}

// provide makes two images in memory, so that no disk is measured, of which one
// is root's in the containers, and attaches the other to the device it returns.
func provide(root string) (*os.File, error) {
	dir := filepath.Join(root, "images")
	if err := unix.Mount("images", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return nil, os.NewSyscallError("mount", err)
	}
	for _, name := range []string{"device", "image"} {
		path := filepath.Join(dir, name)
		// What mkfs leaves for the first mount to do in the background would be
		// somewhere in between.
		cmd := exec.Command("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", path, "16M")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
		}
	}
	if err := os.Chown(filepath.Join(dir, "image"), containerRoot, containerRoot); err != nil {
		return nil, err
	}
	return attachLoop(filepath.Join(dir, "device"))
}

// attachLoop gives an image a loop device, which detaches itself when neither
// the file nor a mount uses it any more, however this program ends.
func attachLoop(image string) (*os.File, error) {
	file, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // the device has it
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = control.Close() }()
	for {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, os.NewSyscallError("ioctl LOOP_CTL_GET_FREE", err)
		}
		device, err := os.OpenFile("/dev/loop"+strconv.Itoa(number), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(file.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if err == nil {
			return device, nil
		}
		_ = device.Close() // somebody else's
		if !errors.Is(err, unix.EBUSY) {
			return nil, os.NewSyscallError("ioctl LOOP_CONFIGURE", err)
		}
	}
}

// mount is mount(2) without options and without the runtime's book-keeping.
func mount(source, target, fstype *byte, flags uintptr) syscall.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_MOUNT, uintptr(unsafe.Pointer(source)), uintptr(unsafe.Pointer(target)),
		uintptr(unsafe.Pointer(fstype)), flags, 0, 0)
	return errno
}

// mountLoop does what mount(8) does with an image.
func mountLoop(image string, target *byte, flags uintptr) error {
	device, err := attachLoop(image)
	if err != nil {
		return err
	}
	source, err := unix.BytePtrFromString(device.Name())
	if err != nil {
		return err
	}
	return errors.Join(verdict(mount(source, target, ext4, flags)), device.Close())
}

// mountTmpfs mounts one, and more below it.
func mountTmpfs(dir string, below int) error {
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	for i := range below {
		path := filepath.Join(dir, strconv.Itoa(i))
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", path, "tmpfs", 0, "mode=755"); err != nil {
			return err
		}
	}
	return nil
}
