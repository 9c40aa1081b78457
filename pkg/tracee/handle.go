package tracee

import (
	"os"

	"golang.org/x/sys/unix"
)

// Handle owns one descriptor: an O_PATH reference to a directory or a file of
// the caller, or a descriptor taken from it. Unlike [os.File] it never
// changes the flags of the open file description, which the caller shares.
// The zero value owns nothing. Not for concurrent use.
type Handle struct {
	fd   int
	open bool
}

// NewHandle takes ownership of fd.
func NewHandle(fd int) Handle { return Handle{fd: fd, open: true} }

// FD borrows the descriptor; -1 if there is none.
func (h *Handle) FD() int {
	if !h.open {
		return -1
	}
	return h.fd
}

// Close gives the descriptor back. A second Close does nothing.
func (h *Handle) Close() {
	if h.open {
		h.open = false
		// A close(2) that fails has closed all the same, and an O_PATH
		// reference has nothing to flush.
		_ = unix.Close(h.fd)
	}
}

// openat opens name below dir with O_CLOEXEC, retrying EINTR.
func openat(dir int, name string, flags int) (Handle, error) {
	for {
		fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return Handle{}, &os.PathError{Op: "openat", Path: name, Err: err}
		}
		return NewHandle(fd), nil
	}
}
