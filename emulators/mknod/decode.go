package mknod

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
)

// call is a mknod(2) or mknodat(2) without its pointers.
type call struct {
	dirArg  int // index of dirfd; -1 for mknod, which means AT_FDCWD
	pathArg int
	mode    uint32 // as umode_t: 16 bits
	kind    uint32 // S_IFMT part of mode
	dev     uint32
	major   uint32
	minor   uint32
}

// decode narrows the arguments as the kernel does: mode is an umode_t, dev an
// unsigned int in the encoding of new_decode_dev (linux/kdev_t.h).
func decode(req *emulators.Request) call {
	c := call{dirArg: -1, pathArg: 0}
	if req.Syscall() == "mknodat" {
		c.dirArg, c.pathArg = 0, 1
	}
	c.mode = req.Uint32(c.pathArg+1) & 0xffff
	c.kind = c.mode & unix.S_IFMT
	c.dev = req.Uint32(c.pathArg + 2)
	c.major = c.dev & 0xfff00 >> 8
	c.minor = c.dev&0xff | c.dev>>12&0xfff00
	return c
}

// device says whether the call makes a device that the kernel asks CAP_MKNOD
// for. The rest is the kernel's own business, a whiteout (c 0:0) since 5.8.
func (c *call) device() bool {
	switch c.kind {
	case unix.S_IFBLK:
		return true
	case unix.S_IFCHR:
		return c.dev != 0
	default:
		return false
	}
}

// split parts a path into the directory that the last component is looked up
// in and that component with what trails it: the kernel's own lookup judges
// ".", ".." and trailing slashes. An empty parent is where the path begins.
func split(path string) (parent, last string) {
	end := len(strings.TrimRight(path, "/"))
	cut := strings.LastIndexByte(path[:end], '/') + 1
	if end == 0 && path != "" {
		return "/", "/" // the root itself, however often it is written
	}
	return path[:cut], path[cut:]
}
