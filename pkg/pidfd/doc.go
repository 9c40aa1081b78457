// Package pidfd holds on to Linux processes and threads by descriptor, and asks
// and acts through that descriptor instead of through a number.
//
// A pid names nobody: it is free for reuse the moment its owner is reaped, and
// whoever can make processes die and start can choose who has it next. A pidfd
// pins one process, or since Linux 6.9 one thread. Once that one is gone every
// method of [FD] says so (ESRCH); none is ever redirected to the next owner of
// the number. What must be read by number on older kernels, under /proc, is
// believed only after the pidfd has shown that the number had not been freed.
//
//	f, err := pidfd.OpenThread(tid)
//	if err != nil {
//		return err
//	}
//	defer f.Close()
//	info, err := f.Info() // credentials, below a microsecond
//	fd, err := f.GetFD(3) // a duplicate of the thread's descriptor 3
//
// The number-to-pidfd step itself cannot be made safe here: whoever calls
// [Open] or [OpenThread] has to know afterwards, from another source, that the
// number still meant the one intended. For a child that has not been waited for
// this is certain; for a seccomp notification, check its id after opening.
//
// # Processes and threads
//
// [Open] refers to a process: signals go to the process, and it has exited when
// its last thread has. What belongs to a single task (descriptor table,
// credentials, namespaces) is that of the thread group leader, whose tid is the
// pid. Any thread can have others of its own: a descriptor table by
// unshare(CLONE_FILES), namespaces by setns(2), credentials by raw system
// calls. [OpenThread] refers to exactly one thread in all of these, where the
// kernel can do it; see [FD.IsThread] for where it cannot.
//
// A pidfd follows the number through execve(2): when a thread other than the
// leader executes a program, it takes over the leader's tid, and a thread pidfd
// on the leader then refers to it. The thread's own tid is gone.
//
// # Gone, exited, and zombies
//
// A process that has exited stays as a zombie until its parent waits for it.
// [FD.Alive] and [FD.Wait] speak about exit: a zombie is not alive. [FD.Info]
// and [FD.SendSignal] go on until it is reaped, since a zombie still has ids and
// credentials; after that they fail with ESRCH. A zombie has neither descriptors
// nor namespaces: [FD.GetFD] and [FD.Namespace] fail with ESRCH. They do so, too,
// for a process that lives on in other threads after its leader has exited.
//
// # Requirements
//
// Linux 5.6. Features of later releases are tried, not inferred from version
// numbers, and replaced where they are missing:
//
//	pidfd_open(2), poll         5.3
//	pidfd_getfd(2)              5.6   required by GetFD, no replacement
//	PIDFD_THREAD                6.9   else OpenThread refers to the process
//	PIDFD_GET_*_NAMESPACE       6.11  else /proc/PID/ns
//	PIDFD_GET_INFO              6.13  else /proc/PID/status
//
// The replacements need a procfs on /proc which belongs to the PID namespace of
// the calling process.
//
// Opening a pidfd, Info, Alive and Wait need no privilege (except that a /proc
// mounted with hidepid may hide what the replacement wants to read). GetFD needs
// PTRACE_MODE_ATTACH_REALCREDS over the target, Namespace needs
// PTRACE_MODE_READ_FSCREDS, see ptrace(2); for targets of other users both mean
// CAP_SYS_PTRACE in the target's user namespace. SendSignal follows kill(2).
//
// # Concurrency and ownership
//
// An FD may be used by many goroutines at once. Close may come at any time:
// calls in flight finish on the descriptor that they began with, which is closed
// with the last of them, so its number is never reused under a running call.
// Methods begun after Close return [os.ErrClosed].
//
// Every descriptor is opened close-on-exec. Those returned by GetFD and
// Namespace belong to the caller. An FD has no finalizer: one that is dropped
// without Close leaks its descriptor.
//
// Errors are *os.SyscallError, *os.PathError, os.ErrClosed or, from Wait, the
// context's; errors.Is finds the errno in the first two.
package pidfd
