package emulators

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/pidfd"
	"github.com/callgate/callgate/pkg/tracee"
)

// Container is what a container's calls share, whichever of its listeners they
// came through.
type Container struct {
	ID      string
	Profile string
	// UserNamespace is the one in which its capabilities count.
	UserNamespace pidfd.NSID
	// Mounts remembers what its mounts are.
	Mounts tracee.Mounts
}

// Patience says whether a call may put its thread to sleep.
type Patience int

const (
	// Hurry is for the thread that other containers' calls wait for: what
	// could block gives [ErrBlocks].
	Hurry Patience = iota
	// Patient is for a thread of the container's own share.
	Patient
)

// Call is what a [Request] is made of. Everything is borrowed.
type Call struct {
	Syscall   string // the kernel's name
	Args      [6]uint64
	Caller    *tracee.Tracee
	Thread    *tracee.Thread
	Container *Container
	Patience  Patience
	// Host is the agent's own user namespace.
	Host pidfd.NSID
}

// Request is one call: the stopped caller and its arguments. Every accessor
// that reads the caller is bounded, and checks afterwards that the caller
// still waits: otherwise what was read may be somebody else's, and the error
// is [ErrGone].
type Request struct {
	call Call
}

// NewRequest makes the request of a call.
func NewRequest(c Call) *Request { return &Request{call: c} }

// Syscall is the kernel's name of the call.
func (r *Request) Syscall() string { return r.call.Syscall }

// PID is the caller's thread id in the agent's pid namespace. It names nobody:
// use it in logs.
func (r *Request) PID() int { return r.call.Caller.TID() }

// Container is the caller's.
func (r *Request) Container() *Container { return r.call.Container }

// Patience says whether this run of the call may block.
func (r *Request) Patience() Patience { return r.call.Patience }

// Int is argument i as the kernel takes an int: its low 32 bits.
func (r *Request) Int(i int) int32 { return int32(uint32(r.call.Args[i])) }

// Uint32 is argument i as the kernel takes an unsigned int.
func (r *Request) Uint32(i int) uint32 { return uint32(r.call.Args[i]) }

// Uint64 is argument i whole.
func (r *Request) Uint64(i int) uint64 { return r.call.Args[i] }

// Path reads the string that argument i points to: at most PATH_MAX bytes with
// its NUL, as the kernel takes a path. The errors are [BadArgument] with
// EFAULT or ENAMETOOLONG. An empty path is returned as it is.
func (r *Request) Path(i int) (string, error) {
	s, err := r.call.Caller.ReadString(r.call.Args[i], tracee.PathMax)
	if errors.Is(err, tracee.ErrTooLong) {
		return "", BadArgument{Index: i, Errno: unix.ENAMETOOLONG}
	}
	if err != nil {
		return "", r.argument(i, "read path", err)
	}
	return s, nil
}

// OptionalPath is Path for an argument that may be NULL: ok is false then.
func (r *Request) OptionalPath(i int) (path string, ok bool, err error) {
	if r.call.Args[i] == 0 {
		return "", false, nil
	}
	path, err = r.Path(i)
	return path, err == nil, err
}

// Read fills p from where argument i points to, or fails with [BadArgument]
// EFAULT.
func (r *Request) Read(i int, p []byte) error {
	if err := r.call.Caller.ReadMemory(r.call.Args[i], p); err != nil {
		return r.argument(i, "read memory", err)
	}
	return nil
}

// ReadUpTo fills p from where argument i points to as far as memory is there,
// and says how far; [BadArgument] EFAULT if none is.
func (r *Request) ReadUpTo(i int, p []byte) (int, error) {
	n, err := r.call.Caller.ReadUpTo(r.call.Args[i], p)
	if err != nil {
		return 0, r.argument(i, "read memory", err)
	}
	return n, nil
}

// Dir refers to the directory that the dirfd in argument i names: the caller's
// working directory for AT_FDCWD. [BadArgument] with EBADF or ENOTDIR. The
// caller of Dir closes the handle.
func (r *Request) Dir(i int) (tracee.Handle, error) {
	var h tracee.Handle
	err := r.privileged(func() (err error) {
		h, err = r.call.Caller.Dir(r.Int(i))
		return err
	})
	if err != nil {
		return tracee.Handle{}, r.argument(i, "take directory", err)
	}
	return h, nil
}

// privileged runs f with all that the agent may do, on a thread that can.
func (r *Request) privileged(f func() error) error {
	if r.call.Thread == nil {
		return f()
	}
	return r.call.Thread.Privileged(f)
}

// File takes the descriptor in argument i: the same open file description as
// the caller's, O_NONBLOCK and position included. [BadArgument] with EBADF.
// Closing it asks whoever serves the file, for as long as that takes: see that
// it is what the call is about (a socket, say) before you take it.
// The caller of File closes the handle.
func (r *Request) File(i int) (tracee.Handle, error) {
	h, err := r.call.Caller.File(r.Int(i))
	if err != nil {
		return tracee.Handle{}, r.argument(i, "take descriptor", err)
	}
	return h, nil
}

// argument makes the errnos that an argument can be guilty of its fault.
func (r *Request) argument(i int, doing string, err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		switch errno {
		case unix.EFAULT, unix.EBADF, unix.ENOTDIR:
			return BadArgument{Index: i, Errno: errno}
		}
	}
	return fmt.Errorf("%s of argument %d: %w", doing, i, err)
}

// Caller is the stopped thread.
func (r *Request) Caller() *tracee.Tracee { return r.call.Caller }

// Thread is the OS thread that this call runs on: what acts as the caller.
func (r *Request) Thread() *tracee.Thread { return r.call.Thread }

// Require returns nil if the caller holds a capability that counts in its
// container, otherwise [Denied]. What it holds in a user namespace of its own
// making counts for nothing. For capabilities that the kernel asks for in the
// initial user namespace.
func (r *Request) Require(capability int, name string) error {
	status, err := r.call.Caller.Status()
	if err != nil {
		return err
	}
	if !status.Effective.Has(capability) {
		// Whatever namespace it lacks it in, it has it in no outer one.
		return Denied{Reason: "caller lacks " + name, ByKernel: true}
	}
	ns, err := r.call.Caller.UserNamespace()
	if err != nil {
		return err
	}
	if ns != r.call.Container.UserNamespace {
		return Denied{Reason: "caller is not in its container's user namespace", ByKernel: Powerless(r.call.Host, ns)}
	}
	return nil
}

// InUserNamespace says whether the container has a user namespace that is not
// the agent's.
func (r *Request) InUserNamespace() bool { return r.call.Container.UserNamespace != r.call.Host }

// Deny is policy's no, to a call that the kernel asks a capability in the
// initial user namespace for. Where the caller is in another the kernel
// refuses it, with the errno that the arguments deserve; where it is not,
// EPERM.
func (r *Request) Deny(reason string) error {
	ns, err := r.call.Caller.UserNamespace()
	if err != nil {
		return err
	}
	return Denied{Reason: reason, ByKernel: Powerless(r.call.Host, ns)}
}

// initialUserNamespace is PROC_USER_INIT_INO of linux/proc_ns.h.
const initialUserNamespace = 0xEFFFFFFD

// Powerless says whether nobody in the user namespace ns has the capabilities
// that the kernel asks for in the initial one. To an agent that is not there
// itself, host being its own, another namespace may be just that.
func Powerless(host, ns pidfd.NSID) bool {
	return host.Ino == initialUserNamespace && ns != host
}
