/* On which filesystem: what the container mounted itself. */
#include "probe.h"

#include <sched.h>
#include <sys/mount.h>

static void own_namespace(void)
{
	must("unshare", unshare(CLONE_NEWNS));
	must("make private", mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
}

static void use_tmpfs(unsigned long flags)
{
	make_dir("m", 0755);
	must("mount tmpfs", mount("tmpfs", "m", "tmpfs", flags, "mode=755"));
}

static void use_nodes(void)
{
	make_dir("m/dir", 0755);
	int fd = open_dir("m/dir");
	try_mknod("null", "m/null", CHR, NULL_DEV);
	try_mknod("zero below", "m/dir/zero", CHR, ZERO_DEV);
	try_mknodat("dirfd", fd, "null", CHR, NULL_DEV, "m/dir/null");
	try_mknod("exists", "m/null", CHR, NULL_DEV);
	umask(077);
	try_mknod("umask", "m/umask", S_IFCHR | 0666, NULL_DEV);
	umask(0);
	try_mknod("mode", "m/mode", S_IFCHR | 0604, NULL_DEV);
	try_mknod("refused", "m/sda", BLK, DEV(8, 0));
	try_mknod("whiteout", "m/whiteout", S_IFCHR, 0);
	/* A node can be used, renamed and taken away like any other. */
	report("rename", rename("m/null", "m/renamed"), errno, "m/renamed");
	report("unlink", unlink("m/renamed"), errno, "m/renamed");
	report("chmod", chmod("m/mode", 0640), errno, "m/mode");
	report("chown", chown("m/mode", 1000, 1000), errno, "m/mode");
}

static void tmpfs(void)
{
	use_tmpfs(0);
	use_nodes();
	umount2("m", MNT_DETACH);
}

static void tmpfs_own_namespace(void)
{
	own_namespace();
	use_tmpfs(0);
	use_nodes();
}

static void tmpfs_nodev(void)
{
	own_namespace();
	use_tmpfs(MS_NODEV);
	try_mknod("made but of no use", "m/null", CHR, NULL_DEV);
}

static void bind(void)
{
	own_namespace();
	make_dir("a", 0755);
	make_dir("b", 0755);
	must("bind", mount("a", "b", NULL, MS_BIND, NULL));
	try_mknod("through the bind mount", "b/null", CHR, NULL_DEV);
	report("seen behind it", 0, 0, "a/null");
	/* b/.. is the parent of the mount point, not of a. */
	make_dir("a/sub", 0755);
	try_mknod("dot-dot out of the mount", "b/../up", CHR, NULL_DEV);
	int fd = open_dir("b");
	must("umount", umount2("b", MNT_DETACH));
	try_mknodat("dirfd into a mount that is gone", fd, "late", CHR, NULL_DEV, "a/late");
}

static void bind_readonly(void)
{
	own_namespace();
	make_dir("a", 0755);
	make_dir("b", 0755);
	make_file("a/file");
	must("bind", mount("a", "b", NULL, MS_BIND, NULL));
	must("remount", mount(NULL, "b", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL));
	try_mknod("EROFS", "b/null", CHR, NULL_DEV);
	try_mknod("onto a file", "b/file", CHR, NULL_DEV);
	try_mknod("no parent", "b/no/null", CHR, NULL_DEV);
	try_mknod("whiteout", "b/whiteout", S_IFCHR, 0);
	try_mknod("refused device", "b/sda", BLK, DEV(8, 0));
	report("nothing behind it", 0, 0, "a/null");
}

static void bind_nodev(void)
{
	own_namespace();
	make_dir("a", 0755);
	make_dir("b", 0755);
	must("bind", mount("a", "b", NULL, MS_BIND, NULL));
	must("remount", mount(NULL, "b", NULL, MS_BIND | MS_REMOUNT | MS_NODEV, NULL));
	try_mknod("made but of no use here", "b/null", CHR, NULL_DEV);
	report("of use there", 0, 0, "a/null");
}

static void tmpfs_readonly(void)
{
	own_namespace();
	use_tmpfs(MS_RDONLY);
	try_mknod("EROFS", "m/null", CHR, NULL_DEV);
}

static void tmpfs_full(void)
{
	own_namespace();
	make_dir("m", 0755);
	must("mount tmpfs", mount("tmpfs", "m", "tmpfs", 0, "nr_inodes=3"));
	make_file("m/a");
	make_file("m/b");
	try_mknod("ENOSPC", "m/null", CHR, NULL_DEV);
}

static void overlay(void)
{
	char *options;
	own_namespace();
	make_dir("lower", 0755);
	make_dir("lower/dir", 0755);
	make_file("lower/file");
	make_dir("upper", 0755);
	make_dir("work", 0755);
	make_dir("m", 0755);
	must("asprintf",
	     asprintf(&options, "userxattr,lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", here,
		      here, here));
	must("mount overlay", mount("overlay", "m", "overlay", 0, options));
	try_mknod("null", "m/null", CHR, NULL_DEV);
	report("in the upper directory", 0, 0, "upper/null");
	try_mknod("in a directory of the lower layer", "m/dir/zero", CHR, ZERO_DEV);
	try_mknod("onto a file of the lower layer", "m/file", CHR, NULL_DEV);
	try_mknod("refused", "m/sda", BLK, DEV(8, 0));
	umask(0);
	try_mknod("mode", "m/mode", S_IFCHR | 0604, NULL_DEV);
	try_mknod("twice", "m/mode", S_IFCHR | 0604, NULL_DEV);
}

/* The path is another one in the caller's mount namespace than in init's. */
static void hidden(void)
{
	make_dir("m", 0755);
	own_namespace();
	must("mount tmpfs", mount("tmpfs", "m", "tmpfs", MS_RDONLY, NULL));
	try_mknod("not below our own mount", "m/null", CHR, NULL_DEV);
	must("umount", umount2("m", MNT_DETACH));
	report("nothing there", 0, 0, "m/null");
}

const struct scenario mount_scenarios[] = {
	{"tmpfs", tmpfs},
	{"tmpfs-own-ns", tmpfs_own_namespace},
	{"tmpfs-nodev", tmpfs_nodev},
	{"tmpfs-readonly", tmpfs_readonly},
	{"tmpfs-full", tmpfs_full},
	{"bind", bind},
	{"bind-readonly", bind_readonly},
	{"bind-nodev", bind_nodev},
	{"overlay", overlay},
	{"mount-hidden", hidden},
	{NULL, NULL},
};
