// Package anchor finds out which user namespace is a container's: the one in
// which the capabilities of its processes count.
package anchor

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/pidfd"
	"github.com/callgate/callgate/pkg/tracee"
)

// ErrNotOwner says that a process belongs to a container that is not the
// registering user's.
var ErrNotOwner = errors.New("process is in no user namespace of the registering user's")

// FromPID is for a runtime that says which process is the container's first.
// The number is a claim: for anybody but root the namespace must be one that
// the registering user made.
func FromPID(pid int, uid uint32) (pidfd.NSID, error) {
	fd, err := pidfd.Open(pid)
	if err != nil {
		return pidfd.NSID{}, fmt.Errorf("pin container's process %d: %w", pid, err)
	}
	defer func() { _ = fd.Close() }()
	id, err := fd.NamespaceID(pidfd.NSUser)
	if err != nil {
		return pidfd.NSID{}, fmt.Errorf("identify user namespace of process %d: %w", pid, err)
	}
	if uid == 0 {
		return id, nil
	}
	ns, err := fd.Namespace(pidfd.NSUser)
	if err != nil {
		return pidfd.NSID{}, fmt.Errorf("open user namespace of process %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(ns) }()
	owner, err := unix.IoctlGetUint32(ns, unix.NS_GET_OWNER_UID)
	if err != nil {
		return pidfd.NSID{}, os.NewSyscallError("ioctl NS_GET_OWNER_UID", err)
	}
	if owner != uid {
		return pidfd.NSID{}, fmt.Errorf("process %d, user %d: %w", pid, uid, ErrNotOwner)
	}
	return id, nil
}

// maxLevels is MAX_PID_NS_LEVEL of linux/pid_namespace.h.
const maxLevels = 32

// FromCaller is for a runtime that cannot say (crun's exec sends pid 0, and
// the agent does not know the container). The caller may have made itself a
// user namespace before it called, so its own is no answer. Of the pid
// namespaces that it is in, the outermost below the agent's is asked instead:
// a process cannot leave it, nor can its children, and runtimes make that
// namespace as the container's user, so its owner is the container's user
// namespace. (The caller's oldest ancestor in the container proves nothing:
// CLONE_PARENT gives a process that was entered into it, as by an exec, a
// sibling in whatever namespaces it likes.)
//
// A container without a pid namespace of its own cannot be told from the host
// that way; its callers are denied.
func FromCaller(caller *tracee.Tracee) (pidfd.NSID, error) {
	inner, err := caller.Namespace(pidfd.NSPID)
	if err != nil {
		return pidfd.NSID{}, err
	}
	id, err := outermostOwner(inner)
	if errors.Is(err, errHostPIDs) {
		return pidfd.NSID{}, emulators.Denied{Errno: unix.EPERM, Reason: "container cannot be identified: it has no pid namespace and its runtime sent no pid"}
	}
	return id, err
}

// FromExec is for a process that was there before the listener came, and so
// may have gone into a user namespace of its own making: the first process of
// a container that something is executed in. Where it has a pid namespace of
// its own that is asked, as for FromCaller; where not, it is taken at its word.
func FromExec(pid int, uid uint32) (pidfd.NSID, error) {
	fd, err := pidfd.Open(pid)
	if err != nil {
		return pidfd.NSID{}, fmt.Errorf("pin container's process %d: %w", pid, err)
	}
	defer func() { _ = fd.Close() }()
	ns, err := fd.Namespace(pidfd.NSPID)
	if err != nil {
		return pidfd.NSID{}, fmt.Errorf("open pid namespace of process %d: %w", pid, err)
	}
	id, err := outermostOwner(tracee.NewHandle(ns))
	if uid != 0 || errors.Is(err, errHostPIDs) {
		claimed, claimErr := FromPID(pid, uid)
		if claimErr != nil || err != nil {
			return claimed, claimErr
		}
		if claimed != id {
			return pidfd.NSID{}, fmt.Errorf("process %d, user %d: %w", pid, uid, ErrNotOwner)
		}
	}
	return id, err
}

var errHostPIDs = errors.New("process is in the agent's own pid namespace")

// outermostOwner identifies the user namespace that owns the outermost pid
// namespace below the agent's that inner, which it closes, is in.
func outermostOwner(inner tracee.Handle) (pidfd.NSID, error) {
	defer func() { inner.Close() }()
	own, err := ownPIDNamespace()
	if err != nil {
		return pidfd.NSID{}, err
	}
	if id, err := identify(&inner); err != nil {
		return pidfd.NSID{}, err
	} else if id == own {
		return pidfd.NSID{}, errHostPIDs
	}
	for range maxLevels {
		outer, err := related(&inner, "ioctl NS_GET_PARENT", unix.NS_GET_PARENT)
		if err != nil {
			return pidfd.NSID{}, err
		}
		id, err := identify(&outer)
		if err == nil && id == own {
			outer.Close()
			return owner(&inner)
		}
		inner.Close()
		inner = outer
		if err != nil {
			return pidfd.NSID{}, err
		}
	}
	return pidfd.NSID{}, errors.New("pid namespaces have no end")
}

func ownPIDNamespace() (pidfd.NSID, error) {
	self, err := pidfd.Open(os.Getpid())
	if err != nil {
		return pidfd.NSID{}, err
	}
	defer func() { _ = self.Close() }()
	return self.NamespaceID(pidfd.NSPID)
}

// owner identifies the user namespace that owns a namespace.
func owner(ns *tracee.Handle) (pidfd.NSID, error) {
	user, err := related(ns, "ioctl NS_GET_USERNS", unix.NS_GET_USERNS)
	if err != nil {
		return pidfd.NSID{}, err
	}
	defer user.Close()
	return identify(&user)
}

// related opens what ioctl_nsfs(2) says of a namespace.
func related(ns *tracee.Handle, name string, request uint) (tracee.Handle, error) {
	fd, err := unix.IoctlRetInt(ns.FD(), request)
	if err != nil {
		return tracee.Handle{}, os.NewSyscallError(name, err)
	}
	return tracee.NewHandle(fd), nil
}

func identify(ns *tracee.Handle) (pidfd.NSID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(ns.FD(), &st); err != nil {
		return pidfd.NSID{}, os.NewSyscallError("fstat", err)
	}
	return pidfd.NSID{Dev: st.Dev, Ino: st.Ino}, nil
}
