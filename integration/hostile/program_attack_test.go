package hostile

// program is the attacker: a static C program, one sub-command an attack. It
// prints a line that begins with BAD for each thing that it gained.
const program = `#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/fuse.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NULLDEV makedev(1, 3)
static int bad;
#define FAIL(...) do { bad = 1; printf("BAD "); printf(__VA_ARGS__); printf(" (%s)\n", strerror(errno)); fflush(stdout); } while (0)
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }
static int node(const char *p) { return mknod(p, S_IFCHR | 0666, NULLDEV); }
static int cmp(const void *a, const void *b) { double x = *(double *)a, y = *(double *)b; return x < y ? -1 : x > y; }

/* latency of an honest caller for some seconds: p50 p99 max in microseconds */
static void lat(double secs, int pause) {
	static double v[1 << 20]; int n = 0; double end = now() + secs;
	while (now() < end && n < 1 << 20) {
		double t = now();
		if (node("/tmp/lat")) FAIL("mknod of the neighbour");
		v[n++] = now() - t;
		unlink("/tmp/lat");
		if (pause) usleep(pause);
	}
	qsort(v, n, sizeof *v, cmp);
	printf("LAT %d %.0f %.0f %.0f\n", n, v[n / 2] * 1e6, v[n * 99 / 100] * 1e6, v[n - 1] * 1e6);
	fflush(stdout);
}

/* 65536 supplementary groups make each look at the caller's status dear */
static void *groupsThread(void *arg) {
	static gid_t g[2][65536];
	int k = (long)arg;
	for (int i = 0; i < 65536; i++) g[k & 1][i] = (i * 7 + k) % 65536;
	if (syscall(SYS_setgroups, 65536, g[k & 1])) FAIL("setgroups");
	char p[64]; sprintf(p, "/tmp/g%d", k);
	for (int i = 0;; i++) {
		double t = now();
		int r = node(p);
		if (i < 3) { printf("groups: ret %d took %.0f us\n", r, (now() - t) * 1e6); fflush(stdout); }
		unlink(p);
	}
}
static void groups(int threads) {
	for (long i = 0; i < threads; i++) { pthread_t t; pthread_create(&t, 0, groupsThread, (void *)i); }
	for (;;) pause();
}

/* ---- FUSE that answers what it likes ---- */
static int fuseFD, fuseMute; static useconds_t fuseDelay; static unsigned fuseRdev;
static void reply(uint64_t unique, int err, void *data, size_t n) {
	struct fuse_out_header h = { .len = sizeof h + n, .error = err, .unique = unique };
	struct iovec v[2] = { { &h, sizeof h }, { data, n } };
	if (writev(fuseFD, v, n ? 2 : 1) < 0 && errno != ENOENT) perror("fuse reply");
}
static void attr(struct fuse_attr *a, uint64_t ino) {
	memset(a, 0, sizeof *a);
	a->ino = ino; a->nlink = 1;
	a->mode = ino == 1 ? S_IFDIR | 0777 : ino == 3 ? S_IFBLK | 0666 : S_IFREG | 0666;
	if (ino == 3) a->rdev = fuseRdev;
	a->size = 1 << 30; a->blksize = 4096;
}
static void fuseServe(void) {
	static char buf[1 << 20]; static char page[1 << 20];
	for (;;) {
		ssize_t n = read(fuseFD, buf, sizeof buf);
		if (n < 0) { if (errno == EINTR || errno == ENOENT) continue; _exit(0); }
		struct fuse_in_header *h = (void *)buf;
		switch (h->opcode) {
		case FUSE_INIT: {
			struct fuse_init_out o = { .major = 7, .minor = 31, .max_write = 65536, .max_readahead = 0 };
			reply(h->unique, 0, &o, sizeof o); break;
		}
		case FUSE_LOOKUP: {
			struct fuse_entry_out o = { .nodeid = 2, .attr_valid = 1000, .entry_valid = 1000 };
			if (!strcmp(buf + sizeof *h, "blk")) o.nodeid = 3;
			else if (strcmp(buf + sizeof *h, "f")) { if (!fuseMute) reply(h->unique, -ENOENT, 0, 0); break; }
			attr(&o.attr, o.nodeid); reply(h->unique, 0, &o, sizeof o); break;
		}
		case FUSE_STATFS: {
			struct fuse_statfs_out o = { .st.bsize = 4096, .st.namelen = 255 };
			reply(h->unique, 0, &o, sizeof o); break;
		}
		case FUSE_GETATTR: {
			struct fuse_attr_out o = { .attr_valid = 1000 };
			attr(&o.attr, h->nodeid); reply(h->unique, 0, &o, sizeof o); break;
		}
		case FUSE_OPEN: case FUSE_OPENDIR: {
			struct fuse_open_out o = { .fh = 1 };
			reply(h->unique, 0, &o, sizeof o); break;
		}
		case FUSE_READ: {
			if (fuseMute) break;
			struct fuse_read_in *in = (void *)(buf + sizeof *h);
			usleep(fuseDelay);
			strcpy(page, "/tmp/fromfuse"); 
			for (unsigned i = 0; i < in->size; i += 4096) strcpy(page + i, "/tmp/fromfuse");
			reply(h->unique, 0, page, in->size); break;
		}
		case FUSE_FLUSH: if (fuseMute == 1) break; usleep(fuseDelay); reply(h->unique, 0, 0, 0); break;
		case FUSE_FORGET: case FUSE_BATCH_FORGET: break;
		default: reply(h->unique, -ENOSYS, 0, 0);
		}
	}
}
/* mounts it on /mnt and serves it from a child */
static int fuseStart(void) {
	mkdir("/mnt", 0755);
	if (mknod("/tmp/fuse", S_IFCHR | 0666, makedev(10, 229)) && errno != EEXIST) { FAIL("mknod fuse"); return -1; }
	fuseFD = open("/tmp/fuse", O_RDWR);
	if (fuseFD < 0) { printf("SKIP open /dev/fuse: %s\n", strerror(errno)); return -1; }
	char o[100]; sprintf(o, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fuseFD);
	if (mount("fuse", "/mnt", "fuse", MS_NOSUID | MS_NODEV, o)) { printf("SKIP mount fuse: %s\n", strerror(errno)); return -1; }
	if (!fork()) { prctl(PR_SET_PDEATHSIG, SIGKILL); fuseServe(); }
	return 0;
}
/* dirfd is an open file of the FUSE filesystem: closing the copy flushes it */
static void *flushThread(void *arg) {
	int fd = *(int *)arg;
	for (int i = 0;; i++) {
		double t = now();
		int r = mknodat(fd, "x", S_IFCHR | 0666, NULLDEV);
		if (i < 3) { printf("flush: ret %d %s took %.0f us\n", r, strerror(errno), (now() - t) * 1e6); fflush(stdout); }
	}
}
static void fuseFlush(int threads, int delay) {
	fuseMute = delay < 0; fuseDelay = delay;
	if (fuseStart()) exit(3);
	static int fd; fd = open("/mnt/f", O_RDWR);
	if (fd < 0) FAIL("open /mnt/f");
	for (int i = 0; i < threads; i++) { pthread_t t; pthread_create(&t, 0, flushThread, &fd); }
	for (;;) pause();
}
/* the path is in memory that the FUSE filesystem serves, late or never */
static char *fuseMap;
static void *memThread(void *arg) {
	long k = (long)arg;
	for (long i = 0;; i++) {
		double t = now();
		int r = node(fuseMap + ((k << 14) + i % 16384) * 4096);
		if (i < 3) { printf("fusemem: ret %d took %.0f us\n", r, (now() - t) * 1e6); fflush(stdout); }
		unlink("/tmp/fromfuse");
	}
}
static void fuseMemory(int threads, int delay) {
	fuseMute = delay < 0; fuseDelay = delay;
	if (fuseStart()) exit(3);
	int fd = open("/mnt/f", O_RDONLY);
	fuseMap = mmap(0, 1 << 30, PROT_READ, MAP_PRIVATE, fd, 0);
	madvise(fuseMap, 1 << 30, MADV_RANDOM);
	for (long i = 0; i < threads; i++) { pthread_t t; pthread_create(&t, 0, memThread, (void *)i); }
	for (;;) pause();
}
/* the path leads into it */
static void *pathThread(void *arg) { (void)arg; for (;;) { node("/mnt/nothing/x"); node("/mnt/x"); } }
static void fusePath(int threads) {
	fuseMute = 1;
	if (fuseStart()) exit(3);
	for (int i = 0; i < threads; i++) { pthread_t t; pthread_create(&t, 0, pathThread, 0); }
	for (;;) pause();
}

/* ---- undo of what was acknowledged ---- */
static atomic_long *stage;
static void killed(double secs) {
	stage = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int left = 0, lost = 0, rounds = 0, existed = 0; double end = now() + secs;
	while (now() < end) {
		rounds++;
		*stage = 0; unlink("/tmp/k");
		pid_t p = fork();
		if (!p) { *stage = 1; node("/tmp/k"); *stage = 2; _exit(0); }
		while (*stage == 0) ;
		for (volatile int i = 0, n = rand() % 60000; i < n; i++) ;
		kill(p, SIGKILL); 
		int st; waitpid(p, &st, 0);
		if (!WIFSIGNALED(st) || *stage == 2) continue;
		struct stat s;
		if (stat("/tmp/k", &s) == 0) { existed++; unlink("/tmp/k"); }
		if (node("/tmp/k")) { left++; continue; }
		struct stat a, b; stat("/tmp/k", &a);
		usleep(60000);
		if (stat("/tmp/k", &b)) lost++;
	}
	printf("KILLED rounds %d, seen after the kill %d, EEXIST %d, acknowledged and lost %d\n", rounds, existed, left, lost);
	unlink("/tmp/k"); usleep(100000);
	struct stat s; if (stat("/tmp/k", &s) == 0) FAIL("left behind");
	if (lost) FAIL("%d nodes that were acknowledged are gone", lost);
}

/* ---- races ---- */
static atomic_int stop;
static void *symRace(void *a) {
	(void)a;
	while (!stop) {
		renameat2(AT_FDCWD, "/work/r/d", AT_FDCWD, "/work/r/l", RENAME_EXCHANGE);
	}
	return 0;
}
static void symlinkRace(double secs, const char *target) {
	mkdir("/work/r", 0755); mkdir("/work/r/d", 0755); mkdir("/work/r/out", 0755);
	if (symlink(target, "/work/r/l")) FAIL("symlink");
	pthread_t t; pthread_create(&t, 0, symRace, 0);
	long n = 0, ok = 0; double end = now() + secs;
	for (; now() < end; n++) {
		int r = n & 1 ? node("/work/r/d/pwned") : (chdir("/work/r"), node("d/pwned"));
		if (!r) ok++;
		unlink("/work/r/d/pwned"); unlink("/work/r/l/pwned");
	}
	stop = 1; pthread_join(t, 0);
	printf("SYMRACE %ld calls, %ld nodes\n", n, ok);
}
static char *shared;
static void *memRace(void *a) {
	(void)a;
	while (!stop) { memcpy(shared, "/work/a", 8); memcpy(shared, "/unmapped/a", 12); memcpy(shared, "/work/../unmapped/a", 20); }
	return 0;
}
static void memoryRace(double secs) {
	shared = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_t t; pthread_create(&t, 0, memRace, 0);
	long n = 0, ok = 0; double end = now() + secs;
	for (; now() < end; n++) { if (!node(shared)) ok++; unlink("/work/a"); }
	stop = 1; pthread_join(t, 0);
	printf("MEMRACE %ld calls, %ld nodes\n", n, ok);
}

/* ---- leaked host directory ---- */
static void leak(int fd) {
	char p[100]; 
#define TRY(x) do { errno = 0; if ((x) == 0) FAIL("%s succeeded", #x); else printf("refused %s: %s\n", #x, strerror(errno)); } while (0)
	TRY(mknodat(fd, "pwned", S_IFCHR | 0666, NULLDEV));
	TRY(mknodat(fd, "sub/pwned", S_IFCHR | 0666, NULLDEV));
	TRY(mknodat(fd, "sub/../pwned", S_IFCHR | 0666, NULLDEV));
	sprintf(p, "/proc/self/fd/%d/pwned", fd); TRY(node(p));
	sprintf(p, "/proc/thread-self/fd/%d/pwned", fd); TRY(node(p));
	sprintf(p, "/proc/%d/fd/%d/pwned", getpid(), fd); TRY(node(p));
	sprintf(p, "/proc/self/fd/%d/sub/pwned", fd); TRY(node(p));
	sprintf(p, "/dev/fd/%d/pwned", fd); TRY(node(p));
	unlink("/work/ln"); sprintf(p, "/proc/self/fd/%d", fd); if (symlink(p, "/work/ln")) FAIL("symlink"); TRY(node("/work/ln/pwned"));
	for (int i = 0; i < 20; i++) node("/work/warm"), unlink("/work/warm");
	if (!fork()) {
		if (fchdir(fd)) FAIL("fchdir");
		TRY(node("pwned")); TRY(node("../pwned")); TRY(node("./pwned")); TRY(node("/proc/self/cwd/pwned"));
		exit(bad);
	}
	int st; wait(&st); bad |= st != 0;
	if (!fork()) {
		if (fchdir(fd) || chroot(".")) FAIL("chroot");
		for (int i = 0; i < 3; i++) TRY(node("/pwned"));
		TRY(node("pwned")); TRY(node("/sub/pwned"));
		exit(bad);
	}
	wait(&st); bad |= st != 0;
	/* the first process of the container, whose root is the container's: only paths inside may work */
	if (node("/proc/1/root/work/ok") == 0) { struct stat s; if (stat("/work/ok", &s)) FAIL("/proc/1/root leads elsewhere"); unlink("/work/ok"); }
	for (int i = 1; i < 40; i++) { sprintf(p, "/proc/%d/cwd/pwned", i); if (i != getpid() && node(p) == 0) { printf("made %s\n", p); unlink(p); } }
}

static void nested(void) {
	if (unshare(CLONE_NEWUSER)) { FAIL("unshare"); return; }
	int fd = open("/proc/self/uid_map", O_WRONLY); if (fd < 0 || write(fd, "0 0 1", 5) != 5) printf("uid_map: %s\n", strerror(errno));
	close(fd); fd = open("/proc/self/setgroups", O_WRONLY); if (fd >= 0) { if (write(fd, "deny", 4)) {} close(fd); }
	fd = open("/proc/self/gid_map", O_WRONLY); if (fd < 0 || write(fd, "0 0 1", 5) != 5) printf("gid_map: %s\n", strerror(errno));
	TRY(node("/work/nested"));
	if (unshare(CLONE_NEWNS)) FAIL("unshare mount");
	if (mount("tmpfs", "/tmp", "tmpfs", 0, "")) FAIL("tmpfs");
	TRY(node("/tmp/nested"));
	if (mknod("/work/whiteout", S_IFCHR, 0)) FAIL("whiteout"); unlink("/work/whiteout");
}

static void dots(void) {
	mkdir("/work/jail", 0755); mkdir("/work/jail/in", 0755);
	if (chdir("/")) FAIL("chdir");
	/* inside: ".." stops */
	if (!fork()) {
		if (chroot("/work/jail")) FAIL("chroot");
		if (chdir("/in")) FAIL("chdir");
		if (node("../../../../../../../../dots1")) FAIL("dots1");
		if (node("/../../../dots2")) FAIL("dots2");
		if (symlink("/../../..", "/in/up")) FAIL("symlink");
		if (node("/in/up/dots3")) FAIL("dots3");
		if (node("up/dots4")) FAIL("dots4");
		exit(bad);
	}
	int st; wait(&st); bad |= st != 0;
	const char *want[] = { "dots1", "dots2", "dots3", "dots4" };
	for (int i = 0; i < 4; i++) {
		char p[64]; struct stat s;
		sprintf(p, "/work/jail/%s", want[i]); if (stat(p, &s)) FAIL("%s is not in the jail", p); unlink(p);
		sprintf(p, "/%s", want[i]); if (!stat(p, &s)) FAIL("%s is outside of the jail", p);
	}
	/* the classic way out: the kernel lets it, up to the container's own root, and so far only */
	if (!fork()) {
		if (chroot("/work/jail")) FAIL("chroot");
		int r = node("../../../../../../../../../out");
		printf("classic escape: %d %s\n", r, r ? strerror(errno) : "");
		exit(bad);
	}
	wait(&st); bad |= st != 0; unlink("/out");
}

static void *stormThread(void *arg) {
	char p[64]; long k = (long)arg; sprintf(p, "/tmp/s%ld", k);
	for (int i = 0; i < 200; i++) {
		if (node(p)) FAIL("storm %ld/%d", k, i);
		if (node(p) != -1 || errno != EEXIST) FAIL("storm %ld/%d again", k, i);
		unlink(p);
	}
	return 0;
}
static void storm(void) {
	pthread_t t[32];
	for (long i = 0; i < 32; i++) pthread_create(&t[i], 0, stormThread, (void *)i);
	for (int i = 0; i < 32; i++) pthread_join(t[i], 0);
	printf("STORM done\n");
}

static void stopped(double secs) {
	double end = now() + secs; int rounds = 0;
	stage = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	*stage = 0; stage[1] = 0;
	pid_t p = fork();
	/* EEXIST: without WAIT_KILLABLE_RECV the kernel drops an answer that a stop signal overtakes, and makes the
	 * call again (emulators/mknod/README.md, Signals). */
	if (!p) { for (;;) { if (node("/tmp/stop")) { if (errno != EEXIST) { FAIL("stopped caller's mknod"); _exit(1); } stage[1]++; } unlink("/tmp/stop"); ++*stage; } }
	while (now() < end) {
		kill(p, SIGSTOP); usleep(rand() % 2000);
		if (rounds % 20 == 0 && node("/tmp/other")) FAIL("the other caller"); unlink("/tmp/other");
		kill(p, SIGCONT); usleep(rand() % 2000); rounds++;
		int st; if (waitpid(p, &st, WNOHANG) == p) { FAIL("the stopped caller ended"); return; }
	}
	kill(p, SIGCONT);
	long before = *stage; usleep(200000);
	if (*stage == before) FAIL("the caller hangs");
	printf("STOPPED %d times, %ld calls, %d made anew\n", rounds, (long)*stage, (int)stage[1]);
	if (stage[1] > rounds / 20) FAIL("too many answers lost");
	kill(p, SIGKILL); wait(0);
}

static void numbers(void) {
#ifdef __x86_64__
	long r;
	errno = 0; r = syscall(0x40000000 | SYS_mknod, "/tmp/x32", S_IFCHR | 0666, NULLDEV);
	printf("x32: %ld %s\n", r, strerror(errno));
	if (r == 0) unlink("/tmp/x32");
	r = syscall(0x40000000 | SYS_mknodat, AT_FDCWD, "/tmp/x32", S_IFBLK | 0666, makedev(8, 0));
	if (r == 0) FAIL("x32 mknodat of b 8:0");
	char *low = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	strcpy(low, "/tmp/i386");
	int ret;
	__asm__ volatile("int $0x80" : "=a"(ret) : "a"(14), "b"(low), "c"(S_IFBLK | 0666), "d"(makedev(8, 0)) : "r8", "r9", "r10", "r11", "memory");
	printf("i386 b 8:0: %d\n", ret);
	if (ret == 0) FAIL("i386 mknod of b 8:0");
	__asm__ volatile("int $0x80" : "=a"(ret) : "a"(297), "b"(-100), "c"(low), "d"(S_IFBLK | 0666), "S"(makedev(8, 0)) : "r8", "r9", "r10", "r11", "memory");
	if (ret == 0) FAIL("i386 mknodat of b 8:0");
	__asm__ volatile("int $0x80" : "=a"(ret) : "a"(14), "b"(low), "c"(S_IFCHR | 0666), "d"(NULLDEV) : "r8", "r9", "r10", "r11", "memory");
	printf("i386 c 1:3: %d\n", ret);
	if (ret == 0) { struct stat s; if (stat(low, &s) || s.st_rdev != NULLDEV) FAIL("i386 made something else"); unlink(low); }
	if (node("/tmp/after")) FAIL("the listener is gone"); unlink("/tmp/after");
	/* the upper halves of int arguments are no way around the policy */
	r = syscall(SYS_mknodat, 0xffffffff00000000UL | (uint32_t)AT_FDCWD, "/tmp/hi", 0xabcd0000UL | S_IFBLK | 0666, 0xffffffff00000000UL | makedev(8, 0));
	if (r == 0) FAIL("high halves");
#endif
}

static void keyring(void) {
	char buf[256] = ""; long id = syscall(SYS_keyctl, 0, -3, 0);
	printf("session keyring: %ld %s\n", id, id < 0 ? strerror(errno) : "");
	if (id > 0) {
		if (syscall(SYS_keyctl, 6, id, buf, 255) >= 0) printf("describe %s\n", buf);
		int32_t k[32]; long n = syscall(SYS_keyctl, 11, id, k, sizeof k);
		for (int i = 0; i < n / 4; i++) { char d[256] = "", v[256] = ""; syscall(SYS_keyctl, 6, k[i], d, 255); long m = syscall(SYS_keyctl, 11, k[i], v, 255); printf("key %s = %.*s\n", d, m > 0 ? (int)m : 0, v); }
	}
}

/* registers a listener of its own and takes its calls itself, so that the agent finds none where epoll promised one */
static void thief(const char *path) {
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mknodat, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
	};
	struct sock_fprog p = { 4, f };
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	int l = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &p);
	int s = socket(AF_UNIX, SOCK_STREAM, 0);
	struct sockaddr_un a = { .sun_family = AF_UNIX }; strcpy(a.sun_path, path);
	if (l < 0 || connect(s, (void *)&a, sizeof a)) { FAIL("thief"); exit(1); }
	char text[512]; int n = sprintf(text, "{\"ociVersion\":\"1.0.2\",\"fds\":[\"seccompFd\"],\"pid\":%d,\"state\":{\"ociVersion\":\"1.0.2\",\"id\":\"thief-%d\",\"status\":\"running\",\"pid\":%d,\"bundle\":\"/\"}}", getpid(), getpid(), getpid());
	struct iovec v = { text, n }; char c[CMSG_SPACE(4)] = "";
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c };
	struct cmsghdr *h = CMSG_FIRSTHDR(&m); h->cmsg_level = SOL_SOCKET; h->cmsg_type = SCM_RIGHTS; h->cmsg_len = CMSG_LEN(4); memcpy(CMSG_DATA(h), &l, 4);
	if (sendmsg(s, &m, 0) < 0) FAIL("send");
	usleep(200000);
	if (!fork()) { prctl(PR_SET_PDEATHSIG, SIGKILL); for (;;) { for (int i = 0; i < 50; i++) syscall(SYS_mknodat, AT_FDCWD, "/nothing/x", S_IFCHR, 1); sleep(3); } }
	for (;;) {
		struct seccomp_notif r; memset(&r, 0, sizeof r);
		if (ioctl(l, SECCOMP_IOCTL_NOTIF_RECV, &r)) continue;
		struct seccomp_notif_resp o = { .id = r.id, .error = -EPERM };
		ioctl(l, SECCOMP_IOCTL_NOTIF_SEND, &o);
	}
}

int main(int argc, char **argv) {
	setvbuf(stdout, 0, _IOLBF, 0);
	const char *what = argc > 1 ? argv[1] : ""; int a = argc > 2 ? atoi(argv[2]) : 0, b = argc > 3 ? atoi(argv[3]) : 0;
	if (!strcmp(what, "lat")) lat(a, b);
	else if (!strcmp(what, "groups")) groups(a);
	else if (!strcmp(what, "flush")) fuseFlush(a, b);
	else if (!strcmp(what, "fusemem")) fuseMemory(a, b);
	else if (!strcmp(what, "fusepath")) fusePath(a);
	else if (!strcmp(what, "killed")) killed(a);
	else if (!strcmp(what, "symlink")) symlinkRace(a, argv[3]);
	else if (!strcmp(what, "memrace")) memoryRace(a);
	else if (!strcmp(what, "leak")) leak(a);
	else if (!strcmp(what, "nested")) nested();
	else if (!strcmp(what, "dots")) dots();
	else if (!strcmp(what, "storm")) storm();
	else if (!strcmp(what, "stopped")) stopped(a);
	else if (!strcmp(what, "numbers")) numbers();
	else if (!strcmp(what, "keyring")) keyring();
	else if (!strcmp(what, "thief")) thief(argv[2]);
	else return 2;
	printf(bad ? "DONE bad\n" : "DONE good\n");
	return bad;
}
`
