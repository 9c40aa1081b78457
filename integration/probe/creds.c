/* Who makes it: ids, groups, capabilities, user namespaces, permissions. */
#include "probe.h"

#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>

static const int only_mknod[] = {CAP_MKNOD, CAP_END};
static const int mknod_and_override[] = {CAP_MKNOD, CAP_DAC_OVERRIDE, CAP_END};

/* become changes every id; the capabilities of keep stay (NULL: none). */
static void become(uid_t uid, gid_t gid, const int *keep)
{
	must("keepcaps", prctl(PR_SET_KEEPCAPS, keep != NULL));
	must("setresgid", setresgid(gid, gid, gid));
	must("setresuid", setresuid(uid, uid, uid));
	if (keep) {
		set_effective(keep);
		limit_caps(keep);
	}
}

static void open_to_all(void)
{
	make_dir("open", 0777);
	make_dir("closed", 0755);
	make_dir("hidden", 0700);
	make_dir("sticky", 01777);
	make_dir("group", 0775);
	must("chown", chown("group", 0, 600));
	make_file("open/file");
}

static void user(void)
{
	open_to_all();
	must("setgroups", setgroups(0, NULL));
	become(1000, 1000, NULL);
	try_mknod("without CAP_MKNOD", "open/null", CHR, NULL_DEV);
	try_mknod("without CAP_MKNOD in a closed directory", "closed/null", CHR, NULL_DEV);
	try_mknod("without CAP_MKNOD onto a file", "open/file", CHR, NULL_DEV);
	try_mknod("without CAP_MKNOD, no parent", "open/no/null", CHR, NULL_DEV);
	try_mknod("fifo", "open/fifo", S_IFIFO | 0644, 0);
	try_mknod("whiteout", "open/whiteout", S_IFCHR, 0);
	try_mknod("whiteout in a closed directory", "closed/whiteout", S_IFCHR, 0);
	try_mknod("refused device", "open/sda", BLK, DEV(8, 0));
}

static void user_keeping(void)
{
	open_to_all();
	must("setgroups", setgroups(0, NULL));
	become(1000, 1001, only_mknod);
	try_mknod("owner is the caller", "open/null", CHR, NULL_DEV);
	try_mknod("sticky directory", "sticky/null", CHR, NULL_DEV);
	try_mknod("closed directory", "closed/null", CHR, NULL_DEV);
	try_mknod("no search permission", "hidden/null", CHR, NULL_DEV);
	try_mknod("no search permission further up", "hidden/no/null", CHR, NULL_DEV);
	try_mknod("group's directory", "group/null", CHR, NULL_DEV);
	try_mknod("setgid bit of a group that is not ours", "open/sgid", S_IFCHR | 02777, NULL_DEV);
	try_mknod("onto a file", "open/file", CHR, NULL_DEV);
	try_mknod("unreadable node", "open/mode0", S_IFCHR, NULL_DEV);
}

static void user_groups(void)
{
	gid_t groups[] = {600, 700};
	open_to_all();
	must("setgroups", setgroups(2, groups));
	become(1000, 1001, only_mknod);
	try_mknod("supplementary group may write", "group/null", CHR, NULL_DEV);
	try_mknod("closed directory", "closed/null", CHR, NULL_DEV);
}

static void user_override(void)
{
	open_to_all();
	must("setgroups", setgroups(0, NULL));
	become(1000, 1001, mknod_and_override);
	try_mknod("CAP_DAC_OVERRIDE", "closed/null", CHR, NULL_DEV);
	try_mknod("CAP_DAC_OVERRIDE, search", "hidden/null", CHR, NULL_DEV);
}

static void effective_ids(void)
{
	open_to_all();
	must("setgroups", setgroups(0, NULL));
	must("setresgid", setresgid(0, 1001, 0));
	must("setresuid", setresuid(0, 1000, 0));
	try_mknod("euid 1000", "open/null", CHR, NULL_DEV);
	set_effective(only_mknod);
	try_mknod("euid 1000 with CAP_MKNOD", "open/null-2", CHR, NULL_DEV);
	try_mknod("euid 1000, closed directory", "closed/null", CHR, NULL_DEV);
}

