package tracee

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Lookup is where and how a path of the caller's is looked up. Everything is
// borrowed.
type Lookup struct {
	Root *Handle // the caller's root directory
	Dir  *Handle // where a relative path begins; may be nil for an absolute one
	// Patient allows the lookup to block. Without it, whatever is not in the
	// kernel's cache gives ErrBlocks (RESOLVE_CACHED, Linux 5.12).
	Patient bool
}

// resolveCached is RESOLVE_CACHED of linux/openat2.h.
const resolveCached = 0x20

// lookupRetries bounds the lookups that a container can spoil by renaming
// directories under them (EAGAIN of RESOLVE_IN_ROOT with "..").
const lookupRetries = 64

// Open opens path as the caller would, and nothing outside of its root. Of the
// magic links of procfs, which lead anywhere, the caller's own are followed
// (O_PATH only); another process's give EACCES or ELOOP, for following them
// would be by the supervisor's right, not the caller's. O_CLOEXEC is added.
//
// The kernel's errno comes back as it is; ErrBlocks only without Patient.
func (t *Thread) Open(who *Actor, at Lookup, path string, flags uint64) (Handle, error) {
	h, err := t.open(who, at, path, flags)
	if err == nil || flags&unix.O_PATH == 0 || !who.walks(err) {
		return h, err
	}
	if !at.Patient {
		return Handle{}, ErrBlocks
	}
	return t.walk(who, at, path, flags)
}

func (t *Thread) open(who *Actor, at Lookup, path string, flags uint64) (h Handle, err error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS}
	if !at.Patient {
		how.Resolve |= resolveCached
	}
	dir := at.Dir
	if absolute(path) {
		dir = at.Root
		how.Resolve |= unix.RESOLVE_IN_ROOT
	} else {
		// A path that stays below its directory needs no root to stop at, and
		// most do. One that climbs, or comes through an absolute link, does.
		how.Resolve |= unix.RESOLVE_BENEATH
	}
	try := func() error {
		return t.As(&who.Identity, who.Holds, func() (err error) {
			h, err = openat2(dir, path, how)
			return err
		})
	}
	err = try()
	if absolute(path) || !errors.Is(err, unix.EXDEV) {
		return h, err
	}
	if !at.Patient {
		return Handle{}, ErrBlocks
	}
	how.Resolve &^= unix.RESOLVE_BENEATH
	if err := t.In(at.Root, try); err != nil {
		h.Close()
		return Handle{}, err
	}
	return h, nil
}

// walks says whether a lookup that failed with err may succeed one component
// at a time.
func (a *Actor) walks(err error) bool {
	switch {
	case errors.Is(err, unix.EACCES):
		// Somewhere on the way the caller needs a capability that it has, but
		// not for every directory.
		return a.Override != 0
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOENT):
		// /proc/self is nobody's to us, who are not in that pid namespace, and
		// what is behind it may be a magic link.
		return true
	default:
		return false
	}
}

func absolute(path string) bool { return path != "" && path[0] == '/' }

func openat2(dir *Handle, path string, how unix.OpenHow) (Handle, error) {
	cached := how.Resolve&resolveCached != 0
	var err error
	for range lookupRetries {
		var fd int
		fd, err = unix.Openat2(dir.FD(), path, &how)
		switch {
		case err == nil:
			return NewHandle(fd), nil
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN && cached, err == unix.EINVAL && cached:
			// EINVAL: a kernel without RESOLVE_CACHED. A lookup whose flags
			// really are wrong finds that out again when it may block.
			return Handle{}, ErrBlocks
		case err == unix.EAGAIN:
			continue
		default:
			return Handle{}, &os.PathError{Op: "openat2", Path: path, Err: err}
		}
	}
	return Handle{}, &os.PathError{Op: "openat2", Path: path, Err: err}
}
