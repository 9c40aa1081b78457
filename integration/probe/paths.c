/* Where it is made: dirfd, relative paths, everything a path can be wrong in. */
#include "probe.h"

#include <sys/mman.h>

static void dirfd_good(void)
{
	make_dir("dir", 0755);
	int fd = open_dir("dir");
	try_mknodat("opened directory", fd, "null", CHR, NULL_DEV, "dir/null");
	try_mknodat("dirfd and ..", fd, "../up", CHR, NULL_DEV, "up");
	try_mknodat("absolute path, dirfd does not count", fd, under(".", "abs"), CHR, NULL_DEV, "abs");
	try_mknodat("absolute path, invalid dirfd does not count", -1, under(".", "abs2"), CHR,
		    NULL_DEV, "abs2");
	int path_fd = must("open O_PATH", open("dir", O_PATH | O_DIRECTORY | O_CLOEXEC));
	try_mknodat("O_PATH directory", path_fd, "opath", CHR, NULL_DEV, "dir/opath");
	/* The directory moves after it was opened. */
	must("rename", rename("dir", "moved"));
	try_mknodat("renamed directory", fd, "later", CHR, NULL_DEV, "moved/later");
	must("fchdir", fchdir(fd));
	try_mknod("relative to a renamed cwd", "cwd", CHR, NULL_DEV);
}

static void dirfd_bad(void)
{
	make_file("file");
	int file = must("open", open("file", O_RDONLY | O_CLOEXEC));
	int link;
	must("symlink", symlink("file", "link"));
	link = must("open", open("link", O_PATH | O_NOFOLLOW | O_CLOEXEC));
	try_mknodat("not open", 777, "x", CHR, NULL_DEV, NULL);
	try_mknodat("-1", -1, "x", CHR, NULL_DEV, NULL);
	try_mknodat("AT_FDCWD - 1", AT_FDCWD - 1, "x", CHR, NULL_DEV, NULL);
	try_mknodat("a file", file, "x", CHR, NULL_DEV, NULL);
	try_mknodat("a symlink", link, "x", CHR, NULL_DEV, NULL);
	int pipes[2];
	must("pipe", pipe2(pipes, O_CLOEXEC));
	try_mknodat("a pipe", pipes[0], "x", CHR, NULL_DEV, NULL);
	try_mknodat("a file and an empty path", file, "", CHR, NULL_DEV, NULL);
	try_mknodat("not open and an empty path", 777, "", CHR, NULL_DEV, NULL);
	try_mknodat("not open and NULL", 777, NULL, CHR, NULL_DEV, NULL);
}

static void exists(void)
{
	make_file("file");
	make_dir("dir", 0755);
	must("symlink", symlink("nowhere", "dangling"));
	must("symlink", symlink("file", "to-file"));
	must("symlink", symlink("dir", "to-dir"));
	must("mkfifo", mkfifo("fifo", 0644));
	try_mknod("file", "file", CHR, NULL_DEV);
	try_mknod("directory", "dir", CHR, NULL_DEV);
	try_mknod("directory with slash", "dir/", CHR, NULL_DEV);
	try_mknod("dangling symlink", "dangling", CHR, NULL_DEV);
	try_mknod("symlink to a file", "to-file", CHR, NULL_DEV);
	try_mknod("symlink to a directory", "to-dir", CHR, NULL_DEV);
	try_mknod("symlink to a directory with slash", "to-dir/", CHR, NULL_DEV);
	try_mknod("fifo", "fifo", CHR, NULL_DEV);
	try_mknod("first", "node", CHR, NULL_DEV);
	try_mknod("second", "node", CHR, ZERO_DEV);
	report("dangling symlink was not followed", 0, 0, "nowhere");
}

static void missing(void)
{
	make_file("file");
	must("symlink", symlink("nowhere", "dangling"));
	must("symlink", symlink("file", "to-file"));
	try_mknod("no parent", "no/null", CHR, NULL_DEV);
	try_mknod("no parent, two levels", "no/no/null", CHR, NULL_DEV);
	try_mknod("below a file", "file/null", CHR, NULL_DEV);
	try_mknod("below a symlink to a file", "to-file/null", CHR, NULL_DEV);
	try_mknod("below a dangling symlink", "dangling/null", CHR, NULL_DEV);
	try_mknod("file and dot-dot", "file/../null", CHR, NULL_DEV);
}

