package main

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mknod makes /dev/null's twin without the runtime's book-keeping, which is no
// part of what is measured.
func mknod(path *byte) syscall.Errno {
	at := unix.AT_FDCWD
	_, _, errno := unix.RawSyscall6(unix.SYS_MKNODAT, uintptr(at), uintptr(unsafe.Pointer(path)),
		unix.S_IFCHR|0o666, uintptr(unix.Mkdev(1, 3)), 0, 0)
	return errno
}
