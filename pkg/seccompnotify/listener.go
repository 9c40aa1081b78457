package seccompnotify

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrGone says that the notification is no longer valid: its caller was
// killed, or a signal took it out of the wait. Nobody is left to answer.
var ErrGone = errors.New("caller no longer waits")

// ErrNotListener says that a descriptor is not a seccomp listener.
var ErrNotListener = errors.New("not a seccomp listener")

// Listener owns the listener descriptor of one filter. Its methods may be
// called concurrently; Close waits for those that run, so it must not be
// called while a Receive may block.
type Listener struct {
	mu sync.RWMutex // guards fd against Close
	fd int
}

// NewListener takes ownership of fd, also when it fails, and makes sure that
// it is a listener. Needs a procfs on /proc.
func NewListener(fd int) (*Listener, error) {
	unix.CloseOnExec(fd)
	l := &Listener{fd: fd}
	if l.genuine() {
		return l, nil
	}
	_ = unix.Close(fd)
	return nil, fmt.Errorf("descriptor %d: %w", fd, ErrNotListener)
}

// genuine asks the name that the kernel gave the file before it asks the file:
// an ioctl on a file of a FUSE filesystem is answered by a program, as it
// likes and when it likes. No path can look like that name. Then
// SECCOMP_IOCTL_NOTIF_ID_VALID of an id that no call ever had gives ENOENT.
func (l *Listener) genuine() bool {
	name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(l.fd))
	if err != nil || name != "anon_inode:seccomp notify" {
		return false
	}
	err = l.Valid(0)
	return err == nil || errors.Is(err, ErrGone)
}

// FD borrows the descriptor, for epoll. It is -1 after Close.
func (l *Listener) FD() int {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.fd
}

// Close gives the descriptor back. When the last holder of a listener closes
// it, every call that waits or comes later fails with ENOSYS.
func (l *Listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fd < 0 {
		return os.ErrClosed
	}
	fd := l.fd
	l.fd = -1
	return os.NewSyscallError("close", unix.Close(fd))
}

// ioctl runs one request. Those that never sleep go without the scheduler's
// book-keeping: on this path it costs as much as the call.
func (l *Listener) ioctl(name string, request uintptr, arg unsafe.Pointer, sleeps bool) (int, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.fd < 0 {
		return 0, os.ErrClosed
	}
	for {
		var r uintptr
		var errno syscall.Errno
		if sleeps {
			r, _, errno = unix.Syscall(unix.SYS_IOCTL, uintptr(l.fd), request, uintptr(arg))
		} else {
			r, _, errno = unix.RawSyscall(unix.SYS_IOCTL, uintptr(l.fd), request, uintptr(arg))
		}
		runtime.KeepAlive(arg)
		switch errno {
		case 0:
			return int(r), nil
		case unix.EINTR:
			continue
		case unix.ENOENT:
			return 0, ErrGone
		default:
			return 0, os.NewSyscallError(name, errno)
		}
	}
}

// Receive waits for a call and describes it in n. [ErrGone] means that the
// caller died between the wake-up and now, or, since Linux 6.11, that the
// filter lost its last user: it is not the end of the listener, POLLHUP is.
func (l *Listener) Receive(n *Notification) error {
	*n = Notification{} // the kernel refuses a buffer that is not zero
	_, err := l.ioctl("ioctl SECCOMP_IOCTL_NOTIF_RECV", unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(n), true)
	return err
}

// Valid returns nil while the caller of the notification waits, [ErrGone]
// afterwards. It is the only proof that what was read by the caller's thread
// id was read from the caller.
func (l *Listener) Valid(id uint64) error {
	_, err := l.ioctl("ioctl SECCOMP_IOCTL_NOTIF_ID_VALID", unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&id), false)
	return err
}

// Return answers with a value.
func (l *Listener) Return(id uint64, val int64) error {
	return l.send(&response{id: id, val: val})
}

// Fail answers with an errno. One that is none (0, or above 4095) would reach
// the caller as a success; it becomes EPERM.
func (l *Listener) Fail(id uint64, errno syscall.Errno) error {
	const maxErrno = 4095 // MAX_ERRNO of linux/err.h
	if errno == 0 || errno > maxErrno {
		errno = unix.EPERM
	}
	return l.send(&response{id: id, errno: -int32(errno)})
}

// Continue lets the kernel run the call as if it had not been intercepted. It
// reads the caller's memory again: nothing that was found there binds it.
// Linux 5.5.
func (l *Listener) Continue(id uint64) error {
	return l.send(&response{id: id, flags: flagContinue})
}

// send never sleeps for longer than the filter's own mutex is held.
func (l *Listener) send(r *response) error {
	_, err := l.ioctl("ioctl SECCOMP_IOCTL_NOTIF_SEND", unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(r), false)
	return err
}

// AddFD puts a copy of srcfd, which it borrows, into the caller's descriptor
// table and returns the number there. With [AddFDSet] that number is newfd,
// otherwise newfd must be 0 and the lowest free one is taken. newfdFlags is 0
// or O_CLOEXEC. It sleeps until the caller has taken the descriptor.
// Linux 5.9.
func (l *Listener) AddFD(id uint64, flags AddFDFlags, srcfd, newfd int, newfdFlags uint32) (int, error) {
	a := &addfd{id: id, flags: uint32(flags), srcfd: uint32(srcfd), newfd: uint32(newfd), newfdFlags: newfdFlags}
	restore, err := blockSignals()
	if err != nil {
		return 0, err
	}
	defer restore()
	return l.ioctl("ioctl SECCOMP_IOCTL_NOTIF_ADDFD", unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(a), true)
}

// blockSignals keeps signals, of which the Go runtime sends itself plenty, from
// the calling thread until restore. One that wakes SECCOMP_IOCTL_NOTIF_ADDFD
// takes the request back, but with SECCOMP_ADDFD_FLAG_SEND the call counts as
// answered by then: the caller gets 0 and no descriptor (seccomp_notify_addfd
// of kernel/seccomp.c).
func blockSignals() (restore func(), err error) {
	runtime.LockOSThread()
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		runtime.UnlockOSThread()
		return nil, os.NewSyscallError("rt_sigprocmask", err)
	}
	return func() {
		_ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil) // it was in force before
		runtime.UnlockOSThread()
	}, nil
}

// SetFlags sets the listener's flags: 0 or [SyncWakeUp]. EINVAL where the
// kernel does not know the flag, EINVAL or ENOTTY where it does not know the
// request (before Linux 6.6): try it and go on without.
func (l *Listener) SetFlags(flags uint64) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.fd < 0 {
		return os.ErrClosed
	}
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(l.fd), unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS, uintptr(flags))
	if errno != 0 {
		return os.NewSyscallError("ioctl SECCOMP_IOCTL_NOTIF_SET_FLAGS", errno)
	}
	return nil
}
