// A FUSE program that was taken over tries what no filesystem needs, and says
// what was not refused: with EPERM by the filter, or ENOSYS for clone3.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int bad;

static void refused(const char *what, long result, int want)
{
	if (result == -1 && errno == want)
		return;
	printf("%s: %ld, %s; ", what, result, result == -1 ? strerror(errno) : "done");
	bad = 1;
}

#define TRY(nr, ...) refused(#nr, syscall(SYS_##nr, __VA_ARGS__), EPERM)

int main(void)
{
	char space[256] = { 0 };
	int pair[2], fuse;

	TRY(ptrace, PTRACE_TRACEME, 0, 0, 0);
	TRY(process_vm_readv, 1, 0, 0, 0, 0, 0);
	TRY(process_vm_writev, 1, 0, 0, 0, 0, 0);
	TRY(pidfd_open, 1, 0);
	TRY(pidfd_getfd, 0, 0, 0);
	TRY(kcmp, 1, 1, 0, 0, 0);
	TRY(bpf, 0, space, sizeof(space));
	TRY(perf_event_open, space, 0, -1, -1, 0);
	TRY(userfaultfd, 0);
	TRY(io_uring_setup, 1, space);
	TRY(keyctl, 0, -1);
	TRY(add_key, "user", "x", "x", 1, -1);
	TRY(request_key, "user", "x", 0, -1);
	TRY(seccomp, 1, 8, space);
	TRY(unshare, CLONE_NEWUSER);
	TRY(unshare, CLONE_FILES);
	TRY(setns, 0, 0);
	TRY(clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
	TRY(clone, CLONE_NEWNET | SIGCHLD, 0, 0, 0, 0);
	refused("clone3", syscall(SYS_clone3, space, 64), ENOSYS);
	TRY(mount, "none", "/mnt", "tmpfs", 0, 0);
	TRY(umount2, "/image", 0);
	TRY(fsopen, "tmpfs", 0);
	TRY(open_tree, AT_FDCWD, "/", 1);
	TRY(move_mount, -1, "", -1, "", 0);
	TRY(mount_setattr, -1, "", 0, 0, 0);
	TRY(pivot_root, ".", ".");
	TRY(chroot, "/mnt");
	TRY(open_by_handle_at, -1, 0, 0);
	TRY(name_to_handle_at, -1, "", 0, 0, 0);
	TRY(mknodat, AT_FDCWD, "/mnt/x", S_IFBLK | 0666, 0x800);
	TRY(init_module, 0, 0, "");
	TRY(finit_module, -1, "", 0);
	TRY(kexec_load, 0, 0, 0, 0);
	TRY(reboot, 0, 0, 0, 0);
	TRY(swapon, "/image", 0);
	TRY(acct, "/image");
	TRY(quotactl, 0, 0, 0, 0);
	TRY(setuid, 0);
	TRY(setgroups, 0, 0);
	TRY(capset, 0, 0);
	TRY(sethostname, "x", 1);
	TRY(socket, AF_UNIX, SOCK_STREAM, 0);
	TRY(socket, AF_INET, SOCK_STREAM, 0);
	TRY(socket, AF_NETLINK, SOCK_RAW, 0);
	TRY(socketpair, AF_TIPC, SOCK_STREAM, 0, pair);
	TRY(connect, 0, 0, 0);
	TRY(personality, 0x40000);
	TRY(ioctl, 0, 0x5412, space);     // TIOCSTI
	TRY(ioctl, 0, 0x2285, space);     // SG_IO
	TRY(ioctl, 0, _IO('f', 6), space);
	refused("PR_CAP_AMBIENT", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 21, 0, 0), EPERM);
	refused("write /image's owner", syscall(SYS_fchmodat, AT_FDCWD, "/image", 0666), EPERM);
	refused("open /proc/self/status", open("/proc/self/status", O_RDONLY), ENOENT);
	refused("write /usr", open("/usr/x", O_CREAT | O_WRONLY, 0666), EROFS);
	refused("write /dev", open("/dev/x", O_CREAT | O_WRONLY, 0666), EROFS);
	refused("read itself", open("/program/hostile", O_RDONLY), EACCES);
	for (int fd = 4; fd < 1024; fd++)
		if (fcntl(fd, F_GETFD) != -1)
			printf("descriptor %d is open; ", fd), bad = 1;
	// What it needs does work.
	fuse = open("/dev/fuse", O_RDWR);
	if (fuse < 0 || open("/image", O_RDWR) < 0 || open("/dev/null", O_RDWR) < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		printf("not even this: %m; "), bad = 1;
	if (getuid() || getppid() != 1)
		printf("uid %d, parent %d; ", getuid(), getppid()), bad = 1;
	printf(bad ? "not as it should be" : "as it should be");
	return 0;
}
