package mount

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/tracee"
)

// loops are the loop devices that the containers' images got. Safe for
// concurrent use.
type loops struct {
	mu       sync.Mutex // guards attached, and is held from the count to the entry
	attached []loopDevice
}

// loopDevice is a loop device with an image attached. It detaches itself when
// nobody uses it any more: not the descriptor, and no mount.
type loopDevice struct {
	fd     tracee.Handle
	number int
	name   string // in /dev
	dev    uint64
	seq    string // tells it from the number's next use

	owner    *bench
	file     tracee.Stat
	writable bool
}

func (d *loopDevice) close() { d.fd.Close() }

// lives says whether the device is in use as it was.
func (d *loopDevice) lives() bool {
	folder := "/sys/block/loop" + strconv.Itoa(d.number)
	if _, err := os.Stat(folder + "/loop/backing_file"); err != nil {
		return false
	}
	return sequence(d.number) == d.seq
}

// sequence is a number that changes whenever another image is attached (Linux
// 5.15); "" before.
func sequence(number int) string {
	text, err := os.ReadFile("/sys/block/loop" + strconv.Itoa(number) + "/diskseq")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// attach gives the image that the mounter found a loop device. Whoever asked
// closes it, after the mount is made.
func (l *loops) attach(m *mounter) (loopDevice, error) {
	file, writable, err := m.openImage()
	if err != nil {
		return loopDevice{}, err
	}
	// The device has the file from then on. Closing it asks nobody: see steady.
	defer file.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.attached = slices.DeleteFunc(l.attached, func(d loopDevice) bool { return !d.lives() })
	if l.count(m.emulator.bench) >= m.emulator.policy.maxLoops() {
		return loopDevice{}, emulators.Denied{Reason: "container has as many loop devices as policy allows (maxLoops)"}
	}
	if l.conflicts(&m.from.stat, writable) {
		return loopDevice{}, &failure{doing: "attach loop device", err: unix.EBUSY, detail: "image is mounted already, and one of the two could write to it"}
	}
	var d loopDevice
	err = m.req.Thread().Privileged(func() (err error) {
		d, err = newLoop(file.FD(), writable, m.rule.DirectIO)
		return err
	})
	if err != nil {
		d.close()
		return loopDevice{}, err
	}
	d.owner, d.file, d.writable = m.emulator.bench, m.from.stat, writable
	entry := d
	entry.fd = tracee.Handle{}
	l.attached = append(l.attached, entry)
	return d, nil
}

// conflicts says whether an image has a device already and one of the two is
// for writing: two filesystems on the same blocks would spoil each other, which
// the kernel sees only where they are on one device (and mount(8) where it
// makes the devices).
func (l *loops) conflicts(image *tracee.Stat, writable bool) bool {
	return slices.ContainsFunc(l.attached, func(d loopDevice) bool {
		return d.file.Dev == image.Dev && d.file.Ino == image.Ino && (writable || d.writable)
	})
}

// count is how many devices one container has.
func (l *loops) count(owner *bench) (n int) {
	for _, d := range l.attached {
		if d.owner == owner {
			n++
		}
	}
	return n
}

// holds says whether a device is one of these.
func (l *loops) holds(dev uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.attached, func(d loopDevice) bool { return d.dev == dev && d.lives() })
}

// openImage opens the image as the caller would, for writing if that is wanted
// and the caller may.
func (m *mounter) openImage() (tracee.Handle, bool, error) {
	if err := m.steady(); err != nil {
		return tracee.Handle{}, false, err
	}
	writable := m.call.flags&unix.MS_RDONLY == 0 && m.rule.forced()&unix.MS_RDONLY == 0 && !readOnlyTypes[m.fstype]
	if writable {
		file, err := m.reopen(unix.O_RDWR)
		switch {
		case err == nil:
			return file, true, nil
		case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, unix.EROFS), errors.Is(err, unix.ETXTBSY):
			// As losetup(8) does; mount(2) then says EACCES where it is asked to write.
		default:
			return tracee.Handle{}, false, &failure{doing: "open image", err: errnoOf(err)}
		}
	}
	file, err := m.reopen(unix.O_RDONLY)
	if err != nil {
		return tracee.Handle{}, false, &failure{doing: "open image", err: errnoOf(err)}
	}
	return file, false, nil
}

// readOnlyTypes are never written to.
var readOnlyTypes = map[string]bool{"squashfs": true, "erofs": true, "iso9660": true, "cramfs": true, "romfs": true}