static void symlinks(void)
{
	make_dir("dir", 0755);
	must("symlink", symlink("dir", "link"));
	must("symlink", symlink(under(".", "dir"), "absolute-link"));
	must("symlink", symlink("loop-b", "loop-a"));
	must("symlink", symlink("loop-a", "loop-b"));
	must("symlink", symlink("link", "link-2"));
	must("symlink", symlink("../../../../../../../../../../../..", "out"));
	try_mknod("through a symlink", "link/a", CHR, NULL_DEV);
	try_mknod("through two", "link-2/b", CHR, NULL_DEV);
	try_mknod("through an absolute one", "absolute-link/c", CHR, NULL_DEV);
	try_mknod("ELOOP", "loop-a/null", CHR, NULL_DEV);
	try_mknod("a loop as the last component", "loop-a", CHR, NULL_DEV);
	char *back;
	must("asprintf", asprintf(&back, "out%s/back", here));
	try_mknod("up to the root and back", back, CHR, NULL_DEV);
	/* The fortieth symlink is followed, the forty-first is not. */
	char at[16], to[16];
	must("symlink", symlink("dir", "s0"));
	for (int i = 1; i <= 40; i++) {
		snprintf(at, sizeof at, "s%d", i);
		snprintf(to, sizeof to, "s%d", i - 1);
		must("symlink", symlink(to, at));
	}
	try_mknod("40 symlinks", "s39/forty", CHR, NULL_DEV);
	try_mknod("41 symlinks", "s40/forty-one", CHR, NULL_DEV);
}

static void shapes(void)
{
	make_dir("dir", 0755);
	try_mknod("empty", "", CHR, NULL_DEV);
	try_mknod(".", ".", CHR, NULL_DEV);
	try_mknod("..", "..", CHR, NULL_DEV);
	try_mknod("/", "/", CHR, NULL_DEV);
	try_mknod("//", "//", CHR, NULL_DEV);
	try_mknod("dir/.", "dir/.", CHR, NULL_DEV);
	try_mknod("dir/..", "dir/..", CHR, NULL_DEV);
	try_mknod("new/", "dir/new/", CHR, NULL_DEV);
	try_mknod("new//", "dir/new//", CHR, NULL_DEV);
	try_mknod("new/.", "dir/new/.", CHR, NULL_DEV);
	try_mknod("double slash", "dir//a", CHR, NULL_DEV);
	try_mknod("dots inside", "./dir/../dir/./b", CHR, NULL_DEV);
	try_mknod("name of dots", "dir/...", CHR, NULL_DEV);
	try_mknod("bytes that are no text", "dir/\xff\xfe\x01 \n\"", CHR, NULL_DEV);
	try_mknod("above the root", under("../../../../../../../../../..", "dev/../probe-up"), CHR,
		  NULL_DEV);
	unlink("/probe-up");
}

/* n bytes of "./" with a one-letter name at the end; n is odd. */
static char *long_path(char *at, size_t n, char name)
{
	for (size_t i = 0; i + 1 < n; i += 2)
		memcpy(at + i, "./", 2);
	at[n - 1] = name;
	return at;
}

static void lengths(void)
{
	static char path[8192];
	memset(path, 'n', 255);
	try_mknod("component of 255", path, CHR, NULL_DEV);
	memset(path, 'n', 256);
	try_mknod("component of 256", path, CHR, NULL_DEV);
	memset(path, 0, sizeof path);
	try_mknod("path of 4095", long_path(path, 4095, 'a'), CHR, NULL_DEV);
	memset(path, 0, sizeof path);
	long_path(path, 4097, 'b');
	try_mknod("path of 4097", path, CHR, NULL_DEV);
	/* 4096 bytes and no NUL in them; cut, it would be a good path. */
	path[4095] = 'c';
	path[4096] = 0;
	try_mknod("path of 4096", path, CHR, NULL_DEV);
	report("a cut path was not used", 0, 0, "c");
	memset(path, '/', 4095);
	path[4095] = 0;
	try_mknod("4095 slashes", path, CHR, NULL_DEV);
	memset(path, 'x', 8000);
	path[8000] = 0;
	try_mknod("path of 8000", path, CHR, NULL_DEV);
}

