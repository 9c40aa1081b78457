package mount

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
)

// Arguments of mount(2).
const (
	argSource = iota
	argTarget
	argType
	argFlags
	argData
)

// call is a mount(2) without what its pointers point to.
type call struct {
	flags uint64 // without the magic number of old
}

// operation is what path_mount of fs/namespace.c takes a call for.
type operation int

const (
	operationNew operation = iota
	operationRemount
	operationKernels // bind, move, propagation: whoever may do it may do it alone
)

// decode reads the registers.
func decode(req *emulators.Request) call {
	c := call{flags: req.Uint64(argFlags)}
	// Programs from before Linux 2.4 set it; the kernel drops it, and all above.
	if c.flags&unix.MS_MGC_MSK == unix.MS_MGC_VAL {
		c.flags &= 1<<16 - 1
	}
	return c
}

func (c *call) operation() operation {
	const propagation = unix.MS_SHARED | unix.MS_PRIVATE | unix.MS_SLAVE | unix.MS_UNBINDABLE
	switch {
	case c.flags>>31 != 0:
		// MS_NOUSER, an int that has become 33 bits: the kernel says EINVAL.
		return operationKernels
	case c.flags&unix.MS_REMOUNT != 0:
		return operationRemount
	case c.flags&(unix.MS_BIND|propagation|unix.MS_MOVE) != 0:
		return operationKernels
	default:
		return operationNew
	}
}

// fstype reads the type's name; "" if there is none.
func (c *call) fstype(req *emulators.Request) (string, error) {
	return word(req, argType)
}

// word reads an optional string as copy_mount_string of fs/namespace.c does,
// to which one that is too long is just wrong.
func word(req *emulators.Request, i int) (string, error) {
	s, _, err := req.OptionalPath(i)
	var argument emulators.BadArgument
	if errors.As(err, &argument) && argument.Errno == unix.ENAMETOOLONG {
		argument.Errno = unix.EINVAL
		return "", argument
	}
	return s, err
}

// base is a type's name without the subtype of FUSE.
func base(fstype string) string {
	name, _, _ := strings.Cut(fstype, ".")
	return name
}

// maxData is the page that mount(2) copies options from, with the NUL.
const maxData = 4096

// data reads the options. The kernel copies a page, or as much of it as there
// is (copy_mount_options), and cuts what has no end there, whereas a list that
// is cut is refused here.
func data(req *emulators.Request) (string, error) {
	if req.Uint64(argData) == 0 {
		return "", nil
	}
	buf := make([]byte, maxData)
	n, err := req.ReadUpTo(argData, buf)
	if err != nil {
		return "", err
	}
	text, _, ended := strings.Cut(string(buf[:n]), "\x00")
	if !ended && n == maxData {
		return "", emulators.BadArgument{Index: argData, Errno: unix.EINVAL}
	}
	return text, nil
}
