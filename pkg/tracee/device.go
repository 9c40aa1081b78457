package tracee

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// DevicesOpen asks the kernel whether a device node opens where this one is,
// which st describes, and never opens the device: may_open() of fs/namei.c
// first refuses device nodes on a mount with nodev and on a filesystem that was
// mounted in a user namespace (SB_I_NODEV, which no flag shows; EACCES), then
// looks at permissions, which CAP_DAC_OVERRIDE passes, then refuses O_NOATIME to
// all but the owner (EPERM), and only then is the driver called.
func (t *Thread) DevicesOpen(node *Handle, st *Stat) (bool, error) {
	stranger := Identity{FSUID: overflowID, FSGID: overflowID}
	if st.UID == stranger.FSUID {
		stranger.FSUID--
	}
	err := t.As(&stranger, Capability(unix.CAP_DAC_OVERRIDE), func() error {
		path := "/proc/self/fd/" + strconv.Itoa(node.FD())
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOATIME|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err == nil {
			_ = unix.Close(fd)
		}
		return os.NewSyscallError("open", err)
	})
	switch {
	case errors.Is(err, unix.EPERM):
		return true, nil
	case errors.Is(err, unix.EACCES):
		return false, nil
	case err == nil:
		return false, errors.New("ask whether devices open: the node opened for a stranger")
	default:
		return false, fmt.Errorf("ask whether devices open: %w", err)
	}
}
