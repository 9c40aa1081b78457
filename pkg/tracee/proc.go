package tracee

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Proc is the supervisor's own procfs, held by descriptor so that nothing
// mounted over it later is ever read.
type Proc struct {
	dir  Handle
	nsfs uint64 // device number of the namespaces' own filesystem
}

// OpenProc opens /proc and makes sure that it is a procfs of this process's
// pid namespace: the thread ids of notifications are numbers of that one.
func OpenProc() (*Proc, error) {
	dir, err := openat(unix.AT_FDCWD, "/proc", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, fmt.Errorf("open /proc: %w", err)
	}
	p := &Proc{dir: dir}
	if err := p.check(); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (p *Proc) check() error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(p.dir.FD(), &fs); err != nil {
		return fmt.Errorf("statfs /proc: %w", err)
	}
	if fs.Type != unix.PROC_SUPER_MAGIC {
		return fmt.Errorf("/proc is not a procfs (type %#x)", fs.Type)
	}
	var buf [32]byte
	n, err := unix.Readlinkat(p.dir.FD(), "self", buf[:])
	if err != nil {
		return fmt.Errorf("readlink /proc/self: %w", err)
	}
	var ns unix.Stat_t
	if err := unix.Fstatat(p.dir.FD(), "self/ns/user", &ns, 0); err != nil {
		return fmt.Errorf("stat /proc/self/ns/user: %w", err)
	}
	p.nsfs = ns.Dev
	if got := string(buf[:n]); got != strconv.Itoa(os.Getpid()) {
		return fmt.Errorf("/proc belongs to another pid namespace: this is process %d, /proc/self is %s", os.Getpid(), got)
	}
	return nil
}

// Close gives the descriptor back; no Tracee of this Proc may be used after.
func (p *Proc) Close() { p.dir.Close() }

// open opens /proc/TID/name.
func (p *Proc) open(tid int, name string, flags int) (Handle, error) {
	return openat(p.dir.FD(), strconv.Itoa(tid)+"/"+name, flags)
}

// read reads /proc/TID/name whole into buf, growing it up to limit bytes.
func (p *Proc) read(tid int, name string, buf []byte, limit int) ([]byte, error) {
	f, err := p.open(tid, name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := f.readAll(buf, limit)
	if err != nil {
		return nil, fmt.Errorf("read /proc/%d/%s: %w", tid, name, err)
	}
	return text, nil
}

// readAll reads a file from its beginning into buf, growing it up to limit
// bytes. A read that did not fill what it was given was the last: so it is in
// procfs, and saves one.
func (h *Handle) readAll(buf []byte, limit int) ([]byte, error) {
	buf = buf[:cap(buf)]
	for have := 0; ; {
		if have == len(buf) {
			if have >= limit {
				return nil, fmt.Errorf("more than %d bytes", limit)
			}
			buf = append(buf, make([]byte, max(len(buf), 1024))...)
		}
		n, err := unix.Pread(h.FD(), buf[have:], int64(have))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, os.NewSyscallError("pread", err)
		case n == 0:
			return buf[:have], nil
		default:
			have += n
		}
	}
}

// Status reads the status of any process or thread, by a number that proves
// nothing: it is for finding one's way, not for granting anything.
func (p *Proc) Status(pid int) (Status, error) {
	text, err := p.read(pid, "status", make([]byte, 0, 4096), maxStatus)
	if err != nil {
		return Status{}, err
	}
	var s Status
	err = s.parse(text)
	return s, err
}
