// Package agent is callgate's agent as a library: it takes seccomp listeners
// from OCI runtimes on a socket, or from the program that embeds it, and
// carries out the calls that are stopped there, by policy.
//
//	err := agent.New(agent.Config{}).Serve(ctx)
//
// serves until ctx is done. It needs root, or at least CAP_SYS_PTRACE,
// CAP_SYS_ADMIN, CAP_SYS_CHROOT, CAP_SETUID, CAP_SETGID and what the emulators
// use.
package agent
