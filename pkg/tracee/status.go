package tracee

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// maxStatus bounds /proc/TID/status: 65,536 groups of eleven characters.
const maxStatus = 1 << 20

// Capabilities is a set of CAP_* numbers.
type Capabilities uint64

// Capability makes a set of one.
func Capability(c int) Capabilities { return 1 << c }

// Has says whether the set holds CAP_* number c.
func (s Capabilities) Has(c int) bool { return s&Capability(c) != 0 }

// Status is the part of /proc/TID/status that decides what a thread may do.
// Ids are the supervisor's user namespace's.
type Status struct {
	TGID, PPID   int
	UID, GID     uint32 // real
	EUID, EGID   uint32
	FSUID, FSGID uint32
	Groups       []uint32
	Umask        uint32
	// Effective is relative to the thread's user namespace: without that
	// namespace it says nothing.
	Effective Capabilities
	// Catches is the set of signals, from bit 0 for signal 1, that the thread
	// has handlers for.
	Catches uint64
	// Level is how many pid namespaces below the supervisor's the thread is,
	// and InnerTGID its process's number in its own: 1 for an init.
	Level     int
	InnerTGID int
}

var errStatusShort = errors.New("status lacks a line that this program needs")

// parse reads the text of proc_pid_status(5). It reuses s.Groups.
func (s *Status) parse(text []byte) error {
	*s = Status{Groups: s.Groups[:0]}
	const all = 1<<8 - 1
	seen := 0
	for len(text) > 0 && seen != all {
		line := text
		if end := bytes.IndexByte(text, '\n'); end >= 0 {
			line, text = text[:end], text[end+1:]
		} else {
			text = nil
		}
		colon := bytes.IndexByte(line, ':')
		if colon < 0 {
			continue
		}
		value := line[colon+1:]
		var err error
		switch string(line[:colon]) {
		case "Umask":
			seen |= 1 << 0
			s.Umask, err = number(value, 8)
		case "Tgid":
			seen |= 1 << 1
			var n uint32
			n, err = number(value, 10)
			s.TGID = int(n)
		case "PPid":
			seen |= 1 << 6
			var n uint32
			n, err = number(value, 10)
			s.PPID = int(n)
		case "Uid":
			seen |= 1 << 2
			var ids [4]uint32
			ids, err = fourIDs(value)
			s.UID, s.EUID, s.FSUID = ids[0], ids[1], ids[3]
		case "Gid":
			seen |= 1 << 3
			var ids [4]uint32
			ids, err = fourIDs(value)
			s.GID, s.EGID, s.FSGID = ids[0], ids[1], ids[3]
		case "Groups":
			seen |= 1 << 4
			s.Groups, err = idList(s.Groups, value)
		case "NStgid": // absent without CONFIG_PID_NS
			fields := bytes.Fields(value)
			if len(fields) > 0 {
				var n uint32
				n, err = number(fields[len(fields)-1], 10)
				s.Level, s.InnerTGID = len(fields)-1, int(n)
			}
		case "SigCgt":
			seen |= 1 << 7
			s.Catches, err = strconv.ParseUint(string(bytes.TrimSpace(value)), 16, 64)
		case "CapEff":
			seen |= 1 << 5
			var caps uint64
			caps, err = strconv.ParseUint(string(bytes.TrimSpace(value)), 16, 64)
			s.Effective = Capabilities(caps)
		}
		if err != nil {
			return fmt.Errorf("parse %q: %w", line, err)
		}
	}
	if seen != all {
		return errStatusShort
	}
	return nil
}

func number(text []byte, base int) (uint32, error) {
	n, err := strconv.ParseUint(string(bytes.TrimSpace(text)), base, 32)
	return uint32(n), err
}

// fourIDs parses the real, effective, saved and filesystem id.
func fourIDs(text []byte) (ids [4]uint32, err error) {
	var room [4]uint32
	list, err := idList(room[:0], text)
	if err == nil && len(list) != 4 {
		err = fmt.Errorf("want 4 ids, have %d", len(list))
	}
	copy(ids[:], list)
	return ids, err
}

func idList(list []uint32, text []byte) ([]uint32, error) {
	for i := 0; i < len(text); {
		if text[i] == ' ' || text[i] == '\t' {
			i++
			continue
		}
		var n uint64
		start := i
		for ; i < len(text) && text[i] >= '0' && text[i] <= '9'; i++ {
			n = n*10 + uint64(text[i]-'0')
			if n > 1<<32-1 {
				return list, strconv.ErrRange
			}
		}
		if i == start {
			return list, strconv.ErrSyntax
		}
		list = append(list, uint32(n))
	}
	return list, nil
}
