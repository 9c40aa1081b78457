/* What is made: types, device numbers, modes, umask, and what the directory adds. */
#include "probe.h"

#include <sys/xattr.h>

static void plain(void)
{
	try_mknod("mknod c 1:3", "null", CHR, NULL_DEV);
	try_mknod("mknod c 1:5", "zero", CHR, ZERO_DEV);
	try_mknodat("mknodat c 1:3", AT_FDCWD, "null-at", CHR, NULL_DEV, "null-at");
	try_mknodat("mknodat c 1:5", AT_FDCWD, "zero-at", CHR, ZERO_DEV, "zero-at");
	try_mknod("absolute", under(".", "absolute"), CHR, NULL_DEV);
}

static void refused(void)
{
	try_mknod("b 8:0", "sda", BLK, DEV(8, 0));
	try_mknodat("at b 8:0", AT_FDCWD, "sda-at", BLK, DEV(8, 0), "sda-at");
	try_mknod("c 1:1 mem", "mem", CHR, DEV(1, 1));
	try_mknod("c with the number of an allowed block device", "c7", CHR, DEV(7, 200));
	try_mknod("b with the number of an allowed char device", "b1", BLK, NULL_DEV);
	/* 259:3 cut to eight bits would be 3:3; 1:259 would be 1:3. */
	try_mknod("c 1:259", "wide", CHR, DEV(1, 259));
	try_mknod("c 257:3", "wide-major", CHR, DEV(257, 3));
	try_mknod("b 0:0", "b0", BLK, 0);
	make_file("file");
	try_mknod("b 8:0 onto a file", "file", BLK, DEV(8, 0));
	try_mknod("b 8:0 without a parent", "no/sda", BLK, DEV(8, 0));
}

/* try_unopened: opening a loop device makes it, and it stays on the host. */
static void try_unopened(const char *label, const char *path, unsigned mode, unsigned dev)
{
	struct stat st = {0};
	char line[64];
	long ret = sys_mknod(path, mode, dev);
	report(label, ret, errno, NULL);
	must("stat", stat(path, &st));
	snprintf(line, sizeof line, "%s st_mode", label);
	report_count(line, st.st_mode);
	snprintf(line, sizeof line, "%s st_rdev", label);
	report_count(line, st.st_rdev);
}

static void range(void)
{
	try_mknod("c 10:200", "tun", CHR, DEV(10, 200));
	try_unopened("b 7:0", "loop0", BLK, DEV(7, 0));
	try_unopened("b 7:300", "loop300", BLK, DEV(7, 300));
}

/* Never intercepted, or continued: the kernel's own business. */
static void other_types(void)
{
	try_mknod("fifo", "fifo", S_IFIFO | 0644, 0);
	try_mknod("regular", "regular", S_IFREG | 0644, 0);
	try_mknod("no type", "none", 0644, 0);
	try_mknod("socket", "socket", S_IFSOCK | 0644, 0);
	try_mknod("directory", "directory", S_IFDIR | 0755, 0);
	try_mknod("symlink", "symlink", S_IFLNK | 0777, 0);
	try_mknod("nonsense", "nonsense", 0070000 | 0644, NULL_DEV);
	try_mknod("nonsense 2", "nonsense2", 0170000 | 0644, NULL_DEV);
	try_mknodat("at fifo", AT_FDCWD, "fifo-at", S_IFIFO | 0644, NULL_DEV, "fifo-at");
}

static void whiteout(void)
{
	try_mknod("c 0:0", "whiteout", S_IFCHR, 0);
	try_mknod("c 0:0 mode 0644", "whiteout-mode", S_IFCHR | 0644, 0);
	try_mknodat("at c 0:0", AT_FDCWD, "whiteout-at", S_IFCHR, 0, "whiteout-at");
	make_file("file");
	try_mknod("c 0:0 onto a file", "file", S_IFCHR, 0);
}

static void modes(void)
{
	static const unsigned modes[] = {0,     0111,  0400,  0644,  0666,
					 0777, 01666, 02666, 04666, 07777};
	umask(0);
	for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
		char name[16];
		snprintf(name, sizeof name, "m%05o", modes[i]);
		try_mknod(name, name, S_IFCHR | modes[i], NULL_DEV);
	}
}

static void umasks(void)
{
	static const unsigned masks[] = {0, 022, 027, 077, 0777};
	for (size_t i = 0; i < sizeof masks / sizeof *masks; i++) {
		char name[16];
		snprintf(name, sizeof name, "u%04o", masks[i]);
		umask(masks[i]);
		try_mknod(name, name, S_IFCHR | 07777, NULL_DEV);
	}
}

static void setgid_dir(void)
{
	make_dir("dir", 0755);
	must("chown", chown("dir", 0, 500));
	must("chmod", chmod("dir", 02775));
	try_mknod("node takes the group of the directory", "dir/null", CHR, NULL_DEV);
	try_mknod("setgid and group-execute", "dir/sgid", S_IFCHR | 02777, NULL_DEV);
	must("chown", chown("dir", 1000, 501));
	try_mknod("in a directory of somebody else", "dir/other", CHR, NULL_DEV);
}

/* struct posix_acl_xattr_header and _entry, Linux's xattr form of an ACL. */
struct acl {
	uint32_t version;
	struct {
		uint16_t tag, perm;
		uint32_t id;
	} entry[5];
};

static void acl_dir(void)
{
	struct acl acl = {2, {
		{0x01, 7, ~0u},	/* ACL_USER_OBJ */
		{0x02, 6, 1000},/* ACL_USER 1000 */
		{0x04, 5, ~0u},	/* ACL_GROUP_OBJ */
		{0x10, 6, ~0u},	/* ACL_MASK */
		{0x20, 4, ~0u},	/* ACL_OTHER */
	}};
	make_dir("dir", 0755);
	must("setxattr", setxattr("dir", "system.posix_acl_default", &acl, sizeof acl, 0));
	umask(077);
	/* With a default ACL the umask does not count. */
	try_mknod("default ACL beats the umask", "dir/null", CHR, NULL_DEV);
	struct acl got;
	long n = getxattr("dir/null", "system.posix_acl_access", &got, sizeof got);
	report("inherited ACL", n, errno, NULL);
}

static void no_space(void)
{
	/* A directory at its end: removed, but still open. */
	make_dir("gone", 0755);
	int fd = open_dir("gone");
	must("rmdir", rmdir("gone"));
	try_mknodat("in a removed directory", fd, "null", CHR, NULL_DEV, NULL);
}

const struct scenario kind_scenarios[] = {
	{"plain", plain},
	{"refused", refused},
	{"range", range},
	{"other-types", other_types},
	{"whiteout", whiteout},
	{"modes", modes},
	{"umask", umasks},
	{"setgid-dir", setgid_dir},
	{"acl-dir", acl_dir},
	{"removed-dir", no_space},
	{NULL, NULL},
};
