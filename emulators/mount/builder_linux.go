package mount

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/mnt"
	"github.com/callgate/callgate/pkg/pidfd"
	"github.com/callgate/callgate/pkg/tracee"
)

// builder makes a filesystem and its first mount.
type builder struct {
	*mounter
	log    *kernelLog
	device *tracee.Handle // borrowed, if it is open already
	errors string         // what an ext filesystem is to do about errors; "": not one
}

// build makes the mount with all flags. The kernel looks the device up by a
// name that nobody but the agent can change.
func (b *builder) build(ctx context.Context, name string, dev uint64) (tracee.Handle, error) {
	// btrfs keeps a list of devices by name for the whole host.
	if b.from.file.FD() >= 0 && (!presentable(name) || b.fstype == "btrfs") {
		name = "/dev/" + b.emulator.bench.shop.kernelName(dev)
		if !presentable(name) {
			name = "/dev/source"
		}
	}
	var tree tracee.Handle
	work := func() (err error) {
		if tree, err = b.create(name); err == nil {
			tree, err = b.finish(tree)
		}
		return err
	}
	if b.from.file.FD() < 0 {
		inner := work
		name = b.from.given
		network, err := b.req.Caller().Namespace(pidfd.NSNet)
		if err != nil {
			return tree, err
		}
		defer network.Close()
		work = func() error { return b.req.Thread().InNetwork(&network, inner) }
	}
	shop, thread := b.emulator.bench.shop, b.req.Thread()
	err := untilFree(ctx, func() error { return shop.within(thread, name, dev, work) })
	if err != nil {
		tree.Close()
		return tracee.Handle{}, err
	}
	return tree, nil
}

// busyFor is how long a filesystem may take to be gone for good after the
// container has unmounted it.
const busyFor = 200 * time.Millisecond

// untilFree runs f again while the filesystem is about to be gone: a container
// that unmounts it and mounts it again may be faster than what is left to do.
func untilFree(ctx context.Context, f func() error) error {
	const pause = 5 * time.Millisecond
	end := time.Now().Add(busyFor)
	for {
		err := f()
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) || ctx.Err() != nil {
			return err
		}
		time.Sleep(pause)
	}
}

// create makes the filesystem and a detached mount of it. The thread is where
// the kernel is to look the source up.
func (b *builder) create(name string) (tracee.Handle, error) {
	if b.from.file.FD() >= 0 {
		device := b.device
		if device == nil {
			opened, err := openDevice(name, 0)
			if err != nil {
				return tracee.Handle{}, b.failed("open device", err, nil)
			}
			// Held open meanwhile: the last one to close a device empties its cache.
			defer opened.Close()
			device = &opened
		}
		if err := b.inspect(device); err != nil {
			return tracee.Handle{}, err
		}
	}
	fs, err := mnt.New(b.fstype)
	if err != nil {
		return tracee.Handle{}, b.failed("open filesystem type", err, nil)
	}
	defer fs.Close()
	if err := b.configure(fs, name); err != nil {
		return tracee.Handle{}, err
	}
	if err := b.superblock(fs, name); err != nil {
		return tracee.Handle{}, err
	}
	forced := b.rule.forced()
	tree, err := fs.Mount(attributes(forced) | atime(b.call.flags|forced))
	if err != nil {
		return tracee.Handle{}, b.failed("mount filesystem", err, fs)
	}
	return tree, nil
}

// superblock has the kernel make the filesystem, on a device that no other
// filesystem is mounted from: two containers, or one and the host, never share
// one.
func (b *builder) superblock(fs *mnt.Context, name string) error {
	if b.from.file.FD() < 0 {
		if err := fs.Create(); err != nil {
			return b.failed("create filesystem", err, fs)
		}
		return nil
	}
	err := fs.CreateExclusive()
	if errors.Is(err, unix.EOPNOTSUPP) {
		var alone tracee.Handle
		if alone, err = openDevice(name, unix.O_EXCL); err == nil {
			alone.Close()
			err = fs.Create()
		}
	}
	if err != nil {
		return b.failed("create filesystem", err, fs)
	}
	return nil
}

