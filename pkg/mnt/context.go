package mnt

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/tracee"
)

// Context is a filesystem that is being made, or changed: the kernel's struct
// fs_context. For one goroutine. Whoever made it closes it; as long as it is
// open the filesystem stays in use.
type Context struct {
	fd tracee.Handle
}

// New begins a filesystem of a type. ENODEV if the kernel has none such. It
// belongs to the user namespace and the network namespace that the thread is in.
func New(fstype string) (*Context, error) {
	fd, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsopen", err)
	}
	return &Context{fd: tracee.NewHandle(fd)}, nil
}

// Pick begins a change of the filesystem that is mounted where root, which is
// borrowed, is the root of a mount: EINVAL if it is none.
func Pick(root *tracee.Handle) (*Context, error) {
	fd, err := unix.Fspick(root.FD(), "", unix.FSPICK_CLOEXEC|unix.FSPICK_EMPTY_PATH)
	if err != nil {
		return nil, os.NewSyscallError("fspick", err)
	}
	return &Context{fd: tracee.NewHandle(fd)}, nil
}

// Close gives the context up.
func (c *Context) Close() { c.fd.Close() }

// Set sets a parameter without a value, such as "ro".
func (c *Context) Set(key string) error {
	return os.NewSyscallError("fsconfig", unix.FsconfigSetFlag(c.fd.FD(), key))
}

// SetString sets a parameter to a value, which the kernel takes as it is: no
// comma in it begins another parameter.
func (c *Context) SetString(key, value string) error {
	return os.NewSyscallError("fsconfig", unix.FsconfigSetString(c.fd.FD(), key, value))
}

// createExclusive is FSCONFIG_CMD_CREATE_EXCL of linux/mount.h.
const createExclusive = 8

// Create makes the filesystem, which may read its device, or shares one that is
// there, as mount(2) does.
func (c *Context) Create() error {
	return os.NewSyscallError("fsconfig", unix.FsconfigCreate(c.fd.FD()))
}

// CreateExclusive is Create of a filesystem that is not mounted anywhere: EBUSY
// if it is. EOPNOTSUPP, and nothing has happened, before Linux 6.6 and from
// filesystems that know filesystem contexts by hearsay only.
func (c *Context) CreateExclusive() error {
	for {
		_, _, errno := unix.Syscall6(unix.SYS_FSCONFIG, uintptr(c.fd.FD()), createExclusive, 0, 0, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return os.NewSyscallError("fsconfig", errno)
		}
		return nil
	}
}

// Reconfigure applies what was set to the filesystem that was picked.
func (c *Context) Reconfigure() error {
	return os.NewSyscallError("fsconfig", unix.FsconfigReconfigure(c.fd.FD()))
}

// Mount makes a detached mount of what was created, with MOUNT_ATTR_* attrs.
// Whoever asked closes it.
func (c *Context) Mount(attrs uint64) (tracee.Handle, error) {
	fd, err := unix.Fsmount(c.fd.FD(), unix.FSMOUNT_CLOEXEC, int(attrs))
	if err != nil {
		return tracee.Handle{}, os.NewSyscallError("fsmount", err)
	}
	return tracee.NewHandle(fd), nil
}

// maxMessages bounds what Messages reads: the kernel keeps eight.
const maxMessages = 16

// Messages takes the kernel's words about what went wrong, one after another,
// separated by "; ". Some filesystems have none here and write to the kernel's
// log instead.
func (c *Context) Messages() string {
	var all []string
	var buf [1024]byte
	for range maxMessages {
		n, err := unix.Read(c.fd.FD(), buf[:])
		if errors.Is(err, unix.EMSGSIZE) {
			continue
		}
		if err != nil || n == 0 {
			break
		}
		text := strings.TrimSpace(string(buf[:n]))
		// "e " for an error, "w " for a warning, "i " for information.
		if len(text) > 2 && text[1] == ' ' {
			text = text[2:]
		}
		all = append(all, text)
	}
	return strings.Join(all, "; ")
}
