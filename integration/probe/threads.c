/* Which thread makes it: not every task is its process. */
#include "probe.h"

#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <sys/fsuid.h>

/* in_thread runs f in a second thread and waits for it. */
static void in_thread(void *(*f)(void *))
{
	pthread_t t;
	errno = pthread_create(&t, NULL, f, NULL);
	must("pthread_create", errno ? -1 : 0);
	pthread_join(t, NULL);
}

static void *plain_thread(void *arg)
{
	(void)arg;
	try_mknod("thread", "null", CHR, NULL_DEV);
	int fd = open_dir("dir");
	try_mknodat("thread, dirfd", fd, "null", CHR, NULL_DEV, "dir/null");
	return NULL;
}

static void thread(void)
{
	make_dir("dir", 0755);
	in_thread(plain_thread);
}

static volatile pid_t leader;

static void *orphan(void *arg)
{
	(void)arg;
	/* Until the leader is a zombie: its cwd link is gone then. */
	char path[64], link[8];
	snprintf(path, sizeof path, "/proc/%d/cwd", leader);
	for (int i = 0; i < 2000 && readlink(path, link, sizeof link) >= 0; i++)
		usleep(1000);
	try_mknod("relative", "null", CHR, NULL_DEV);
	try_mknod("absolute", under(".", "absolute"), CHR, NULL_DEV);
	int fd = open_dir("dir");
	try_mknodat("dirfd", fd, "null", CHR, NULL_DEV, "dir/null");
	exit(0);
}

static void leader_gone(void)
{
	pthread_t t;
	make_dir("dir", 0755);
	leader = getpid();
	errno = pthread_create(&t, NULL, orphan, NULL);
	must("pthread_create", errno ? -1 : 0);
	syscall(SYS_exit, 0);
}

#define SHARED_FD 20

static void *own_files(void *arg)
{
	(void)arg;
	must("unshare", unshare(CLONE_FILES));
	must("dup2", dup2(open_dir("b"), SHARED_FD));
	try_mknodat("own table", SHARED_FD, "null", CHR, NULL_DEV, "b/null");
	report("not in the leader's", 0, 0, "a/null");
	close(SHARED_FD);
	try_mknodat("closed in ours, open in the leader's", SHARED_FD, "x", CHR, NULL_DEV, "a/x");
	return NULL;
}

static void clone_files(void)
{
	make_dir("a", 0755);
	make_dir("b", 0755);
	must("dup2", dup2(open_dir("a"), SHARED_FD));
	in_thread(own_files);
	try_mknodat("leader's", SHARED_FD, "leader", CHR, NULL_DEV, "a/leader");
}

static void *own_fs(void *arg)
{
	(void)arg;
	must("unshare", unshare(CLONE_FS));
	must("chdir", chdir("b"));
	umask(077);
	try_mknod("own cwd and umask", "null", CHR, NULL_DEV);
	must("chroot", chroot("."));
	try_mknod("own root", "/root", CHR, NULL_DEV);
	return NULL;
}

static void clone_fs(void)
{
	make_dir("a", 0755);
	make_dir("b", 0755);
	umask(0);
	must("chdir", chdir("a"));
	must("symlink", symlink("../b", "b"));
	in_thread(own_fs);
	try_mknod("leader's cwd and umask", "leader", CHR, NULL_DEV);
	report("thread's in b", 0, 0, "../b/null");
	report("root in b", 0, 0, "../b/root");
	report("not in a", 0, 0, "null");
}

static void *own_creds(void *arg)
{
	(void)arg;
	/* Raw: libc's wrappers change every thread. */
	static const int only_mknod[] = {CAP_MKNOD, CAP_END};
	syscall(SYS_setfsgid, 1001);
	syscall(SYS_setfsuid, 1000);
	try_mknod("thread without the capability", "open/none", CHR, NULL_DEV);
	set_effective(only_mknod);
	try_mknod("thread's fsuid", "open/thread", CHR, NULL_DEV);
	try_mknod("thread may not write here", "closed/thread", CHR, NULL_DEV);
	return NULL;
}

static void thread_creds(void)
{
	make_dir("open", 0777);
	make_dir("closed", 0755);
	in_thread(own_creds);
	try_mknod("leader's", "closed/leader", CHR, NULL_DEV);
}

#define THREADS 8
#define EACH 50
static int made[THREADS], wrong[THREADS];

static void *many(void *arg)
{
	int me = (int)(intptr_t)arg;
	for (int i = 0; i < EACH; i++) {
		char name[32];
		struct stat st;
		snprintf(name, sizeof name, "t%d-%d", me, i);
		made[me] += sys_mknod(name, CHR, NULL_DEV) == 0;
		wrong[me] += stat(name, &st) != 0 || !S_ISCHR(st.st_mode) || (st.st_mode & 07777) != 0644;
	}
	return NULL;
}

static void storm(void)
{
	pthread_t t[THREADS];
	long all = 0, bad = 0;
	for (int i = 0; i < THREADS; i++)
		must("pthread_create", -pthread_create(&t[i], NULL, many, (void *)(intptr_t)i));
	for (int i = 0; i < THREADS; i++) {
		pthread_join(t[i], NULL);
		all += made[i];
		bad += wrong[i];
	}
	report_count("made", all);
	report_count("wrong", bad);
}

/* All race for the same name: one wins, the others get EEXIST. */
static int won, lost, other;

static void *contender(void *arg)
{
	(void)arg;
	for (int i = 0; i < EACH; i++) {
		char name[32];
		snprintf(name, sizeof name, "r%d", i);
		if (sys_mknod(name, CHR, NULL_DEV) == 0)
			__sync_fetch_and_add(&won, 1);
		else if (errno == EEXIST)
			__sync_fetch_and_add(&lost, 1);
		else
			__sync_fetch_and_add(&other, 1);
	}
	return NULL;
}

static void race(void)
{
	pthread_t t[THREADS];
	for (int i = 0; i < THREADS; i++)
		must("pthread_create", -pthread_create(&t[i], NULL, contender, NULL));
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	report_count("won", won);
	report_count("EEXIST", lost);
	report_count("other", other);
}

const struct scenario thread_scenarios[] = {
	{"thread", thread},
	{"leader-gone", leader_gone},
	{"clone-files", clone_files},
	{"clone-fs", clone_fs},
	{"thread-creds", thread_creds},
	{"thread-storm", storm},
	{"thread-race", race},
	{NULL, NULL},
};
