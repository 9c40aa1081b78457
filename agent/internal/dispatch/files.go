package dispatch

import (
	"errors"
	"os"
	"slices"
	"sort"

	"golang.org/x/sys/unix"
)

// ErrTwice says that a listener is being served already. Two that receive from
// one would take each other's calls, and block.
var ErrTwice = errors.New("listener is registered already")

// files keeps the sessions in the kernel's order of their open file
// descriptions (kcmp(2)), in which a second descriptor of one is found in a
// dozen steps among thousands.
type files []*session

// add inserts s or returns ErrTwice.
func (f *files) add(s *session) error {
	var failed error
	at := sort.Search(len(*f), func(i int) bool {
		order, err := compareFiles((*f)[i].listener.FD(), s.listener.FD())
		if err != nil {
			failed = err
		}
		return order >= 0
	})
	if failed != nil {
		if errors.Is(failed, unix.ENOSYS) {
			return nil // a kernel without CONFIG_KCMP
		}
		return failed
	}
	if at < len(*f) {
		if order, _ := compareFiles((*f)[at].listener.FD(), s.listener.FD()); order == 0 {
			return ErrTwice
		}
	}
	*f = slices.Insert(*f, at, s)
	return nil
}

func (f *files) remove(s *session) {
	if at := slices.Index(*f, s); at >= 0 {
		*f = slices.Delete(*f, at, at+1)
	}
}

// compareFiles is -1, 0 or 1: where a's open file description is relative to
// b's in an order of the kernel's own.
func compareFiles(a, b int) (int, error) {
	const kcmpFile = 0 // KCMP_FILE, linux/kcmp.h
	pid := uintptr(os.Getpid())
	r, _, errno := unix.RawSyscall6(unix.SYS_KCMP, pid, pid, kcmpFile, uintptr(a), uintptr(b), 0)
	if errno != 0 {
		return 0, os.NewSyscallError("kcmp", errno)
	}
	switch r {
	case 0:
		return 0, nil
	case 1:
		return -1, nil
	default:
		return 1, nil
	}
}