static void fs_ids(void)
{
	open_to_all();
	must("setgroups", setgroups(0, NULL));
	setfsgid(1001);
	try_mknod("fsgid", "open/fsgid", CHR, NULL_DEV);
	/* Takes CAP_MKNOD, CAP_DAC_OVERRIDE and the like from the effective set. */
	setfsuid(1000);
	try_mknod("fsuid drops the capability", "open/fsuid", CHR, NULL_DEV);
	set_effective(only_mknod);
	try_mknod("fsuid and fsgid own the node", "open/fsuid-2", CHR, NULL_DEV);
	try_mknod("fsuid may not write here", "closed/fsuid", CHR, NULL_DEV);
	set_effective(standard_caps);
	try_mknod("fsuid with CAP_DAC_OVERRIDE", "closed/fsuid-2", CHR, NULL_DEV);
}

static void no_capability(void)
{
	open_to_all();
	drop_cap(CAP_MKNOD);
	try_mknod("root without CAP_MKNOD", "null", CHR, NULL_DEV);
	try_mknod("onto a file", "open/file", CHR, NULL_DEV);
	try_mknod("no parent", "no/null", CHR, NULL_DEV);
	try_mknod("whiteout", "whiteout", S_IFCHR, 0);
	try_mknodat("NULL", AT_FDCWD, NULL, CHR, NULL_DEV, NULL);
	try_mknodat("bad dirfd", 777, "x", CHR, NULL_DEV, NULL);
}

static void effective_only(void)
{
	static const int without[] = {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_END};
	set_effective(without);
	try_mknod("permitted but not effective", "null", CHR, NULL_DEV);
	set_effective(standard_caps);
	try_mknod("raised again", "null-2", CHR, NULL_DEV);
}

static void no_override(void)
{
	make_dir("readonly", 0555);
	make_dir("hidden", 0);
	try_mknod("read-only directory, CAP_DAC_OVERRIDE", "readonly/null", CHR, NULL_DEV);
	try_mknod("hidden directory, CAP_DAC_OVERRIDE", "hidden/null", CHR, NULL_DEV);
	drop_cap(CAP_DAC_OVERRIDE);
	try_mknod("read-only directory", "readonly/null-2", CHR, NULL_DEV);
	try_mknod("hidden directory", "hidden/null-2", CHR, NULL_DEV);
	try_mknod("onto what exists", "readonly/null", CHR, NULL_DEV);
}

static void no_new_privs(void)
{
	must("no_new_privs", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	try_mknod("no_new_privs", "null", CHR, NULL_DEV);
}

static void write_file(const char *path, const char *text)
{
	int fd = must(path, open(path, O_WRONLY | O_CLOEXEC));
	must(path, write(fd, text, strlen(text)));
	close(fd);
}

/* Full capabilities, and none of them ours to count. */
static void nested(void)
{
	must("unshare", unshare(CLONE_NEWUSER));
	try_mknod("no ids mapped", "null", CHR, NULL_DEV);
	try_mknod("whiteout, no ids mapped", "whiteout", S_IFCHR, 0);
	write_file("/proc/self/setgroups", "deny");
	write_file("/proc/self/uid_map", "0 0 1");
	write_file("/proc/self/gid_map", "0 0 1");
	try_mknod("root mapped", "null-2", CHR, NULL_DEV);
	try_mknodat("root mapped, at", AT_FDCWD, "null-3", CHR, NULL_DEV, "null-3");
	try_mknod("root mapped, whiteout", "whiteout-2", S_IFCHR, 0);
	make_file("file");
	try_mknod("root mapped, onto a file", "file", CHR, NULL_DEV);
}

/* A directory of an owner the container has no id for; natively it is root's. */
static void unmapped(void)
{
	try_mknod("in /unmapped", "/unmapped/null", CHR, NULL_DEV);
	try_mknod("whiteout in /unmapped", "/unmapped/whiteout", S_IFCHR, 0);
}

const struct scenario cred_scenarios[] = {
	{"user", user},
	{"user-mknod", user_keeping},
	{"user-groups", user_groups},
	{"user-override", user_override},
	{"effective-ids", effective_ids},
	{"fs-ids", fs_ids},
	{"no-cap", no_capability},
	{"cap-not-effective", effective_only},
	{"no-override", no_override},
	{"no-new-privs", no_new_privs},
	{"nested-userns", nested},
	{"unmapped-owner", unmapped},
	{NULL, NULL},
};
