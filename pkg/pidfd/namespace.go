//go:build linux

package pidfd

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// NS is a kind of namespace, see namespaces(7).
type NS int

// The kinds of namespaces. The zero NS is none of them.
const (
	NSUser NS = iota + 1
	NSMount
	NSPID // the one that the process is in
	NSNet
	NSIPC
	NSUTS
	NSCgroup
	NSTime
	NSPIDForChildren  // the one that its children will be in
	NSTimeForChildren // the one that its children will be in
)

// nsKind returns the ioctl request and the name under /proc/PID/ns.
func (ns NS) nsKind() (request uint, name string) {
	switch ns {
	case NSUser:
		return pidfdGetUserNamespace, "user"
	case NSMount:
		return pidfdGetMntNamespace, "mnt"
	case NSPID:
		return pidfdGetPIDNamespace, "pid"
	case NSNet:
		return pidfdGetNetNamespace, "net"
	case NSIPC:
		return pidfdGetIPCNamespace, "ipc"
	case NSUTS:
		return pidfdGetUTSNamespace, "uts"
	case NSCgroup:
		return pidfdGetCgroupNamespace, "cgroup"
	case NSTime:
		return pidfdGetTimeNamespace, "time"
	case NSPIDForChildren:
		return pidfdGetPIDForChildrenNamespace, "pid_for_children"
	case NSTimeForChildren:
		return pidfdGetTimeForChildrenNamespace, "time_for_children"
	}
	return 0, ""
}

// String returns the name that the namespace has under /proc/PID/ns.
func (ns NS) String() string {
	if _, name := ns.nsKind(); name != "" {
		return name
	}
	return "NS(" + strconv.Itoa(int(ns)) + ")"
}

// NSID identifies a namespace for as long as somebody holds it: two that are
// equal at the same time are the same namespace.
type NSID struct{ Dev, Ino uint64 }

// Namespace returns a descriptor of the namespace ns of the process's leader
// or, if IsThread, of the thread, fit for setns(2) and comparison by fstat(2).
// It is close-on-exec and owned by the caller. It does not block.
//
// It asks the pidfd (PIDFD_GET_*_NAMESPACE, Linux 6.11); on older kernels it
// opens /proc/PID/ns and then makes sure that the number had not been freed.
//
// Errors: ESRCH if the process has exited, be it a zombie; EACCES without
// PTRACE_MODE_READ_FSCREDS over it; EOPNOTSUPP if the kernel has no such
// namespaces; EINVAL if ns is not one of the constants; before Linux 6.11, ENOENT
// from NSPIDForChildren if it has unshared its PID namespace and not yet forked.
func (f *FD) Namespace(ns NS) (fd int, err error) {
	if err := f.acquire(); err != nil {
		return -1, err
	}
	defer f.release()

	request, name := ns.nsKind()
	if name == "" {
		return -1, os.NewSyscallError("ioctl", unix.EINVAL)
	}
	fd, err = f.k.getNamespace(f.fd, request)
	if err == nil {
		return fd, nil
	}
	if err != unix.ENOTTY {
		return -1, os.NewSyscallError("ioctl", err)
	}
	return f.namespaceFromProc(ns)
}

func (f *FD) namespaceFromProc(ns NS) (int, error) {
	path := f.k.procPath(f.pid, "ns/"+ns.String())
	fd, err := openProc(path)
	if err == unix.ENOENT {
		err = f.whyNoNamespace(ns)
	}
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	// Before this point the number could have been anybody's. A zombie's number
	// is still its own, but the ioctl knows no namespaces of a zombie either.
	gone, err := exited(f.fd)
	if err == nil && gone {
		err = os.NewSyscallError("poll", unix.ESRCH)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// whyNoNamespace finds what the ioctl would have said where /proc/PID/ns has
// ENOENT for everything.
func (f *FD) whyNoNamespace(ns NS) error {
	switch {
	case !f.k.exists("/self"):
		return unix.ENOENT // no procfs
	case !f.k.exists("/self/ns/" + ns.String()):
		return unix.EOPNOTSUPP
	}
	if gone, err := exited(f.fd); ns == NSPIDForChildren && err == nil && !gone {
		return unix.ENOENT
	}
	return unix.ESRCH
}

// NamespaceID returns the identity of the namespace ns. The errors are those of
// Namespace.
func (f *FD) NamespaceID(ns NS) (NSID, error) {
	fd, err := f.Namespace(ns)
	if err != nil {
		return NSID{}, err
	}
	defer unix.Close(fd)

	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return NSID{}, os.NewSyscallError("fstat", err)
	}
	return NSID{Dev: uint64(st.Dev), Ino: st.Ino}, nil
}
