package tracee

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// procRootIno is PROC_ROOT_INO of linux/proc_ns.h.
const procRootIno = 1

// self steps over "self", "thread-self" or the caller's own number in a procfs
// and the magic link of the caller's own that follows: cwd, root, exe, or a
// descriptor. To its own the kernel always lets a process (ptrace_may_access
// of one's own thread group), so that even a number that is another process's
// in that procfs leads to nothing that the caller does not have. What else is
// in those directories is nothing to work on, and gives ENOENT. It returns no
// handle where the walk is elsewhere.
func (w *walker) self(name, rest string) (next Handle, left string, err error) {
	if !selfLike(name) || rest == "" {
		return Handle{}, "", nil
	}
	st, err := w.here.Stat()
	if err != nil {
		return Handle{}, "", err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(w.here.FD(), &fs); err != nil {
		return Handle{}, "", os.NewSyscallError("fstatfs", err)
	}
	if fs.Type != unix.PROC_SUPER_MAGIC || st.Ino != procRootIno {
		return Handle{}, "", nil
	}
	caller := w.who.caller
	status, err := caller.Status()
	if err != nil {
		return Handle{}, "", err
	}
	tid := status.TGID
	switch name {
	case "self", strconv.Itoa(status.InnerTGID):
	case "thread-self":
		tid = caller.TID()
	default:
		return Handle{}, "", nil // another process
	}
	link, left, ok := ownLink(rest)
	if !ok {
		return Handle{}, "", &os.PathError{Op: "lookup", Path: name, Err: unix.ENOENT}
	}
	var h Handle
	err = w.thread.Privileged(func() (err error) {
		h, err = caller.proc.open(tid, link, unix.O_PATH)
		return err
	})
	if err = caller.settle(err); err != nil {
		h.Close()
		return Handle{}, "", err
	}
	return h, left, nil
}

// selfLike says cheaply what can be no name of the caller's.
func selfLike(name string) bool {
	return name == "self" || name == "thread-self" || name[0] >= '1' && name[0] <= '9'
}

// ownLink splits what follows "self/" into a magic link and the rest.
func ownLink(rest string) (link, left string, ok bool) {
	link, left, _ = strings.Cut(rest, "/")
	left = strings.TrimLeft(left, "/")
	switch link {
	case "cwd", "root", "exe":
		return link, left, true
	case "fd":
		n, after, _ := strings.Cut(left, "/")
		if _, err := strconv.ParseUint(n, 10, 31); err != nil {
			return "", "", false
		}
		return "fd/" + n, strings.TrimLeft(after, "/"), true
	default:
		return "", "", false
	}
}
