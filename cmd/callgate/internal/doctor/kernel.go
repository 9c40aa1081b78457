package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/hooks/filter"
	"github.com/callgate/callgate/pkg/pidfd"
	"github.com/callgate/callgate/pkg/seccompnotify"
	"github.com/callgate/callgate/pkg/tracee"
)

func kernelProbes() []probe {
	return []probe{
		{id: "kernel", title: "kernel release", try: release},
		{
			id: "procfs", title: "procfs of this pid namespace on /proc", required: true, try: procfs,
			cost: "no caller can be identified",
		},
		{
			id: "seccomp.notify", title: "seccomp user notification (5.0)", required: true, try: notification,
			cost: "no call can be intercepted",
		},
		{
			id: "seccomp.wait_killable", title: "seccomp WAIT_KILLABLE_RECV (5.19)", try: waitKillable,
			cost: "a signal to a waiting caller repeats its call; what was done is undone first",
		},
		{
			id: "seccomp.sync_wake_up", title: "seccomp SYNC_WAKE_UP (6.6)", try: syncWakeUp,
			cost: "a call costs up to ten times as much (DESIGN: 44 µs instead of 4.7 µs)",
		},
		{
			id: "seccomp.addfd_send", title: "seccomp ADDFD with SEND (5.14)", try: addFDSend,
			cost: "a descriptor is given in two steps; mknod gives none",
		},
		{
			id: "pidfd.thread", title: "pidfds of threads (6.9)", try: threadPidfd,
			cost: "threads are pinned by their process; what a thread has of its own is refused",
		},
		{
			id: "pidfd.get_info", title: "PIDFD_GET_INFO (6.13)", try: pidfdInfo,
			cost: "credentials by pidfd are read from /proc, ten times as slow",
		},
		{
			id: "pidfd.namespaces", title: "namespaces by pidfd (6.11)", try: pidfdNamespaces,
			cost: "namespaces are opened below /proc/PID/ns, some µs a call",
		},
		{
			id: "openat2", title: "openat2 (5.6)", required: true, try: openat2,
			cost: "no path can be resolved safely",
		},
		{
			id: "openat2.cached", title: "openat2 RESOLVE_CACHED (5.12)", try: resolveCached,
			cost: "every path is looked up on a worker thread, some tens of µs a call",
		},
		{
			id: "kcmp", title: "kcmp", try: kcmp,
			cost: "a listener that is registered twice is not noticed; without thread pidfds, threads are refused",
		},
	}
}

func release(context.Context) finding {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return unsure(os.NewSyscallError("uname", err))
	}
	return yes(unix.ByteSliceToString(uts.Release[:]) + " " + unix.ByteSliceToString(uts.Machine[:]))
}

func procfs(context.Context) finding {
	proc, err := tracee.OpenProc()
	if err != nil {
		return no(err.Error())
	}
	proc.Close()
	return yes("")
}

func notification(context.Context) finding {
	if err := seccompnotify.Usable(); err != nil {
		if errors.Is(err, unix.EPERM) {
			return unsure(err) // filtered, as in a container
		}
		return no(err.Error())
	}
	return yes("")
}

func waitKillable(context.Context) finding {
	has, err := seccompnotify.HasFilterFlag(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
	switch {
	case err != nil:
		return unsure(err)
	case !has:
		return no("")
	}
	return yes("")
}

func syncWakeUp(context.Context) finding {
	return withListener(func(l *seccompnotify.Listener) error {
		return l.SetFlags(seccompnotify.SyncWakeUp)
	})
}

// addFDSend answers a call that there is not: the kernel judges the flags
// first.
func addFDSend(context.Context) finding {
	return withListener(func(l *seccompnotify.Listener) error {
		_, err := l.AddFD(0, seccompnotify.AddFDSend, l.FD(), 0, 0)
		if errors.Is(err, seccompnotify.ErrGone) {
			return nil
		}
		return err
	})
}

// withListener asks a listener of a filter that stops nothing.
func withListener(ask func(*seccompnotify.Listener) error) finding {
	var f finding
	onThread(func() { f = askListener(ask) })
	return f
}

func askListener(ask func(*seccompnotify.Listener) error) finding {
	// A filter takes either CAP_SYS_ADMIN or this, which is the thread's.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return unsure(os.NewSyscallError("prctl PR_SET_NO_NEW_PRIVS", err))
	}
	allow := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}}
	fd, err := filter.Load(allow, 0)
	if err != nil {
		return unsure(err) // EBUSY: this process is itself in a container that has a listener
	}
	l, err := seccompnotify.NewListener(fd)
	if err != nil {
		return unsure(err)
	}
	defer func() { _ = l.Close() }()
	return tell(ask(l), unix.EINVAL, unix.ENOTTY)
}

func threadPidfd(context.Context) finding {
	var f finding
	onThread(func() {
		fd, err := pidfd.OpenThread(unix.Gettid())
		if err != nil {
			f = unsure(err)
			return
		}
		defer func() { _ = fd.Close() }()
		f = no("")
		if fd.IsThread() {
			f = yes("")
		}
	})
	return f
}

func pidfdInfo(context.Context) finding {
	fd, err := pidfd.Open(os.Getpid())
	if err != nil {
		return unsure(err)
	}
	defer func() { _ = fd.Close() }()
	info, err := fd.Info()
	switch {
	case err != nil:
		return unsure(err)
	case !info.HasCgroup: // only the ioctl knows it
		return no("")
	}
	return yes("")
}

func pidfdNamespaces(context.Context) finding {
	// PIDFD_GET_USER_NAMESPACE of linux/pidfd.h: _IO(0xFF, 9). Package pidfd
	// does not tell which road it took.
	const getUserNamespace = unix.NS_GET_USERNS&^0xffff | 0xff09
	fd, err := pidfd.Open(os.Getpid())
	if err != nil {
		return unsure(err)
	}
	defer func() { _ = fd.Close() }()
	ns, err := unix.IoctlRetInt(fd.Fd(), getUserNamespace)
	if err != nil {
		return tell(os.NewSyscallError("ioctl", err), unix.ENOTTY, unix.EINVAL)
	}
	_ = unix.Close(ns)
	return yes("")
}

func openat2(context.Context) finding {
	return tell(openRoot(0), unix.ENOSYS)
}

func resolveCached(context.Context) finding {
	const resolveCached = 0x20 // RESOLVE_CACHED, linux/openat2.h
	err := openRoot(resolveCached)
	if errors.Is(err, unix.EAGAIN) {
		return yes("") // known, and / not in the cache
	}
	return tell(err, unix.EINVAL, unix.ENOSYS)
}

func openRoot(resolve uint64) error {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: resolve}
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &how)
	if err != nil {
		return &os.PathError{Op: "openat2", Path: "/", Err: err}
	}
	_ = unix.Close(fd)
	return nil
}

func kcmp(context.Context) finding {
	const kcmpFiles = 2 // KCMP_FILES, linux/kcmp.h
	pid := uintptr(os.Getpid())
	r, _, errno := unix.RawSyscall6(unix.SYS_KCMP, pid, pid, kcmpFiles, 0, 0, 0)
	if errno != 0 {
		return tell(os.NewSyscallError("kcmp", errno), unix.ENOSYS)
	}
	if r != 0 {
		return unsure(fmt.Errorf("kcmp: a process differs from itself (%d)", r))
	}
	return yes("")
}
