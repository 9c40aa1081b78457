// What callgate fuse-server does before there is Go: setns(2) to a user
// namespace needs a process of one thread, which a Go program never is. runc
// and LXD have such a part for the same reason. nsenter(1) would do the same,
// but needs /proc in a root directory that has none, and leaves a process with
// the host's ids in the container's grasp for a moment.
//
// _CALLGATE_FUSE in the environment chooses; without it nothing happens here.
// See emulators/mount/internal/fuseserver for who sets it and why.

#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	USER_NAMESPACE = 4, // fuseserver_linux.go
	FUSE_DEVICE = 3,    // fuseserver.go: the program's descriptors
};

static void die(const char *what)
{
	dprintf(2, "callgate: fuse-server: %s: %s\n", what, strerror(errno));
	_exit(1);
}

// wait_for stays behind in the container's pid namespace, because the first
// process of a new one cannot be its maker, and passes on how that ended.
static void wait_for(pid_t child)
{
	int status;

	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			_exit(1);
	_exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

// join returns as the first process of a pid namespace in the container's user
// namespace, its root there, with all capabilities there and a mount namespace.
static void join(void)
{
	struct pollfd lifeline = { .events = 0 };
	int ends[2];
	pid_t child;

	// What the agent was started with by somebody careless. Linux 5.9.
	if (syscall(SYS_close_range, USER_NAMESPACE + 1, ~0U, 0) < 0)
		die("close_range");
	// Before the container's root has CAP_SYS_PTRACE over this process. The
	// memory belongs to the host's user namespace, so that neither this nor the
	// child can be traced from the container ever, until an execve(2).
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		die("prctl PR_SET_DUMPABLE");
	// As the host's root: the namespace may deny it.
	if (setgroups(0, NULL) < 0)
		die("setgroups");
	if (setns(USER_NAMESPACE, CLONE_NEWUSER) < 0)
		die("enter user namespace: setns");
	close(USER_NAMESPACE);
	if (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
		die("become the container's root: setresuid");
	// All that is mounted is locked in the new mount namespace, the read-only
	// flags too: mount_namespaces(7).
	if (unshare(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWPID) < 0)
		die("unshare");
	if (pipe(ends) < 0)
		die("pipe");
	child = fork();
	if (child < 0)
		die("fork");
	if (child > 0) {
		close(ends[0]);
		close(3); // the agent's: it sees the end by it
		wait_for(child);
	}
	// Not the agent's death, which is of no concern, but the waiter's, of which
	// the agent holds a pidfd. It has one thread.
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		die("prctl PR_SET_PDEATHSIG");
	close(ends[1]);
	lifeline.fd = ends[0];
	if (poll(&lifeline, 1, 0) != 0)
		_exit(1); // it was faster
	close(ends[0]);
}

// hand_over is fusermount: libfuse has a socket for the open /dev/fuse, number
// in _FUSE_COMMFD. The program got the device with the descriptors it started
// with. With no socket it is fusermount -u, and there is nothing to unmount.
static void hand_over(void)
{
	const char *number = getenv("_FUSE_COMMFD");
	int device = FUSE_DEVICE;
	char byte = 0;
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = sizeof(control.space),
	};
	struct cmsghdr *head = CMSG_FIRSTHDR(&msg);

	if (!number)
		_exit(0);
	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(head), &device, sizeof(device));
	if (sendmsg(atoi(number), &msg, 0) < 0)
		die("hand over /dev/fuse: sendmsg");
	_exit(0);
}

__attribute__((constructor)) static void before_go(void)
{
	const char *what = getenv("_CALLGATE_FUSE");

	if (!what)
		return;
	if (!strcmp(what, "join"))
		join();
	else if (!strcmp(what, "mount"))
		hand_over();
	unsetenv("_CALLGATE_FUSE");
}
