//go:build linux

package pidfd

import (
	"bytes"
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// statusSize bounds what is read of /proc/PID/status. All that is wanted comes
// within the first few hundred bytes; the list of groups, after it, can be long.
const statusSize = 4096

var errStatus = errors.New("unexpected format")

// procPath is the path of a file of the process or thread pid. Threads that are
// not listed in /proc can be looked up there all the same.
func (k *kernel) procPath(pid int, name string) string {
	return k.procfs + "/" + strconv.Itoa(pid) + "/" + name
}

// openProc opens path for reading. It returns a bare errno.
func openProc(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// exists tells "no such process" from "no procfs": the link self is there in
// any procfs that belongs to our PID namespace.
func (k *kernel) exists(name string) bool {
	var st unix.Stat_t
	return unix.Lstat(k.procfs+name, &st) == nil
}

// readStatus reads /proc/PID/status. The numbers are as seen from the PID
// namespace of the procfs and from our user namespace. It is up to the caller
// to find out whose status it was.
func (k *kernel) readStatus(pid int) (Info, error) {
	path := k.procPath(pid, "status")
	fd, err := openProc(path)
	if err == unix.ENOENT && k.exists("/self") {
		err = unix.ESRCH
	}
	if err != nil {
		return Info{}, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)

	var buf [statusSize]byte
	n := 0
	for n < len(buf) {
		m, err := unix.Read(fd, buf[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil { // ESRCH if it is gone since the open
			return Info{}, &os.PathError{Op: "read", Path: path, Err: err}
		}
		if m == 0 {
			break
		}
		n += m
	}
	info, err := parseStatus(buf[:n])
	if err != nil {
		return Info{}, &os.PathError{Op: "parse", Path: path, Err: err}
	}
	return info, nil
}

// parseStatus takes the ids out of the text of a /proc/PID/status, see
// proc_pid_status(5). The process chooses its Name, but the kernel escapes
// newlines in it, so it cannot forge a line; a line that comes twice is refused
// nevertheless.
func parseStatus(text []byte) (Info, error) {
	var info Info
	fields := []struct {
		key   string
		value []*uint32
	}{
		{"Tgid", []*uint32{&info.TGID}},
		{"Pid", []*uint32{&info.PID}},
		{"PPid", []*uint32{&info.PPID}},
		{"Uid", []*uint32{&info.RUID, &info.EUID, &info.SUID, &info.FSUID}},
		{"Gid", []*uint32{&info.RGID, &info.EGID, &info.SGID, &info.FSGID}},
	}
	var seen int
	for len(text) > 0 {
		line, rest, complete := bytes.Cut(text, []byte{'\n'})
		text = rest
		key, value, ok := bytes.Cut(line, []byte{':'})
		if !ok {
			continue
		}
		for i, f := range fields {
			if string(key) != f.key {
				continue
			}
			if !complete || seen&(1<<i) != 0 || !parseNumbers(value, f.value) {
				return Info{}, errStatus
			}
			seen |= 1 << i
		}
	}
	if seen != 1<<len(fields)-1 || info.PID == 0 || info.TGID == 0 {
		return Info{}, errStatus
	}
	return info, nil
}

func parseNumbers(text []byte, out []*uint32) bool {
	words := bytes.Fields(text)
	if len(words) != len(out) {
		return false
	}
	for i, w := range words {
		n, err := strconv.ParseUint(string(w), 10, 32)
		if err != nil {
			return false
		}
		*out[i] = uint32(n)
	}
	return true
}
