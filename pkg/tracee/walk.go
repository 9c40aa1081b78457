package tracee

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is MAXSYMLINKS of the kernel.
const maxLinks = 40

// walk looks a path up one component at a time, so that the actor's
// capabilities override permissions just where they may. It is the slow road
// and gives what the kernel's own walk would: the errnos, "..", the root,
// protected_symlinks. It may block. What it gives is a reference (O_PATH).
func (t *Thread) walk(who *Actor, at Lookup, path string, flags uint64) (Handle, error) {
	var h Handle
	err := t.In(at.Root, func() (err error) {
		w := walker{thread: t, who: who, root: at.Root}
		defer w.close()
		h, err = w.walk(at, path, flags)
		return err
	})
	if err != nil {
		h.Close()
		return Handle{}, err
	}
	return h, nil
}

type walker struct {
	thread *Thread
	who    *Actor
	root   *Handle
	here   *Handle // the directory reached: root, the lookup's own, or own
	own    Handle
	links  int
}

func (w *walker) close() { w.own.Close() }

func (w *walker) move(to Handle) {
	w.own.Close()
	w.own = to
	w.here = &w.own
}

func (w *walker) walk(at Lookup, path string, flags uint64) (Handle, error) {
	if path == "" {
		return Handle{}, &os.PathError{Op: "lookup", Path: path, Err: unix.ENOENT}
	}
	w.here = at.Dir
	if absolute(path) {
		w.here = w.root
	}
	for rest := strings.TrimLeft(path, "/"); rest != ""; {
		name, after, more := strings.Cut(rest, "/")
		rest = strings.TrimLeft(after, "/")
		if next, left, err := w.self(name, rest); err != nil {
			return Handle{}, err
		} else if next.open {
			if st, err := next.Stat(); err != nil || st.Type != unix.S_IFDIR {
				return w.finish(next, left == "", flags, err)
			}
			w.move(next)
			rest = left
			continue
		}
		next, st, err := w.step(name)
		if err != nil {
			return Handle{}, err
		}
		switch st.Type {
		case unix.S_IFDIR:
			w.move(next)
		case unix.S_IFLNK:
			if !more && flags&unix.O_NOFOLLOW != 0 {
				return w.finish(next, true, flags, nil)
			}
			link, err := w.follow(name, &next, &st)
			next.Close()
			if err != nil {
				return Handle{}, err
			}
			if absolute(link) {
				w.here = w.root
			}
			if more { // also by a trailing slash: then it must be a directory
				link += "/" + rest
			}
			rest = strings.TrimLeft(link, "/")
		default:
			return w.finish(next, !more, flags, nil)
		}
	}
	return w.here.dup()
}

// finish ends the walk at what is no directory.
func (w *walker) finish(h Handle, last bool, flags uint64, err error) (Handle, error) {
	if err == nil && (!last || flags&unix.O_DIRECTORY != 0) {
		err = &os.PathError{Op: "lookup", Path: "component", Err: unix.ENOTDIR}
	}
	if err != nil {
		h.Close()
		return Handle{}, err
	}
	return h, nil
}

// dup makes a second reference.
func (h *Handle) dup() (Handle, error) {
	fd, err := unix.FcntlInt(uintptr(h.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return Handle{}, os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
	}
	return NewHandle(fd), nil
}

// step refers to what name is in the directory reached, a link itself.
func (w *walker) step(name string) (next Handle, st Stat, err error) {
	err = w.thread.Within(w.who, w.here, 0, func() (err error) {
		next, err = openat(w.here.FD(), name, unix.O_PATH|unix.O_NOFOLLOW)
		return err
	})
	if err != nil {
		return Handle{}, Stat{}, err
	}
	if st, err = next.Stat(); err != nil {
		next.Close()
		return Handle{}, Stat{}, err
	}
	return next, st, nil
}

// follow reads a symbolic link, if it may be followed.
func (w *walker) follow(name string, h *Handle, st *Stat) (string, error) {
	if w.links++; w.links > maxLinks {
		return "", &os.PathError{Op: "lookup", Path: name, Err: unix.ELOOP}
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(h.FD(), &fs); err != nil {
		return "", os.NewSyscallError("fstatfs", err)
	}
	if fs.Type == unix.PROC_SUPER_MAGIC {
		// Its magic links lead anywhere and read like any other.
		return "", &os.PathError{Op: "lookup", Path: name, Err: unix.EACCES}
	}
	if err := w.mayFollow(st); err != nil {
		return "", err
	}
	var buf [PathMax]byte
	n, err := unix.Readlinkat(h.FD(), "", buf[:])
	if err != nil {
		return "", &os.PathError{Op: "readlinkat", Path: name, Err: err}
	}
	if n == 0 || n == len(buf) {
		return "", &os.PathError{Op: "readlinkat", Path: name, Err: unix.ENAMETOOLONG}
	}
	return string(buf[:n]), nil
}

// mayFollow is may_follow_link of fs/namei.c (fs.protected_symlinks of
// sysctl(5), taken to be on, as every distribution has it).
func (w *walker) mayFollow(link *Stat) error {
	if link.UID == w.who.FSUID {
		return nil
	}
	dir, err := w.here.Stat()
	if err != nil {
		return err
	}
	const stickyWritable = unix.S_ISVTX | unix.S_IWOTH
	if dir.Mode&stickyWritable != stickyWritable || dir.UID == link.UID {
		return nil
	}
	return unix.EACCES
}
