package tracee

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	pageSize = 4096 // the smallest page of any architecture: string reads end on its edges
	// PathMax is PATH_MAX: what a path argument may have, its NUL included.
	PathMax = 4096
)

// ErrTooLong says that a string has no end within its limit.
var ErrTooLong = errors.New("string has no end within its limit")

// ReadMemory fills p from the caller's memory at addr: all of it or EFAULT.
func (t *Tracee) ReadMemory(addr uint64, p []byte) error {
	n, err := t.readv(addr, p)
	if gone := t.waiting(); gone != nil {
		return gone
	}
	if err != nil {
		return err
	}
	if n < len(p) {
		return unix.EFAULT
	}
	return nil
}

// ReadUpTo fills p from the caller's memory at addr as far as there is any, as
// the kernel copies the data of mount(2): EFAULT only if there is none at all.
func (t *Tracee) ReadUpTo(addr uint64, p []byte) (int, error) {
	total := 0
	for total < len(p) {
		step := min(int(pageSize-(addr%pageSize)), len(p)-total)
		n, err := t.readv(addr, p[total:total+step])
		if gone := t.waiting(); gone != nil {
			return 0, gone
		}
		if err != nil && err != unix.EFAULT {
			return 0, err
		}
		total += n
		if err != nil || n < step {
			break
		}
		addr += uint64(step)
	}
	if total == 0 && len(p) > 0 {
		return 0, unix.EFAULT
	}
	return total, nil
}

// ReadString reads a string of less than limit bytes that ends with a NUL. A
// string that runs into memory that is not there gives EFAULT, one without an
// end within limit bytes [ErrTooLong]; it is never cut. It reads up to the
// edge of a page at a time, as the kernel's own copy does, so that what stands
// behind the string need not be there.
func (t *Tracee) ReadString(addr uint64, limit int) (string, error) {
	var first [512]byte // most paths are found with one short read
	buf := first[:0:len(first)]
	for len(buf) < limit {
		step := min(int(pageSize-(addr%pageSize)), limit-len(buf), max(len(first), len(buf)))
		from := len(buf)
		if from+step > cap(buf) {
			buf = append(make([]byte, 0, limit), buf...)
		}
		buf = buf[:from+step]
		n, err := t.readv(addr, buf[from:])
		if gone := t.waiting(); gone != nil {
			return "", gone
		}
		if err != nil {
			return "", err
		}
		if end := bytes.IndexByte(buf[from:from+n], 0); end >= 0 {
			return string(buf[:from+end]), nil
		}
		if n < step {
			return "", unix.EFAULT
		}
		addr += uint64(step)
	}
	return "", ErrTooLong
}

// WriteMemory copies p to the caller's memory at addr: all of it or EFAULT,
// of which a part may have been written.
func (t *Tracee) WriteMemory(addr uint64, p []byte) error {
	if len(p) == 0 {
		return t.waiting()
	}
	if uint64(uintptr(addr)) != addr {
		return unix.EFAULT
	}
	// The proof stands before the write, too: a write cannot be taken back.
	if gone := t.waiting(); gone != nil {
		return gone
	}
	local := []unix.Iovec{{Base: &p[0], Len: uint64(len(p))}}
	remote := []unix.RemoteIovec{{Base: uintptr(addr), Len: len(p)}}
	n, err := unix.ProcessVMWritev(t.tid, local, remote, 0)
	if gone := t.waiting(); gone != nil {
		return gone
	}
	if err != nil {
		return memoryError("process_vm_writev", err)
	}
	if n < len(p) {
		return unix.EFAULT
	}
	return nil
}

// readv reads without proof.
func (t *Tracee) readv(addr uint64, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if uint64(uintptr(addr)) != addr {
		return 0, unix.EFAULT
	}
	local := [1]unix.Iovec{{Base: &p[0], Len: uint64(len(p))}}
	remote := [1]unix.RemoteIovec{{Base: uintptr(addr), Len: len(p)}}
	n, err := unix.ProcessVMReadv(t.tid, local[:], remote[:], 0)
	if err != nil {
		return 0, memoryError("process_vm_readv", err)
	}
	return n, nil
}

// memoryError keeps EFAULT, which is the caller's fault, apart from the rest,
// which is ours: EPERM where CAP_SYS_PTRACE is missing.
func memoryError(call string, err error) error {
	if err == unix.EFAULT {
		return unix.EFAULT
	}
	return fmt.Errorf("%s: %w", call, err)
}