// openDevice opens the jail's device. With O_EXCL it gives EBUSY if a
// filesystem is mounted from it (open(2)).
func openDevice(name string, flags int) (tracee.Handle, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return tracee.Handle{}, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return tracee.NewHandle(fd), nil
}

// configure gives the filesystem its source, flags and options. What the rule
// forces comes last.
func (b *builder) configure(fs *mnt.Context, name string) error {
	if name != "" {
		if err := fs.SetString("source", name); err != nil {
			return b.failed("set source", err, fs)
		}
	}
	asked := b.call.flags
	if readOnlyTypes[b.fstype] {
		// As it will be anyway: so that the kernel does not want to write to a
		// device that cannot be written to.
		asked |= unix.MS_RDONLY
	}
	if err := b.setFlags(fs, asked); err != nil {
		return err
	}
	if err := b.setParameters(fs); err != nil {
		return err
	}
	if err := b.calm(fs); err != nil {
		return err
	}
	return b.setFlags(fs, b.rule.forced())
}

func (b *builder) setFlags(fs *mnt.Context, ms uint64) error {
	for _, f := range flags {
		if f.sb == "" || ms&f.ms == 0 {
			continue
		}
		if err := fs.Set(f.sb); err != nil {
			return b.failed("set "+f.name, err, fs)
		}
	}
	return nil
}

func (b *builder) setParameters(fs *mnt.Context) error {
	for _, p := range b.params {
		var err error
		switch {
		case b.rule.Loop && p.key == "loop" && !p.valued:
			continue
		case p.valued:
			err = fs.SetString(p.key, p.value)
		default:
			err = fs.Set(p.key)
		}
		if err != nil {
			return b.failed("set option "+p.key, err, fs)
		}
	}
	return nil
}

// failed adds to the kernel's errno what the kernel says of it.
func (b *builder) failed(doing string, err error, fs *mnt.Context) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return err
	}
	f := &failure{doing: doing, err: errno}
	if fs != nil {
		f.detail = fs.Messages()
	}
	if f.detail == "" {
		f.detail = b.log.since()
	}
	return f
}

// finish shifts the mount's ids, locks what the container must not change, and
// sets what it asked for. It takes ownership of tree. The thread leaves its jail
// for the room.
func (b *builder) finish(tree tracee.Handle) (tracee.Handle, error) {
	thread := b.req.Thread()
	fail := func(doing string, err error) (tracee.Handle, error) {
		tree.Close()
		var errno syscall.Errno
		if !errors.As(err, &errno) || errors.Is(err, tracee.ErrThread) {
			return tracee.Handle{}, err
		}
		return tracee.Handle{}, &failure{doing: doing, err: errno}
	}
	forced := b.rule.forced()
	if b.private() {
		if b.rule.shifts() {
			err := thread.Privileged(func() error { return mnt.Shift(&tree, &b.user) })
			if errors.Is(err, unix.EINVAL) {
				err = &os.SyscallError{Syscall: "mount_setattr", Err: unix.EINVAL}
				return fail("shift ids, which the filesystem cannot do (shift: false in the policy)", err)
			}
			if err != nil {
				return fail("shift ids", err)
			}
		}
		if attributes(forced) != 0 {
			sealed, err := b.emulator.bench.shop.sealer.Seal(&tree)
			if err != nil {
				return fail("lock flags", err)
			}
			tree.Close()
			tree = sealed
		}
	}
	asked := mnt.Attributes{Set: attributes(b.call.flags) &^ attributes(forced)}
	err := thread.Privileged(func() error { return asked.Change(&tree) })
	if err != nil {
		return fail("set flags", err)
	}
	return tree, nil
}