// steady refuses an image whose bytes somebody else hands out: a mount that
// waits for a program of the container's, which may never answer, holds locks
// that the whole host waits for (sync(2)).
func (m *mounter) steady() error {
	fs, err := m.req.Container().Mounts.Look(&m.from.file, &m.from.stat, true)
	if err != nil {
		return err
	}
	// An overlay has the host's layers, unless the container mounted it.
	if fs.Local || fs.Magic == unix.OVERLAYFS_SUPER_MAGIC && !m.theirs(&m.from.stat) {
		return nil
	}
	return emulators.Denied{Reason: "image is on a filesystem that a program or a network serves, or that the container put together"}
}

// steadyTarget refuses a target on a filesystem that a program of the
// container's serves, or an overlay on one: mounting takes the directory's
// lock, which the kernel may be holding for that program without end, and a
// thread that waits for it cannot even be killed.
func (m *mounter) steadyTarget() error {
	no := emulators.Denied{Reason: "target is on a filesystem that the container serves or put together"}
	st, err := m.target.Stat()
	if errors.Is(err, unix.EACCES) {
		return no // FUSE, which has not let the agent in
	}
	if err != nil {
		return err
	}
	if !m.theirs(&st) {
		return nil
	}
	fs, err := m.req.Container().Mounts.Look(&m.target, &st, true)
	if err != nil {
		return err
	}
	inKernel := kernelsMagic[fs.Magic] && fs.Magic != unix.FUSE_SUPER_MAGIC && fs.Magic != unix.OVERLAYFS_SUPER_MAGIC
	if fs.Local || inKernel {
		return nil
	}
	return no
}

// theirs says whether a file is on a mount that was made after the container
// was registered: by itself, as far as anybody can tell. Before Linux 6.8 nobody
// can, and none is.
func (m *mounter) theirs(st *tracee.Stat) bool {
	born := m.emulator.bench.born
	return st.Unique && born != 0 && st.MountID > born
}

// reopen opens what was found, and nothing else, with the caller's rights.
func (m *mounter) reopen(flags int) (tracee.Handle, error) {
	var h tracee.Handle
	err := m.req.Thread().Within(&m.who, &m.from.file, 0, func() error {
		// O_NONBLOCK: a lease on the file would keep us for lease-break-time.
		flags := flags | unix.O_NONBLOCK | unix.O_CLOEXEC | unix.O_NOCTTY
		fd, err := unix.Openat(m.emulator.bench.shop.fds.FD(), strconv.Itoa(m.from.file.FD()), flags, 0)
		if err == nil {
			h = tracee.NewHandle(fd)
		}
		return err
	})
	return h, err
}

// loopTries bounds the races for a free device with others on the host.
const loopTries = 32

// newLoop attaches an image to a free loop device.
func newLoop(image int, writable, direct bool) (loopDevice, error) {
	control, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return loopDevice{}, &os.PathError{Op: "open", Path: "/dev/loop-control", Err: notVerdict(err)}
	}
	defer func() { _ = unix.Close(control) }()
	for range loopTries {
		number, err := unix.IoctlRetInt(control, unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return loopDevice{}, &failure{doing: "find a free loop device", err: errnoOf(err)}
		}
		d, err := configureLoop(number, image, writable, direct)
		if err == nil {
			return d, nil
		}
		d.close()
		if !errors.Is(err, unix.EBUSY) {
			return loopDevice{}, err
		}
	}
	return loopDevice{}, &failure{doing: "find a free loop device", err: unix.EBUSY}
}

func configureLoop(number, image int, writable, direct bool) (loopDevice, error) {
	mode := unix.O_RDONLY
	if writable {
		mode = unix.O_RDWR
	}
	d := loopDevice{number: number, name: "/dev/loop" + strconv.Itoa(number)}
	fd, err := unix.Open(d.name, mode|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return d, &os.PathError{Op: "open", Path: d.name, Err: notVerdict(err)}
	}
	d.fd = tracee.NewHandle(fd)
	st, err := d.fd.Stat()
	if err != nil {
		return d, err
	}
	if st.Type != unix.S_IFBLK || unix.Major(st.Rdev) != loopMajor {
		return d, fmt.Errorf("%s is no loop device", d.name)
	}
	d.dev = st.Rdev
	config := unix.LoopConfig{Fd: uint32(image)}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	if !writable {
		config.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	if direct {
		config.Info.Flags |= unix.LO_FLAGS_DIRECT_IO
	}
	if err := unix.IoctlLoopConfigure(fd, &config); err != nil {
		return d, &failure{doing: "attach loop device", err: errnoOf(err)}
	}
	d.seq = sequence(number)
	return d, nil
}

// notVerdict keeps an errno about the host's own files from being taken for one
// about the caller's.
func notVerdict(err error) error { return errors.New(err.Error()) }
