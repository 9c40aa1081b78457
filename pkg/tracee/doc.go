// Package tracee is the supervisor's view of one stopped caller: a thread that
// waits in a system call for an answer.
//
// A [Tracee] is pinned by a thread pidfd or its directory in procfs, and by a
// proof, given by whoever received the call, that the thread still waits. A
// thread that waits cannot have been reaped, so what is read by its number and
// followed by a successful proof was read from it and from nobody who got the
// number later. Accessors of memory and descriptors do that themselves;
// whoever acts does it right before, with [Tracee.StillWaiting].
//
// What the caller's memory, credentials and directory tree say may change
// under the reader's eyes: other threads of the caller run on. So each thing
// is copied once, bounded, and decided and acted upon from the copy.
//
// [Thread.As] performs an operation as the caller: with its filesystem ids,
// groups and umask, and with no capability but those named. It is the only
// place in the program that changes the credentials of a thread.
//
// Needs Linux 5.6 and CAP_SYS_PTRACE; dearer sources of identity stand in for
// what older kernels lack.
package tracee
