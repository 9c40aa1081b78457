package tracee

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// pin holds a thread by its directory in procfs, which is that thread's for
// ever: once the thread is dead every look through it fails (ESRCH, ENOENT),
// whoever has its number then.
type pin struct {
	tid    int // 0: nobody's
	dir    Handle
	status Handle // opened on first use
	wchan  Handle // as well
	ns     Handle // as well
	root   Handle // the root directory when it was last looked at
	rootID Stat
}

// pins are those of the last callers: a program that calls often is recognised.
// What may change, which is all but the thread itself, is read anew.
type pins struct {
	last [4]pin
	next int
}

func (p *pins) forget() {
	for i := range p.last {
		p.last[i].close()
	}
}

func (p *pin) close() {
	p.tid = 0
	p.dir.Close()
	p.status.Close()
	p.wchan.Close()
	p.ns.Close()
	p.root.Close()
}

// find returns the thread's pin, and whether it is one from before. waiting is
// the proof for a new one.
func (p *pins) find(proc *Proc, tid int, waiting func() error) (found *pin, old bool, err error) {
	if tid <= 0 { // also what marks a pin that is nobody's
		return nil, false, fmt.Errorf("thread id %d: caller is not visible in this pid namespace", tid)
	}
	for i := range p.last {
		if p.last[i].tid == tid {
			return &p.last[i], true, nil
		}
	}
	dir, err := proc.open(tid, "", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, false, err
	}
	if err := waiting(); err != nil {
		dir.Close()
		return nil, false, err
	}
	found = &p.last[p.next]
	p.next = (p.next + 1) % len(p.last)
	found.close()
	found.tid, found.dir = tid, dir
	return found, false, nil
}

// pinned looks at the caller through its pin. A pin from before may be that of
// a dead thread with the caller's number: it is made anew, once, and followed
// by a proof. After that no look needs a proof of its own: one that succeeds
// has seen a thread that was alive and had the caller's number, and whoever
// acts proves right before it that the caller has been waiting all along.
func pinned[T any](t *Tracee, look func(*pin) (T, error)) (T, error) {
	var zero T
	for {
		p, old, err := t.pins.find(t.proc, t.tid, t.waiting)
		if err != nil {
			return zero, err
		}
		got, err := look(p)
		if err == nil {
			return got, nil
		}
		p.close()
		if !old {
			return zero, err
		}
	}
}

// rootDir lends a reference to the thread's root directory. One from before is
// kept if the root is the same directory on the same mount, which takes half
// the time that a new one takes; without mount ids that are never used again
// (Linux 6.8) there is no telling.
func (p *pin) rootDir() (*Handle, error) {
	if p.root.open && p.rootID.Unique {
		now, err := statAt(p.dir.FD(), "root", follow)
		if err != nil {
			return nil, err
		}
		if now.MountID == p.rootID.MountID && now.Ino == p.rootID.Ino && now.Dev == p.rootID.Dev && now.Unique {
			return &p.root, nil
		}
	}
	p.root.Close()
	root, err := openat(p.dir.FD(), "root", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	p.root = root
	p.rootID, err = root.Stat()
	return &p.root, err
}

func (p *pin) statusFile() (*Handle, error) { return p.file(&p.status, "status", unix.O_RDONLY) }

// file opens one of the thread's files, once.
func (p *pin) file(f *Handle, name string, flags int) (*Handle, error) {
	if f.open {
		return f, nil
	}
	var err error
	*f, err = openat(p.dir.FD(), name, flags)
	return f, err
}

// asleep says whether the thread sleeps: it then has a wait channel
// (proc_pid_wchan(5)), and "0" while it runs or is about to.
func (p *pin) asleep() (bool, error) {
	f, err := p.file(&p.wchan, "wchan", unix.O_RDONLY)
	if err != nil {
		return false, err
	}
	var buf [2]byte
	n, err := unix.Pread(f.FD(), buf[:], 0)
	if err != nil {
		return false, os.NewSyscallError("pread", err)
	}
	return n > 0 && buf[0] != '0', nil
}

// taskStat parses fields 9 (flags) and 31 (signal) of proc_pid_stat(5). The
// name, field 2, may hold anything, parentheses and spaces included.
func taskStat(text []byte) (flags, pending uint64, ok bool) {
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	const first = 3 // the field that follows the name
	if len(fields) <= 31-first {
		return 0, 0, false
	}
	flags, err1 := strconv.ParseUint(string(fields[9-first]), 10, 64)
	pending, err2 := strconv.ParseUint(string(fields[31-first]), 10, 64)
	return flags, pending, err1 == nil && err2 == nil
}

var errNamespaceLink = errors.New("namespace link reads like none")

// namespace is the inode number of one of the thread's namespaces: what
// readlink(2) of ns/user or ns/mnt says (namespaces(7)), in half the time of a
// stat.
func (p *pin) namespace(name string) (uint64, error) {
	dir, err := p.file(&p.ns, "ns", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return 0, err
	}
	var buf [64]byte
	n, err := unix.Readlinkat(dir.FD(), name, buf[:])
	if err != nil {
		return 0, os.NewSyscallError("readlinkat", err)
	}
	text, ok := bytes.CutPrefix(buf[:n], []byte(name))
	text, opens := bytes.CutPrefix(text, []byte(":["))
	text, closes := bytes.CutSuffix(text, []byte("]"))
	ino, err := strconv.ParseUint(string(text), 10, 64)
	if !ok || !opens || !closes || err != nil {
		return 0, errNamespaceLink
	}
	return ino, nil
}
