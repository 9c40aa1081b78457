// Package seccompnotify receives and answers seccomp user notifications: the
// kernel's ioctls on a listener descriptor and nothing else. It knows no
// containers, no policy and no libseccomp.
//
// A supervisor that wants no lost time waits for the listener with epoll,
// calls [Listener.Receive] when it is readable, and answers from the same
// thread with [Listener.Send] or [Listener.AddFD]. Receive ignores O_NONBLOCK
// and blocks where nobody waits; closing a descriptor does not wake it.
//
// Needs Linux 5.0 (5.9 for AddFD, 5.14 for [AddFDSend], 6.6 for
// [SyncWakeUp]). Described in seccomp_unotify(2).
package seccompnotify
