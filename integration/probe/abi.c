/* By which entry: i386 and x32 numbers, and registers with more bits than the
 * kernel looks at. */
#include "probe.h"

#include <sys/mman.h>

#if defined __x86_64__

#define I386_MKNOD 14
#define I386_MKNODAT 297
#define X32_BIT 0x40000000L

static long int80(long nr, long a, long b, long c, long d)
{
	long ret;
	__asm__ volatile("int $0x80"
			 : "=a"(ret)
			 : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d)
			 : "memory", "r8", "r9", "r10", "r11");
	/* The kernel returns an int. */
	ret = (int)ret;
	if (ret < 0) {
		errno = -ret;
		return -1;
	}
	return ret;
}

/* An i386 pointer has 32 bits. */
static char *low(const char *text)
{
	char *s = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	if (s == MAP_FAILED)
		must("mmap", -1);
	return strcpy(s, text);
}

static void i386(void)
{
	long ret;
	make_dir("dir", 0755);
	int fd = open_dir("dir");
	ret = int80(I386_MKNOD, (long)low("null"), CHR, NULL_DEV, 0);
	report("mknod", ret, errno, "null");
	ret = int80(I386_MKNODAT, AT_FDCWD, (long)low("null-at"), CHR, NULL_DEV);
	report("mknodat", ret, errno, "null-at");
	ret = int80(I386_MKNODAT, fd, (long)low("null"), CHR, NULL_DEV);
	report("mknodat dirfd", ret, errno, "dir/null");
	ret = int80(I386_MKNOD, (long)low("sda"), BLK, DEV(8, 0), 0);
	report("refused", ret, errno, "sda");
	ret = int80(I386_MKNOD, (long)low("fifo"), S_IFIFO | 0644, 0, 0);
	report("fifo", ret, errno, "fifo");
	ret = int80(I386_MKNOD, 0, CHR, NULL_DEV, 0);
	report("NULL", ret, errno, NULL);
	ret = int80(I386_MKNOD, (long)low("null"), CHR, NULL_DEV, 0);
	report("exists", ret, errno, "null");
}

static void x32(void)
{
	long ret = syscall(X32_BIT | SYS_mknod, "null", CHR, NULL_DEV);
	report("mknod", ret, errno, "null");
	ret = syscall(X32_BIT | SYS_mknodat, AT_FDCWD, "null-at", CHR, NULL_DEV);
	report("mknodat", ret, errno, "null-at");
	try_mknod("and the session goes on", "after", CHR, NULL_DEV);
}

/* mode is 16 bits wide for the kernel, dev 32, dirfd 32 and signed. */
static void narrow(void)
{
	make_dir("dir", 0755);
	long fd = open_dir("dir"), ret;
	long high = 0x5a5a5a5a00000000L;
	ret = syscall(SYS_mknod, "mode", high | CHR, NULL_DEV);
	report("mode, upper half", ret, errno, "mode");
	ret = syscall(SYS_mknod, "mode-17", 0x7fff0000L | CHR, NULL_DEV);
	report("mode, bits 16 to 30", ret, errno, "mode-17");
	ret = syscall(SYS_mknod, "dev", CHR, high | NULL_DEV);
	report("dev, upper half", ret, errno, "dev");
	ret = syscall(SYS_mknodat, high | fd, "dirfd", CHR, NULL_DEV);
	report("dirfd, upper half", ret, errno, "dir/dirfd");
	ret = syscall(SYS_mknodat, 0xffffff9cL, "cwd", CHR, NULL_DEV);
	report("AT_FDCWD, not sign-extended", ret, errno, "cwd");
	ret = syscall(SYS_mknod, "sda", high | BLK, high | DEV(8, 0));
	report("refused", ret, errno, "sda");
	ret = syscall(SYS_mknod, "fifo", 0x7fff0000L | S_IFIFO | 0644, 0);
	report("fifo, bits 16 to 30", ret, errno, "fifo");
}

const struct scenario abi_scenarios[] = {
	{"i386", i386},
	{"x32", x32},
	{"narrow", narrow},
	{NULL, NULL},
};

#else /* the -m32 build: all its other calls are i386 calls already */

const struct scenario abi_scenarios[] = {{NULL, NULL}};

#endif