static void memory(void)
{
	/* Two pages, then nothing. */
	char *pages = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pages == MAP_FAILED)
		must("mmap", -1);
	must("munmap", munmap(pages + 2 * 4096, 4096));
	char *end = pages + 2 * 4096;

	try_mknodat("NULL", AT_FDCWD, NULL, CHR, NULL_DEV, NULL);
	try_mknodat("(char *)1", AT_FDCWD, (char *)1, CHR, NULL_DEV, NULL);
	try_mknodat("unmapped", AT_FDCWD, end, CHR, NULL_DEV, NULL);
	try_mknodat("kernel address", AT_FDCWD, (char *)(intptr_t)-4096, CHR, NULL_DEV, NULL);
	memcpy(end - 5, "edge", 5);
	try_mknodat("ends with its page", AT_FDCWD, end - 5, CHR, NULL_DEV, "edge");
	memcpy(end - 4, "runs", 4);
	try_mknodat("runs into an unmapped page", AT_FDCWD, end - 4, CHR, NULL_DEV, "runs");
	memcpy(pages + 4096 - 4, "crosses", 8);
	try_mknodat("crosses a page", AT_FDCWD, pages + 4096 - 4, CHR, NULL_DEV, "crosses");
	memset(pages, '/', 2 * 4096);
	/* Too long is found out before the fault. */
	try_mknodat("4096 bytes, then unmapped", AT_FDCWD, end - 4096, CHR, NULL_DEV, NULL);
	try_mknodat("4095 bytes, then unmapped", AT_FDCWD, end - 4095, CHR, NULL_DEV, NULL);
	must("mprotect", mprotect(pages + 4096, 4096, PROT_NONE));
	try_mknodat("no read permission", AT_FDCWD, pages + 4096, CHR, NULL_DEV, NULL);
	must("mprotect", mprotect(pages, 4096, PROT_READ));
	try_mknodat("runs into a page without read permission", AT_FDCWD, pages + 4000, CHR, NULL_DEV,
		    NULL);
	/* A page not yet there is faulted in. */
	char *fresh = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	try_mknodat("an untouched page of zeros", AT_FDCWD, fresh, CHR, NULL_DEV, NULL);
	/* So is a page of a file. */
	make_file("text");
	int fd = must("open", open("text", O_RDWR | O_CLOEXEC));
	must("write", write(fd, "from-file", 10));
	char *mapped = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	try_mknodat("a mapped file", AT_FDCWD, mapped, CHR, NULL_DEV, "from-file");
}

/* Magic links are about the caller, not about whoever resolves the path. */
static void magic(void)
{
	char *path;
	make_dir("dir", 0755);
	int fd = open_dir("dir");
	must("asprintf", asprintf(&path, "/proc/self/root%s/root", here));
	try_mknodat("/proc/self/root", AT_FDCWD, path, CHR, NULL_DEV, "root");
	try_mknodat("/proc/self/cwd", AT_FDCWD, "/proc/self/cwd/cwd", CHR, NULL_DEV, "cwd");
	must("chdir", chdir("dir"));
	try_mknodat("/proc/self/cwd/..", AT_FDCWD, "/proc/self/cwd/../up", CHR, NULL_DEV, "../up");
	must("asprintf", asprintf(&path, "/proc/self/fd/%d/fd", fd));
	try_mknodat("/proc/self/fd", AT_FDCWD, path, CHR, NULL_DEV, "fd");
	try_mknodat("/proc/thread-self/cwd", AT_FDCWD, "/proc/thread-self/cwd/thread", CHR, NULL_DEV,
		    "thread");
	must("asprintf", asprintf(&path, "/proc/%d/cwd/pid", getpid()));
	try_mknodat("/proc/PID/cwd", AT_FDCWD, path, CHR, NULL_DEV, "pid");
	must("asprintf", asprintf(&path, "/proc/1/root%s/dir/init", here));
	try_mknodat("/proc/1/root", AT_FDCWD, path, CHR, NULL_DEV, "init");
	try_mknodat("in /proc", AT_FDCWD, "/proc/null", CHR, NULL_DEV, NULL);
	try_mknodat("in /proc/self", AT_FDCWD, "/proc/self/null", CHR, NULL_DEV, NULL);
	try_mknodat("onto /proc/self/exe", AT_FDCWD, "/proc/self/exe", CHR, NULL_DEV, NULL);
	try_mknodat("below /proc/self/exe", AT_FDCWD, "/proc/self/exe/null", CHR, NULL_DEV, NULL);
}

static void chrooted(void)
{
	make_dir("jail", 0755);
	make_dir("jail/dir", 0755);
	must("symlink", symlink("/dir", "jail/link"));
	must("symlink", symlink("../../..", "jail/out"));
	int outside = open_dir(".");
	must("chroot", chroot("jail"));
	/* The cwd is still outside, and from there .. goes on to the real root. */
	try_mknod("cwd outside", "outside", CHR, NULL_DEV);
	try_mknodat("dirfd outside", outside, "outside-fd", CHR, NULL_DEV, NULL);
	must("chdir", chdir("/dir"));
	try_mknod("/x", "/x", CHR, NULL_DEV);
	try_mknod("..", "../y", CHR, NULL_DEV);
	try_mknod(".. above the root", "../../../../z", CHR, NULL_DEV);
	try_mknod("absolute symlink", "/link/a", CHR, NULL_DEV);
	try_mknod("symlink above the root", "/out/b", CHR, NULL_DEV);
	must("fchdir", fchdir(outside));
	report("seen from outside", 0, 0, "jail/x");
	report("z seen from outside", 0, 0, "jail/z");
	report("outside-fd", 0, 0, "outside-fd");
	report("nothing above", 0, 0, "z");
}

const struct scenario path_scenarios[] = {
	{"dirfd", dirfd_good},
	{"dirfd-bad", dirfd_bad},
	{"exists", exists},
	{"missing", missing},
	{"symlinks", symlinks},
	{"shapes", shapes},
	{"lengths", lengths},
	{"memory", memory},
	{"magic-links", magic},
	{"chroot", chrooted},
	{NULL, NULL},
};
