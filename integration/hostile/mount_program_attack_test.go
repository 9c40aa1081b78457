package hostile

// mountProgram is the attacker's other half, about mount: its sub-commands
// begin with "m-". What it may mount has a file marker that says "allowed".
const mountProgram = `#define main other_main
#include "attack.c"
#undef main
#include <linux/capability.h>
#include <linux/mount.h>
#include <sys/statfs.h>
#include <sys/time.h>
#include <sys/xattr.h>

static char ext4[128], squash[128], bad4[128]; /* images, named after the container */
static int allowedMinor, secretMinor;
static __thread char text[64];
static const char *marker(const char *dir) {
	char p[256]; sprintf(p, "%s/marker", dir);
	int fd = open(p, O_RDONLY); if (fd < 0) return "";
	ssize_t n = read(fd, text, sizeof text - 1); close(fd);
	text[n > 0 ? n : 0] = 0;
	return text;
}
static int has(const char *dir, const char *want) { return !strcmp(marker(dir), want); }
static int gone(const char *dir) { return umount2(dir, MNT_DETACH | UMOUNT_NOFOLLOW); }
static void expect(int r, int want, const char *what) {
	if (r == 0) { errno = 0; FAIL("%s succeeded", what); }
	else if (want && errno != want) FAIL("%s: not the errno %d", what, want);
}
#define REFUSED(x, want) expect(x, want, #x)
/* the line of the mount on dir in mountinfo, the last one */
static int line(const char *dir, char *out) {
	FILE *f = fopen("/proc/self/mountinfo", "r"); char l[4096], want[256]; int n = 0;
	sprintf(want, " %s ", dir);
	while (f && fgets(l, sizeof l, f)) if (strstr(l, want)) { n++; if (out) strcpy(out, l); }
	if (f) fclose(f);
	return n;
}
static void sane(void) {
	mkdir("/work/sane", 0755);
	if (mount(squash, "/work/sane", "squashfs", MS_RDONLY, 0)) { FAIL("an honest mount afterwards"); return; }
	if (!has("/work/sane", "allowed")) FAIL("an honest mount shows %s", text);
	if (gone("/work/sane")) FAIL("unmount");
}

/* ---- 1: the source is exchanged between check and use ---- */
static atomic_long swaps;
static void *swapDevice(void *a) {
	(void)a;
	while (!stop) {
		renameat2(AT_FDCWD, "/work/r/src", AT_FDCWD, "/work/r/link", RENAME_EXCHANGE);
		renameat2(AT_FDCWD, "/work/r/src", AT_FDCWD, "/work/r/node", RENAME_EXCHANGE);
		swaps++;
	}
	return 0;
}
static void *swapImage(void *a) {
	(void)a;
	while (!stop) {
		renameat2(AT_FDCWD, "/work/r/in", AT_FDCWD, "/work/r/out", RENAME_EXCHANGE);
		swaps++;
	}
	return 0;
}
static struct tally { long calls, mounted, wrong; } device, image;
static void race(struct tally *t, const char *src, const char *dir, const char *type, unsigned long fl, const char *data, double end) {
	mkdir(dir, 0755);
	while (now() < end) {
		t->calls++;
		if (mount(src, dir, type, fl, data)) continue;
		t->mounted++;
		if (!has(dir, "allowed")) { t->wrong++; FAIL("%s shows %s", src, text); }
		if (gone(dir)) FAIL("unmount %s", dir);
	}
}
static double swapEnd;
static void *raceImage(void *a) { (void)a; race(&image, "/work/r/in/x.sqfs", "/work/ri", "squashfs", MS_RDONLY, 0, swapEnd); return 0; }
static void swap(double secs) {
	mkdir("/work/r", 0755); mkdir("/work/r/x", 0755);
	if (rename("/n/allowed", "/work/r/src") || symlink("/n/secret", "/work/r/link") || rename("/n/secret2", "/work/r/node")) FAIL("prepare");
	if (symlink("/img", "/work/r/in") || symlink("/out", "/work/r/out")) FAIL("prepare");
	swapEnd = now() + secs;
	pthread_t t[3];
	pthread_create(&t[0], 0, swapDevice, 0); pthread_create(&t[1], 0, swapImage, 0); pthread_create(&t[2], 0, raceImage, 0);
	race(&device, "/work/r/src", "/work/rd", "ext4", MS_NOATIME, 0, swapEnd);
	stop = 1; for (int i = 0; i < 3; i++) pthread_join(t[i], 0);
	printf("SWAP %ld exchanges; device: %ld calls, %ld mounted; image: %ld calls, %ld mounted\n",
		(long)swaps, device.calls, device.mounted, image.calls, image.mounted);
	if (!device.mounted || device.mounted == device.calls) FAIL("no race for the device");
	if (!image.mounted || image.mounted == image.calls) FAIL("no race for the image");
}

/* ---- 2: the target is exchanged, or leads out; fd is a leaked directory of the host ---- */
static void *swapTarget(void *a) {
	(void)a;
	while (!stop) { renameat2(AT_FDCWD, "/work/t/d", AT_FDCWD, "/work/t/l", RENAME_EXCHANGE); swaps++; }
	return 0;
}
static void target(int fd, double secs) {
	char p[128];
	const char *form[] = { "/proc/self/fd/%d", "/proc/thread-self/fd/%d", "/proc/self/fd/%d/sub", "/proc/self/fd/%d/..", "/proc/self/fd/%d/sub/..", "/proc/1/fd/%d" };
	for (unsigned i = 0; i < sizeof form / sizeof *form; i++) { sprintf(p, form[i], fd); errno = 0; expect(mount(squash, p, "squashfs", MS_RDONLY, 0), 0, p); }
	if (!fork()) {
		if (fchdir(fd)) FAIL("fchdir");
		REFUSED(mount(squash, ".", "squashfs", MS_RDONLY, 0), 0); REFUSED(mount(squash, "sub", "squashfs", MS_RDONLY, 0), 0); REFUSED(mount(squash, "..", "squashfs", MS_RDONLY, 0), 0);
		exit(bad);
	}
	int st; wait(&st); bad |= st != 0;
	if (!fork()) {
		if (fchdir(fd) || chroot(".")) FAIL("chroot");
		REFUSED(mount("/img/i.sqfs", "/", "squashfs", MS_RDONLY, 0), 0); REFUSED(mount("/img/i.sqfs", "/sub", "squashfs", MS_RDONLY, 0), 0); REFUSED(mount("img/i.sqfs", "sub", "squashfs", MS_RDONLY, 0), 0);
		exit(bad);
	}
	wait(&st); bad |= st != 0;
	/* ".." out of a chroot ends at the container's root; magic links lead to what is the container's */
	mkdir("/work/jail", 0755); mkdir("/work/jail/in", 0755); mkdir("/work/up", 0755);
	if (!fork()) {
		if (chdir("/work") || chroot("/work/jail")) FAIL("chroot");
		const char *to[] = { "../../../../../../../../work/up", "/../../../../work/up" };
		for (int i = 0; i < 2; i++) {
			int r = mount("../../../..//img/x.sqfs", to[i], "squashfs", MS_RDONLY, 0);
			printf("out of the chroot: %d %s\n", r, r ? strerror(errno) : "");
		}
		exit(bad);
	}
	wait(&st); bad |= st != 0; while (!gone("/work/up")) ;
	if (mount(squash, "/proc/1/root/work/up", "squashfs", MS_RDONLY, 0) == 0 && (!has("/work/up", "allowed") || gone("/work/up"))) FAIL("/proc/1/root leads elsewhere");
	/* the race */
	mkdir("/work/t", 0755); mkdir("/work/t/d", 0755); sprintf(p, "/proc/self/fd/%d", fd);
	if (symlink(p, "/work/t/l")) FAIL("symlink");
	pthread_t t; pthread_create(&t, 0, swapTarget, 0);
	long calls = 0, done = 0; double end = now() + secs;
	for (; now() < end; calls++) {
		if (mount(squash, "/work/t/d", "squashfs", MS_RDONLY, 0)) continue;
		done++; int n = 0;
		for (int i = 0; i < 1000 && !n; i++) n = (gone("/work/t/d") == 0) + (gone("/work/t/l") == 0);
		if (n != 1) FAIL("mounted where it is not found");
	}
	stop = 1; pthread_join(t, 0);
	printf("TARGET %ld exchanges, %ld calls, %ld mounted\n", (long)swaps, calls, done);
	if (!done || done == calls) FAIL("no race for the target");
}

/* ---- 3: type, source and data change while they are read ---- */
static char *words;
static void *rewrite(void *a) {
	(void)a;
	static char longer[4096]; memset(longer, 'x', sizeof longer);
	static const char *const type[] = { "ext4", "tmpfs", "btrfs", "ext4" }, *const data[] = { "data=ordered", "errors=remount-ro", "" }, *const from[] = { "/n/allowed", "/n/secret" };
	strcpy(words, "ext4"); strcpy(words + 8192, "/n/allowed");
	for (unsigned r = 1; !stop; r = r * 1664525 + 1013904223) {
		unsigned x = r >> 16;
		switch (x % 4) {
		case 0: case 1: strcpy(words, type[x / 4 % 4]); break;
		case 2: if (x / 4 % 4 < 3) strcpy(words + 4096, data[x / 4 % 4]); else { memcpy(words + 4096, longer, 4096); words[8191] = 0; } break;
		case 3: strcpy(words + 8192, from[x / 4 % 2]); break;
		}
		for (volatile unsigned i = 0; i < x / 64 % 512; i++) ;
	}
	return 0;
}
static void memory(double secs) {
	words = mmap(0, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mkdir("/work/m", 0755);
	pthread_t t; pthread_create(&t, 0, rewrite, 0);
	long calls = 0, disks = 0, tmp = 0; double end = now() + secs; char l[4096];
	for (; now() < end; calls++) {
		if (mount(words + 8192, "/work/m", words, 0, words + 4096)) continue;
		struct statfs s; statfs("/work/m", &s); line("/work/m", l);
		if (s.f_type == 0x01021994) tmp++;
		else {
			disks++;
			if (s.f_type != 0xEF53 || !has("/work/m", "allowed")) FAIL("type %lx, marker %s", (long)s.f_type, text);
			if (!strstr(l, "nosuid") || !strstr(l, "nodev") || strstr(l, "remount-ro")) FAIL("flags: %s", l);
		}
		if (gone("/work/m")) FAIL("unmount");
	}
	stop = 1; pthread_join(t, 0);
	printf("MEMORY %ld calls, %ld disks, %ld tmpfs\n", calls, disks, tmp);
	if (!disks || disks + tmp == calls) FAIL("nothing mounted");
}

/* ---- 4: nodes that are not what they are called, or are nobody's to make ---- */
static void nodes(void) {
	char o[256];
	mkdir("/work/d", 0755); mkdir("/vg", 0755);
	/* the policy has the number of one device for ext4, and what is in /vg for ext2 */
	if (mount("/vg/ok", "/work/d", "ext2", MS_RDONLY, 0)) FAIL("the allowed name"); else if (gone("/work/d")) FAIL("unmount");
	REFUSED(mount("/n/secret", "/work/d", "ext4", 0, 0), EPERM);
	rename("/n/allowed", "/n/kept"); rename("/n/secret", "/n/allowed");
	REFUSED(mount("/n/allowed", "/work/d", "ext4", 0, 0), EPERM);
	rename("/n/allowed", "/n/secret"); rename("/n/kept", "/n/allowed");
	/* by path: a node that the container cannot have */
	REFUSED(mknod("/vg/made", S_IFBLK | 0666, makedev(7, secretMinor)), EPERM);
	mkdir("/vg/nodev", 0755);
	/* on a mount with nodev: the image's own nodes */
	if (mount(ext4, "/work/d", "ext4", 0, 0)) { FAIL("mount image"); return; }
	sprintf(o, "/work/d/blk"); struct stat st;
	if (stat(o, &st) || st.st_rdev != makedev(7, secretMinor)) FAIL("the image has no such node");
	int fd = open("/vg/bound", O_CREAT | O_WRONLY, 0600); close(fd); mkdir("/work/e", 0755);
	if (mount(o, "/vg/bound", 0, MS_BIND, 0)) FAIL("bind");
	REFUSED(mount("/vg/bound", "/work/e", "ext2", MS_RDONLY, 0), EACCES);
	gone("/vg/bound");
	gone("/work/d");
	/* a FUSE filesystem says of a file that it is any device */
	fuseRdev = (secretMinor & 0xff) | 7 << 8 | (secretMinor & ~0xff) << 12;
	if (fuseStart()) { printf("no FUSE\n"); return; }
	mount("/mnt", "/vg/over", 0, MS_BIND, 0);
	if (stat("/mnt/blk", &st) || st.st_rdev != makedev(7, secretMinor)) FAIL("FUSE has no such node");
	mount("/mnt/blk", "/vg/bound", 0, MS_BIND, 0);
	if (mount("/vg/bound", "/work/e", "ext2", MS_RDONLY, 0) == 0) { errno = 0; FAIL("a node on FUSE mounts b 7:%d, which shows %s", secretMinor, marker("/work/e")); gone("/work/e"); }
	gone("/vg/bound"); gone("/vg/over");
	/* mounted without nodev: fuseStart set it */
	char f[100]; gone("/mnt"); close(fuseFD); fuseFD = open("/tmp/fuse", O_RDWR); sprintf(f, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fuseFD);
	if (mount("fuse", "/mnt", "fuse", 0, f)) { FAIL("FUSE again"); return; }
	if (!fork()) { prctl(PR_SET_PDEATHSIG, SIGKILL); fuseServe(); }
	mount("/mnt/blk", "/vg/bound", 0, MS_BIND, 0);
	if (stat("/vg/bound", &st) || st.st_rdev != makedev(7, secretMinor)) FAIL("FUSE has no such node");
	if (mount("/vg/bound", "/work/e", "ext2", MS_RDONLY, 0) == 0) { errno = 0; FAIL("a node on FUSE without nodev mounts b 7:%d, which shows %s", secretMinor, marker("/work/e")); gone("/work/e"); }
	gone("/vg/bound"); gone("/mnt");
}

/* nodes on an overlay of the container's own, which nobody can open: they are what the layers say, and lost nodev */
static void overlay(void) {
	struct stat st; char o[200]; const char *to[] = { "/vg/bound", "/img/bound" };
	mkdir("/work/d", 0755); mkdir("/work/e", 0755); mkdir("/work/over", 0755); mkdir("/work/empty", 0755);
	if (mount(ext4, "/work/d", "ext4", 0, 0)) { FAIL("mount image"); return; }
	sprintf(o, "lowerdir=/work/d:/work/empty");
	if (mount("overlay", "/work/over", "overlay", MS_RDONLY, o)) { printf("overlay: %s\n", strerror(errno)); return; }
	if (stat("/work/over/blk", &st) || st.st_rdev != makedev(7, secretMinor)) FAIL("the overlay has no such node");
	if (open("/work/over/blk", O_RDONLY) >= 0) FAIL("the overlay's node opens");
	for (int i = 0; i < 2; i++) {
		int fd = open(to[i], O_CREAT | O_WRONLY, 0600); close(fd);
		mount("/work/over/blk", to[i], 0, MS_BIND, 0);
		if (stat(to[i], &st) || st.st_rdev != makedev(7, secretMinor)) FAIL("the bind has no such node");
		/* the second by the rule for images */
		if (mount(to[i], "/work/e", i ? "ext4" : "ext2", MS_RDONLY, 0) == 0) { errno = 0; FAIL("a node on an overlay mounts b 7:%d as %s, which shows %s", secretMinor, to[i], marker("/work/e")); gone("/work/e"); }
		else printf("refused %s: %s\n", to[i], strerror(errno));
		gone(to[i]);
	}
}

/* ---- 5: authority that does not count; fd is the host's mount namespace ---- */
static void maps(void) {
	int fd = open("/proc/self/setgroups", O_WRONLY); if (fd >= 0) { if (write(fd, "deny", 4)) {} close(fd); }
	fd = open("/proc/self/uid_map", O_WRONLY); if (write(fd, "0 0 1", 5) != 5) FAIL("uid_map"); close(fd);
	fd = open("/proc/self/gid_map", O_WRONLY); if (write(fd, "0 0 1", 5) != 5) FAIL("gid_map"); close(fd);
}
#define CHILD(...) do { fflush(stdout); if (!fork()) { bad = 0; __VA_ARGS__; fflush(stdout); _exit(bad); } int st; wait(&st); bad |= st != 0; } while (0)
static void bothRefused(const char *who) {
	char w[100]; sprintf(w, "image, %s", who); expect(mount(squash, "/work/a", "squashfs", MS_RDONLY, 0), EPERM, w);
	sprintf(w, "device, %s", who); expect(mount("/n/allowed", "/work/a", "ext4", 0, 0), EPERM, w);
}
static void authority(int ns) {
	mkdir("/work/a", 0777);
	CHILD(if (unshare(CLONE_NEWUSER)) FAIL("unshare"); maps(); bothRefused("nested user namespace");
		if (unshare(CLONE_NEWNS)) FAIL("unshare"); bothRefused("nested mount namespace"));
	CHILD(if (unshare(CLONE_NEWUSER | CLONE_NEWNS)) FAIL("unshare"); bothRefused("unmapped"));
	CHILD(if (setgid(1000) || setuid(1000)) FAIL("setuid"); bothRefused("another user"); struct stat s; if (stat("/work/a", &s)) FAIL("stat"));
	CHILD(struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 }; struct __user_cap_data_struct d[2];
		syscall(SYS_capget, &h, d); d[0].effective &= ~(1u << CAP_SYS_ADMIN); if (syscall(SYS_capset, &h, d)) FAIL("capset"); bothRefused("no CAP_SYS_ADMIN"));
	CHILD(if (unshare(CLONE_NEWNS)) FAIL("unshare"); if (mount(squash, "/work/a", "squashfs", MS_RDONLY, 0)) FAIL("its own mount namespace"); if (!has("/work/a", "allowed")) FAIL("marker"));
	if (has("/work/a", "allowed")) FAIL("a mount came out of its namespace");
	/* mounts of the nested namespace are no place, nor is the nested process's root */
	int up[2], down[2]; if (pipe(up) || pipe(down)) FAIL("pipe");
	pid_t p = fork();
	if (!p) { char c; if (unshare(CLONE_NEWUSER | CLONE_NEWNS)) FAIL("unshare"); mount("t", "/work/a", "tmpfs", 0, 0); if (write(up[1], "x", 1) != 1 || read(down[0], &c, 1)) {} _exit(0); }
	char c, path[64]; if (read(up[0], &c, 1) != 1) FAIL("read");
	sprintf(path, "/proc/%d/root/work/a", p); REFUSED(mount(squash, path, "squashfs", MS_RDONLY, 0), 0);
	sprintf(path, "/proc/%d/ns/mnt", p); int fd = open(path, O_RDONLY);
	CHILD(if (setns(fd, CLONE_NEWNS)) printf("setns to the nested mount namespace: %s\n", strerror(errno)); else bothRefused("in a nested mount namespace"));
	kill(p, SIGKILL); waitpid(p, 0, 0);
	if (ns >= 0) {
		int r = setns(ns, CLONE_NEWNS); printf("setns to the host's mount namespace: %d %s\n", r, r ? strerror(errno) : "");
		if (!r) FAIL("setns to the host's mount namespace");
	}
	sane();
}

/* ---- 6: options ---- */
static void options(void) {
	static const char *wrong[] = {
		"errors=remount-ro", "noatime,errors=remount-ro", "data=\"ordered,errors=remount-ro\"", "data=ordered\",errors=remount-ro", "data=\"ordered\",errors=remount-ro", "data=\"ordered", "\"data=ordered\",\"errors=remount-ro\"",
		"data=ordered,,errors=remount-ro", ",errors=remount-ro", "data=ordered errors=remount-ro", "data=ordered\nerrors=remount-ro", "data=ordered\\,errors=remount-ro",
		"source=/n/secret", "data=ordered,source=/n/secret", "fd=3", "rfdno=3", "context=system_u:object_r:x:s0", "fscontext=x", "rootcontext=x", "loop=/dev/loop0",
		"user_xattr", "debug", "journal_dev=0x700", "journal_path=/n/secret", "sb=8193", "init_itable=1", "noload", "nosuid=1", "ro=1", "data", "data=", "NOATIME", "=x", "=", "\"\"", "errors\t=continue", "suid", "dev,suid", "user_id=0",
	};
	mkdir("/work/o", 0755); char what[200], l[4096];
	for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) { snprintf(what, sizeof what, "option %s", wrong[i]); expect(mount(ext4, "/work/o", "ext4", 0, wrong[i]), EINVAL, what); gone("/work/o"); }
	char *page = mmap(0, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *many = page;
	memset(page, ',', 5000); page[5000] = 0; REFUSED(mount(ext4, "/work/o", "ext4", 0, page), EINVAL);
	strcpy(page, "data="); memset(page + 5, 'x', 5000); REFUSED(mount(ext4, "/work/o", "ext4", 0, page), EINVAL);
	for (int i = 0; i < 300; i++) many = stpcpy(many, "noatime,"); *many = 0; REFUSED(mount(ext4, "/work/o", "ext4", 0, page), EINVAL);
	/* what the kernel would not see either */
	memset(page, 0, 4096); strcpy(page, "data=ordered"); strcpy(page + 13, ",errors=remount-ro"); strcpy(page + 40, "errors=remount-ro");
	if (mount(ext4, "/work/o", "ext4", 0, page)) FAIL("NUL, then more"); else if (!line("/work/o", l) || strstr(l, "remount-ro") || gone("/work/o")) FAIL("NUL, then more: %s", l);
	munmap(page + 4096, 4096); char *end = page + 4096 - 12; memcpy(end, "data=ordered", 12);
	if (mount(ext4, "/work/o", "ext4", 0, end)) printf("no NUL before the end of memory: %s\n", strerror(errno)); else gone("/work/o");
	memcpy(page + 4096 - 18, "data=ordered,error", 18); REFUSED(mount(ext4, "/work/o", "ext4", 0, page + 4096 - 18), EINVAL);
	REFUSED(mount(ext4, "/work/o", "ext4", 0, page + 4096), EFAULT);
	REFUSED(mount(ext4, "/work/o", "ext4", 0, (void *)-4096), EFAULT);
	REFUSED(mount(ext4, page + 4096, "ext4", 0, 0), EFAULT);
	/* ro and rw: the last counts, and nothing else changes */
	if (mount(ext4, "/work/o", "ext4", MS_RDONLY, "rw")) printf("ro, rw: %s\n", strerror(errno));
	else { line("/work/o", l); if (!strstr(l, "nosuid,nodev") || !strstr(l, " ro,")) FAIL("MS_RDONLY with rw: %s", l); gone("/work/o"); }
	REFUSED(mount(ext4, "/work/o", "ext4", 1UL << 40, 0), EINVAL);
	REFUSED(mount(ext4, "/work/o", "ext4", MS_SYNCHRONOUS, 0), EPERM);
	sane();
}

/* ---- 7: nosuid and nodev are for ever ---- */
static int whoami(void) {
	struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 }; struct __user_cap_data_struct d[2] = { 0 };
	syscall(SYS_capget, &h, d);
	return geteuid() == 0 || getegid() == 0 || d[0].effective || d[1].effective ? 9 : 7;
}
static void closed(const char *path, const char *how) {
	int fd = open(path, O_RDWR);
	if (fd >= 0) { errno = 0; FAIL("%s: %s opens", how, path); close(fd); } else if (errno != EACCES) FAIL("%s: %s", how, path);
}
static void powerless(const char *path, const char *how) {
	fflush(stdout);
	pid_t p = fork();
	if (!p) { if (setgroups(0, 0)) {} if ((setgid(1000) || setuid(1000)) && errno != EINVAL) _exit(1); if (getuid() != 1000) _exit(7); /* no such user here */ execl(path, path, "m-whoami", (char *)0); _exit(2); }
	int st; waitpid(p, &st, 0);
	if (!WIFEXITED(st) || WEXITSTATUS(st) != 7) FAIL("%s: %s gives %x", how, path, st);
}
static void locked(const char *dir, const char *how) {
	char p[256], l[4096] = "";
	sprintf(p, "%s/null", dir); closed(p, how); sprintf(p, "%s/blk", dir); closed(p, how);
	sprintf(p, "%s/suid", dir); powerless(p, how); sprintf(p, "%s/filecap", dir); powerless(p, how);
	line(dir, l); if (!strstr(l, "nosuid") || !strstr(l, "nodev")) { errno = 0; FAIL("%s: %s", how, l); }
}
static void remounts(const char *dir, const char *how) {
	static const unsigned long all[] = {
		MS_REMOUNT | MS_BIND, MS_REMOUNT | MS_BIND | MS_NODEV, MS_REMOUNT | MS_BIND | MS_NOSUID, MS_REMOUNT, MS_REMOUNT | MS_NODEV, MS_REMOUNT | MS_NOSUID,
		MS_REMOUNT | MS_BIND | MS_RELATIME, MS_MGC_VAL | MS_REMOUNT | MS_BIND, MS_MGC_VAL | MS_REMOUNT, MS_REMOUNT | MS_BIND | MS_REC, MS_REMOUNT | MS_BIND | MS_PRIVATE,
		MS_REMOUNT | MS_BIND | 1UL << 40, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV, MS_REMOUNT | MS_BIND | MS_RDONLY, MS_REMOUNT | MS_BIND,
	};
	char h[200];
	for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
		int r = mount("none", dir, "none", all[i], 0);
		char *end = h + sprintf(h, "%s, %lx", how, all[i]); if (r) sprintf(end, " (%s)", strerror(errno));
		char l[4096]; if (!line(dir, l) || !strstr(l, "nosuid") || !strstr(l, "nodev")) { errno = 0; FAIL("%s: %s", h, l); }
	}
	char o[] = "dev,suid"; mount("none", dir, "none", MS_REMOUNT, o); mount("none", dir, "none", MS_REMOUNT | MS_BIND, o);
	locked(dir, how);
}
/* open is where the filter does not stop */
static void descriptors(const char *dir, int unfiltered) {
	struct mount_attr a = { .attr_clr = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID }, one = { .attr_clr = MOUNT_ATTR_NODEV };
	int want = unfiltered ? EPERM : ENOSYS;
	REFUSED(syscall(SYS_mount_setattr, AT_FDCWD, dir, 0, &a, sizeof a), want);
	REFUSED(syscall(SYS_mount_setattr, AT_FDCWD, dir, 0, &one, sizeof one), want);
	REFUSED(syscall(SYS_mount_setattr, AT_FDCWD, dir, AT_RECURSIVE, &one, sizeof one), want);
	int fd = syscall(SYS_open_tree, AT_FDCWD, dir, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (!unfiltered) {
		if (fd >= 0 || errno != ENOSYS) FAIL("open_tree");
		if (syscall(SYS_move_mount, AT_FDCWD, dir, AT_FDCWD, "/work", 0) != -1 || errno != ENOSYS) FAIL("move_mount");
		if (syscall(SYS_fsopen, "ext4", 0) != -1 || errno != ENOSYS) FAIL("fsopen");
		if (syscall(SYS_fspick, AT_FDCWD, dir, 0) != -1 || errno != ENOSYS) FAIL("fspick");
		/* open_tree_attr (467): newer than the profile's library, perhaps */
		if (syscall(467, AT_FDCWD, dir, OPEN_TREE_CLONE, &a, sizeof a) >= 0) FAIL("open_tree_attr");
		return;
	}
	if (fd < 0) { FAIL("open_tree"); return; }
	REFUSED(syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &one, sizeof one), EPERM);
	REFUSED(syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &a, sizeof a), EPERM);
	if (openat(fd, "null", O_RDWR) >= 0) FAIL("the clone's device opens");
	close(fd);
	if (syscall(467, AT_FDCWD, dir, OPEN_TREE_CLONE, &one, sizeof one) >= 0) FAIL("open_tree_attr");
	fd = syscall(SYS_fspick, AT_FDCWD, dir, 0);
	if (fd >= 0 && syscall(SYS_fsconfig, fd, 7, 0, 0, 0) == 0) FAIL("reconfigure");
	close(fd);
}
static void strip(const char *dir, int unfiltered) {
	char null[256]; sprintf(null, "%s/null", dir);
	locked(dir, "new"); remounts(dir, "remount"); descriptors(dir, unfiltered);
	mkdir("/work/c", 0755); mkdir("/work/v", 0755); mkdir("/work/ov", 0755); mkdir("/work/empty", 0755);
	if (mount(dir, "/work/c", 0, MS_BIND, 0)) FAIL("bind"); remounts("/work/c", "copy");
	if (mount("/work/c", "/work/v", 0, MS_MOVE, 0)) FAIL("move"); remounts("/work/v", "moved copy"); gone("/work/v");
	if (mount(dir, "/work/c", 0, MS_BIND | MS_REC, 0)) FAIL("rbind");
	mount("none", "/work/c", 0, MS_SHARED, 0); remounts("/work/c", "shared");
	if (mount("/work/c", "/work/v", 0, MS_BIND, 0)) FAIL("bind"); mount("none", "/work/v", 0, MS_SLAVE, 0); remounts("/work/v", "slave"); gone("/work/v"); gone("/work/c");
	int fd = open("/work/file", O_CREAT, 0600); close(fd);
	if (mount(null, "/work/file", 0, MS_BIND, 0)) FAIL("bind of the node"); mount("none", "/work/file", 0, MS_REMOUNT | MS_BIND, 0); closed("/work/file", "node"); gone("/work/file");
	CHILD(if (unshare(CLONE_NEWNS)) FAIL("unshare"); remounts(dir, "another mount namespace"); if (mount(dir, "/work/c", 0, MS_BIND, 0)) FAIL("bind"); remounts("/work/c", "copy there"));
	CHILD(if (unshare(CLONE_NEWNS | CLONE_NEWUSER)) FAIL("unshare"); remounts(dir, "another user namespace"));
	char o[400]; sprintf(o, "lowerdir=%s:/work/empty", dir);
	if (mount("overlay", "/work/ov", "overlay", MS_RDONLY, o)) printf("overlay: %s\n", strerror(errno));
	else { closed("/work/ov/null", "overlay"); closed("/work/ov/blk", "overlay"); gone("/work/ov"); }
	char moved[] = "/work/moved"; mkdir(moved, 0755);
	if (mount(dir, moved, 0, MS_MOVE, 0)) FAIL("move"); remounts(moved, "moved"); if (mount(moved, dir, 0, MS_MOVE, 0)) FAIL("move back");
	remounts(dir, "afterwards");
}
static void flags(void) {
	mkdir("/work/x", 0755); mkdir("/work/y", 0755);
	if (mount(ext4, "/work/x", "ext4", 0, 0) || mount("/n/allowed", "/work/y", "ext4", MS_NOATIME, 0)) { FAIL("mount"); return; }
	strip("/work/x", 0); strip("/work/y", 0);
	if (getxattr("/work/x/marker", "trusted.evil", text, sizeof text) >= 0) FAIL("trusted.evil can be read");
	if (setxattr("/work/x/marker", "trusted.more", "x", 1, 0) == 0) FAIL("trusted.more can be set");
	printf("READY\n"); for (;;) pause();
}

/* ---- 8: images ---- */
static int copy(const char *from, const char *to, long most) {
	static __thread char buf[1 << 16]; int in = open(from, O_RDONLY), out = open(to, O_CREAT | O_TRUNC | O_RDWR, 0600); ssize_t n; long done = 0;
	if (in < 0 || out < 0) { FAIL("copy %s", to); return -1; }
	while (done < most && (n = read(in, buf, sizeof buf)) > 0) { if (done + n > most) n = most - done; if (write(out, buf, n) != n) FAIL("write"); done += n; }
	close(in); close(out); return 0;
}
static const char *const changing = "/img/changing";
static void *change(void *a) {
	(void)a;
	while (!stop) {
		copy(swaps & 1 ? bad4 : ext4, "/img/next", 1 << 23); rename("/img/next", changing); usleep(rand() % 4000);
		switch (swaps++ % 4) {
		case 0: if (truncate(changing, 0)) {} break;
		case 1: if (truncate(changing, 20000)) {} break;
		case 2: if (truncate(changing, 1L << 40)) {} break;
		case 3: unlink(changing); break;
		}
	}
	return 0;
}
static void walk(const char *dir) {
	char p[256], buf[4096]; const char *names[] = { "marker", "suid", "filecap", "null", "sub/deep", "nothing" };
	for (unsigned i = 0; i < sizeof names / sizeof *names; i++) { sprintf(p, "%s/%s", dir, names[i]); struct stat s; stat(p, &s); int fd = open(p, O_RDONLY | O_NONBLOCK); while (fd >= 0 && read(fd, buf, sizeof buf) > 0) ; close(fd); }
	sprintf(p, "%s/new", dir); int fd = open(p, O_CREAT | O_RDWR, 0600); if (fd >= 0) { if (write(fd, buf, sizeof buf)) {} fsync(fd); close(fd); }
}
static void images(double secs) {
	struct sockaddr_un a = { .sun_family = AF_UNIX, .sun_path = "/img/socket" };
	int s = socket(AF_UNIX, SOCK_STREAM, 0), fd;
	mkdir("/work/i", 0755); mkdir("/work/j", 0755); mkdir("/img/dir", 0755);
	if (mkfifo("/img/fifo", 0666) || bind(s, (void *)&a, sizeof a) || node("/img/null")) FAIL("prepare");
	REFUSED(mount("/img/fifo", "/work/i", "ext4", 0, 0), ENOTBLK); REFUSED(mount("/img/socket", "/work/i", "ext4", 0, 0), ENOTBLK);
	REFUSED(mount("/img/dir", "/work/i", "ext4", 0, 0), ENOTBLK); REFUSED(mount("/img/null", "/work/i", "ext4", 0, 0), ENOTBLK);
	REFUSED(mount("/proc/self/ns/mnt", "/work/i", "ext4", 0, 0), 0); REFUSED(mount("/proc/self/mem", "/work/i", "ext4", 0, 0), 0);
	symlink("/img/fifo", "/img/ln"); REFUSED(mount("/img/ln", "/work/i", "squashfs", MS_RDONLY, 0), ENOTBLK);
	REFUSED(mount(bad4, "/work/i", "ext4", 0, 0), EPERM); symlink(bad4, "/img/bad"); REFUSED(mount("/img/bad", "/work/i", "ext4", 0, 0), EPERM);
	fd = open("/img/empty", O_CREAT | O_RDWR, 0600); close(fd); REFUSED(mount("/img/empty", "/work/i", "ext4", 0, 0), 0);
	copy(ext4, "/img/short", 3000); REFUSED(mount("/img/short", "/work/i", "ext4", 0, 0), 0);
	copy(ext4, "/img/half", 1 << 21); if (mount("/img/half", "/work/i", "ext4", 0, 0) == 0) { walk("/work/i"); gone("/work/i"); }
	fd = open("/img/huge", O_CREAT | O_RDWR, 0600); if (ftruncate(fd, 1L << 43)) {} close(fd); REFUSED(mount("/img/huge", "/work/i", "squashfs", MS_RDONLY, 0), 0);
	/* the caller's rights decide who reads the image */
	copy(squash, "/img/private", 1 << 23); chmod("/img/private", 0);
	/* a lease keeps the opener waiting */
	copy(ext4, "/img/leased", 1 << 23); fd = open("/img/leased", O_RDWR); signal(SIGIO, SIG_IGN);
	if (fcntl(fd, F_SETLEASE, F_WRLCK)) printf("lease: %s\n", strerror(errno));
	else { double t = now(); int r = mount("/img/leased", "/work/i", "ext4", 0, 0); printf("leased: %d %s, %.0f ms\n", r, r ? strerror(errno) : "", (now() - t) * 1e3); if (now() - t > 5) FAIL("a lease holds the call"); if (!r) gone("/work/i"); }
	close(fd);
	/* a mounted image is truncated, scribbled over, removed */
	copy(ext4, "/img/cut", 1 << 23);
	if (mount("/img/cut", "/work/i", "ext4", 0, 0)) FAIL("mount"); if (truncate("/img/cut", 20000)) FAIL("truncate"); walk("/work/i"); unlink("/img/cut"); walk("/work/i"); if (gone("/work/i")) FAIL("unmount");
	copy(ext4, "/img/scribbled", 1 << 23);
	if (mount("/img/scribbled", "/work/i", "ext4", 0, 0)) FAIL("mount");
	fd = open("/img/scribbled", O_RDWR); static char rubbish[1 << 20]; for (int i = 0; i < 1 << 20; i++) rubbish[i] = rand();
	for (int i = 0; i < 8; i++) if (pwrite(fd, rubbish, 1 << 20, (long)i << 20) < 0) FAIL("scribble"); fsync(fd); close(fd); walk("/work/i"); if (gone("/work/i")) FAIL("unmount");
	/* exchanged and truncated while the device is being made */
	pthread_t t; pthread_create(&t, 0, change, 0); double end = now() + secs; long calls = 0, done = 0;
	for (; now() < end; calls++) if (mount(changing, "/work/j", "ext4", 0, 0) == 0) { done++; char l[4096]; line("/work/j", l); if (!strstr(l, "nosuid,nodev")) FAIL("%s", l); if (calls % 8 == 0) walk("/work/j"); if (gone("/work/j")) FAIL("unmount"); }
	stop = 1; pthread_join(t, 0);
	printf("IMAGES %ld changes, %ld calls, %ld mounted\n", (long)swaps, calls, done);
	sane();
}
/* images that the container hands out itself, or never */
static void *waiting(void *a) { long k = (long)a; char p[64]; sprintf(p, "/work/w%ld", k); mkdir(p, 0755); for (;;) if (mount(k & 1 ? "/img/fuse/f" : "/img/over/f", p, k & 2 ? "ext4" : "squashfs", MS_RDONLY, 0) == 0) FAIL("an image on FUSE"); }
static void mute(int threads) {
	fuseMute = 2; /* but flushes, for which the container could not be killed */
	if (fuseStart()) exit(3);
	mkdir("/img/fuse", 0755); mkdir("/img/over", 0755); mkdir("/work/empty", 0755); mkdir("/work/f", 0755);
	if (mount("/mnt", "/img/fuse", 0, MS_BIND, 0)) FAIL("bind");
	double t = now(); REFUSED(mount("/img/fuse/f", "/work/f", "ext4", 0, 0), 0); REFUSED(mount("/img/fuse/f", "/work/f", "squashfs", MS_RDONLY, 0), 0);
	/* lowers that a program serves */
	if (mount("overlay", "/img/over", "overlay", MS_RDONLY, "lowerdir=/work/empty:/mnt")) printf("overlay over FUSE: %s\n", strerror(errno));
	else { REFUSED(mount("/img/over/f", "/work/f", "ext4", 0, 0), EPERM); }
	mkdir("/work/up", 0755); mkdir("/work/wk", 0755); mkdir("/work/low", 0755); mkdir("/img/own", 0755); copy(squash, "/work/low/f", 1 << 23);
	if (mount("overlay", "/img/own", "overlay", 0, "lowerdir=/work/low,upperdir=/work/up,workdir=/work/wk")) printf("overlay: %s\n", strerror(errno));
	else { REFUSED(mount("/img/own/f", "/work/f", "squashfs", MS_RDONLY, 0), EPERM);
		/* the mknod emulator has looked at it, too */
		if (node("/img/own/n")) printf("node on the overlay: %s\n", strerror(errno)); REFUSED(mount("/img/own/f", "/work/f", "squashfs", MS_RDONLY, 0), EPERM);
		if (mount("/img/own", "/img/over", 0, MS_BIND, 0)) FAIL("bind"); REFUSED(mount("/img/over/f", "/work/f", "squashfs", MS_RDONLY, 0), EPERM); gone("/img/over"); }
	if (now() - t > 5) FAIL("refused after %.1f s", now() - t);
	printf("REFUSED after %.0f ms\n", (now() - t) * 1e3);
	if (!threads) return;
	for (long i = 0; i < threads; i++) { pthread_t p; pthread_create(&p, 0, waiting, (void *)i); }
	printf("READY\n"); for (;;) pause();
}
/* the target, source, type or options lead into FUSE that never answers */
static void *lost(void *a) {
	long k = (long)a; char *m = fuseMap + (k << 20);
	for (int i = 0;; i = (i + 1) % 200) switch (k % 4) {
		case 0: mount(squash, "/mnt/nothing", "squashfs", MS_RDONLY, 0); break;
		case 1: mount("/mnt/nothing", "/work/f", "squashfs", MS_RDONLY, 0); break;
		case 2: mount(squash, "/work/f", m + i * 4096, MS_RDONLY, 0); break;
		case 3: mount(squash, "/work/f", "squashfs", MS_RDONLY, m + i * 4096); break;
	}
}
static void abyss(int threads) {
	fuseMute = 2; /* but flushes, for which the container could not be killed */
	if (fuseStart()) exit(3);
	mkdir("/work/f", 0755); int fd = open("/mnt/f", O_RDONLY);
	fuseMap = mmap(0, 1 << 30, PROT_READ, MAP_PRIVATE, fd, 0); madvise(fuseMap, 1 << 30, MADV_RANDOM);
	close(fd); /* now: at the end its flush would wait for the server, which is killed with us */
	for (long i = 0; i < threads; i++) { pthread_t t; pthread_create(&t, 0, lost, (void *)i); }
	printf("READY\n"); for (;;) pause();
}

/* ---- 9: all that there is ---- */
static atomic_long held; static int unlinking;
static void *hold(void *arg) {
	long k = (long)arg; char src[256], dir[64]; sprintf(dir, "/work/h%ld", k); mkdir(dir, 0755);
	for (int i = 0; i < 4; i++) {
		sprintf(src, "%s-%ld-%d", squash, k, i); if (copy(squash, src, 1 << 23)) return 0;
		int r = mount(src, dir, "squashfs", MS_RDONLY, 0);
		if (unlinking == 1) unlink(src); else if (unlinking == 2) { char to[300]; sprintf(to, "%s.moved", src); rename(src, to); }
		if (!r) held++;
	}
	return 0;
}
static void exhaust(int threads, int how) {
	pthread_t t[64]; unlinking = how;
	for (long i = 0; i < threads; i++) pthread_create(&t[i], 0, hold, (void *)i);
	for (int i = 0; i < threads; i++) pthread_join(t[i], 0);
	printf("HELD %ld\nREADY\n", (long)held); for (;;) pause();
}
static volatile sig_atomic_t ticks;
static void tick(int s) { (void)s; ticks++; }
static void storms(double secs) {
	char p[64];
	/* signals that restart the call */
	for (int i = 0; i < 2; i++) { sprintf(p, "/work/s%d", i); mkdir(p, 0755); if (!fork()) {
		struct sigaction sa = { .sa_handler = tick, .sa_flags = SA_RESTART }; sigaction(SIGALRM, &sa, 0);
		struct itimerval every = { { 0, 300 }, { 0, 300 } }; setitimer(ITIMER_REAL, &every, 0);
		double end = now() + secs; long calls = 0, done = 0;
		for (; now() < end; calls++) {
			if (mount(squash, p, "squashfs", MS_RDONLY, 0)) { if (has(p, "allowed")) { FAIL("a mount that failed is there"); gone(p); } continue; }
			done++;
			if (!has(p, "allowed")) FAIL("an acknowledged mount is not there");
			if (gone(p)) FAIL("unmount");
			if (has(p, "allowed")) { FAIL("mounted twice"); gone(p); }
		}
		setitimer(ITIMER_REAL, &(struct itimerval){ 0 }, 0); sigset_t all; sigfillset(&all); sigprocmask(SIG_BLOCK, &all, 0);
		printf("SIGNALS %d, %ld calls, %ld mounted\n", ticks, calls, done); fflush(stdout);
		if (!done) FAIL("nothing mounted"); _exit(bad);
	} }
	int st; while (wait(&st) > 0) bad |= st != 0;
	/* kill -9 in the middle */
	double end = now() + secs; long kills = 0, stood = 0;
	while (now() < end) {
		pid_t c[4];
		for (int i = 0; i < 4; i++) { sprintf(p, "/work/k%d", i); mkdir(p, 0755); if (!(c[i] = fork())) for (;;) if (!mount(squash, p, "squashfs", MS_RDONLY, 0)) gone(p); }
		usleep(rand() % 6000);
		for (int i = 0; i < 4; i++) kill(c[i], SIGKILL);
		for (int i = 0; i < 4; i++) { waitpid(c[i], 0, 0); kills++; }
		usleep(rand() % 3000);
		for (int i = 0; i < 4; i++) { sprintf(p, "/work/k%d", i); int n = line(p, 0); if (n > 1) FAIL("%d mounts of one killed caller", n); stood += n; }
		usleep(20000);
		for (int i = 0; i < 4; i++) { sprintf(p, "/work/k%d", i); while (!gone(p)) ; }
	}
	printf("KILLS %ld, %ld mounts stood\n", kills, stood);
	/* afterwards nothing comes any more */
	usleep(100000);
	for (int i = 0; i < 4; i++) { sprintf(p, "/work/k%d", i); if (line(p, 0)) FAIL("a mount from nobody"); }
	sane();
}
static atomic_long mine;
static void *busy(void *a) { long k = (long)a; char p[64]; sprintf(p, "/work/b%ld", k); mkdir(p, 0755); for (;;) { if (!mount(squash, p, "squashfs", MS_RDONLY, 0)) { mine++; gone(p); } } }
static void mountStorm(int threads) {
	for (long i = 0; i < threads; i++) { pthread_t t; pthread_create(&t, 0, busy, (void *)i); }
	printf("READY\n"); for (;;) pause();
}
/* latency of honest mounts */
static void mountLat(double secs) {
	static double v[1 << 16]; int n = 0; double end = now() + secs; mkdir("/work/lat", 0755);
	while (now() < end && n < 1 << 16) {
		double t = now();
		if (mount(squash, "/work/lat", "squashfs", MS_RDONLY, 0)) FAIL("mount of the neighbour");
		v[n++] = now() - t;
		if (gone("/work/lat")) FAIL("unmount of the neighbour");
	}
	qsort(v, n, sizeof *v, cmp);
	printf("LAT %d %.0f %.0f %.0f\n", n, v[n / 2] * 1e6, v[n * 99 / 100] * 1e6, v[n - 1] * 1e6);
}
/* an image that asks for the host's end where it finds itself broken, by its superblock and not by an option */
static void doom(void) {
	char p[300]; sprintf(p, "%s.doom", ext4); mkdir("/work/p", 0755);
	if (mount(p, "/work/p", "ext4", 0, 0)) printf("DOOM refused: %s\n", strerror(errno));
	printf("READY\n"); for (;;) pause();
}

int main(int argc, char **argv) {
	const char *what = argc > 1 ? argv[1] : ""; int a = argc > 2 ? atoi(argv[2]) : 0, b = argc > 3 ? atoi(argv[3]) : 0;
	if (strncmp(what, "m-", 2)) return other_main(argc, argv);
	if (!strcmp(what, "m-whoami")) return whoami();
	if (!access("/report", W_OK)) stdout = fopen("/report", "a"); /* 1 is a leaked descriptor */
	setvbuf(stdout, 0, _IOLBF, 0);
	char token[64] = ""; FILE *f = fopen("/token", "r");
	if (!f || fscanf(f, "%60s %d %d", token, &allowedMinor, &secretMinor) != 3) { FAIL("token"); return 1; }
	fclose(f);
	sprintf(ext4, "/img/%s.ext4", token); sprintf(squash, "/img/%s.sqfs", token); sprintf(bad4, "/out/%s.ext4", token);
	if (!strcmp(what, "m-swap")) swap(a);
	else if (!strcmp(what, "m-target")) target(a, b);
	else if (!strcmp(what, "m-memory")) memory(a);
	else if (!strcmp(what, "m-nodes")) nodes();
	else if (!strcmp(what, "m-overlay")) overlay();
	else if (!strcmp(what, "m-authority")) authority(a);
	else if (!strcmp(what, "m-options")) options();
	else if (!strcmp(what, "m-flags")) flags();
	else if (!strcmp(what, "m-strip")) { strip("/work/x", 1); strip("/work/y", 1); }
	else if (!strcmp(what, "m-images")) images(a);
	else if (!strcmp(what, "m-mute")) mute(a);
	else if (!strcmp(what, "m-abyss")) abyss(a);
	else if (!strcmp(what, "m-exhaust")) exhaust(a, b);
	else if (!strcmp(what, "m-storms")) storms(a);
	else if (!strcmp(what, "m-storm")) mountStorm(a);
	else if (!strcmp(what, "m-lat")) mountLat(a);
	else if (!strcmp(what, "m-doom")) doom();
	else return 2;
	printf(bad ? "DONE bad\n" : "DONE good\n");
	return bad;
}
`
