/* The commands of a script. */
#include "mountprobe.h"

#include <dirent.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>

#define PAGE 4096

static void result(struct outcome *o, long ret)
{
	o->err = ret < 0 ? errno : 0;
}

/* A pointer as a script writes it. */
static const char *pointer(const char *word)
{
	if (!strcmp(word, "-"))
		return NULL;
	if (!strcmp(word, "BAD"))
		return (const char *)8;
	return word;
}

static unsigned long number(const char *word)
{
	return strtoul(word, NULL, 0);
}

/* Three pages of which the last cannot be touched. */
static char *pages(void)
{
	char *p = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED || munmap(p + 2 * PAGE, PAGE) < 0)
		_exit(4);
	return p;
}

/* LONG: more than a page without an end. EDGE:TEXT: text without an end right
 * before what is not mapped. FILL:TEXT: text at the end of a whole page whose
 * end is in the next one. */
static const char *data_pointer(const char *word)
{
	if (!strcmp(word, "LONG")) {
		char *p = pages();
		memset(p, 'a', 2 * PAGE);
		return p;
	}
	if (!strncmp(word, "EDGE:", 5)) {
		char *end = pages() + 2 * PAGE;
		size_t n = strlen(word + 5);
		return memcpy(end - n, word + 5, n);
	}
	if (!strncmp(word, "FILL:", 5)) {
		char *p = pages();
		size_t n = strlen(word + 5);
		memset(p, ',', PAGE);
		memcpy(p + PAGE - 1 - n, word + 5, n);
		p[PAGE - 1] = 0;
		return p;
	}
	return pointer(word);
}

/* mount SOURCE TARGET TYPE FLAGS DATA */
static void do_mount(struct words w, struct outcome *o)
{
	result(o, syscall(SYS_mount, pointer(w.v[0]), pointer(w.v[1]), pointer(w.v[2]), number(w.v[3]),
			  data_pointer(w.v[4])));
}

static void do_umount(struct words w, struct outcome *o)
{
	result(o, syscall(SYS_umount2, pointer(w.v[0]), w.n > 1 ? number(w.v[1]) : 0));
}

/* repeat COUNT COMMAND…: the first failure is the outcome */
static void do_repeat(struct words w, struct outcome *o)
{
	unsigned long n = number(w.v[0]);
	w.v++, w.n--;
	for (unsigned long i = 0; i < n && !o->err; i++)
		perform(w, o);
}

static void do_mkdir(struct words w, struct outcome *o)
{
	result(o, mkdir(w.v[0], 0755));
}

static void do_symlink(struct words w, struct outcome *o)
{
	result(o, symlink(w.v[0], w.v[1]));
}

static void do_unlink(struct words w, struct outcome *o)
{
	result(o, remove(w.v[0]));
}

static void do_chown(struct words w, struct outcome *o)
{
	result(o, lchown(w.v[0], number(w.v[1]), number(w.v[2])));
}

static void do_chmod(struct words w, struct outcome *o)
{
	result(o, chmod(w.v[0], number(w.v[1])));
}

static void do_write(struct words w, struct outcome *o)
{
	int fd = open(w.v[0], O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0) {
		o->err = errno;
		return;
	}
	result(o, write(fd, w.v[1], strlen(w.v[1])));
	if (!o->err)
		result(o, fsync(fd));
	close(fd);
}

static void read_all(const char *path, struct outcome *o)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		o->err = errno;
		return;
	}
	size_t n = 0;
	ssize_t got = 0;
	while (n < TEXT - 1 && (got = read(fd, o->text + n, TEXT - 1 - n)) > 0)
		n += got;
	o->text[n] = 0;
	o->err = got < 0 ? errno : 0;
	close(fd);
}

static void do_read(struct words w, struct outcome *o)
{
	read_all(w.v[0], o);
}

static void do_open(struct words w, struct outcome *o)
{
	int fd = open(w.v[0], O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	result(o, fd);
	if (fd >= 0)
		close(fd);
}

static void do_stat(struct words w, struct outcome *o)
{
	struct stat st;
	result(o, lstat(w.v[0], &st));
	if (o->err)
		return;
	snprintf(o->text, TEXT, "%06o of %d:%d", (unsigned)st.st_mode, (int)st.st_uid, (int)st.st_gid);
}

/* device PATH MAJOR MINOR, a block device */
static void do_device(struct words w, struct outcome *o)
{
	result(o, mknod(w.v[0], S_IFBLK | 0660, makedev(number(w.v[1]), number(w.v[2]))));
}

/* In a child: what it prints becomes the text, its exit status the errno. */
static void in_child(struct outcome *o, int (*f)(void *), void *arg)
{
	int p[2], status;
	if (pipe2(p, O_CLOEXEC) < 0)
		_exit(4);
	pid_t pid = fork();
	if (pid == 0) {
		dup2(p[1], STDOUT_FILENO);
		dup2(p[1], STDERR_FILENO);
		_exit(f(arg));
	}
	close(p[1]);
	size_t n = 0;
	ssize_t got;
	while (n < TEXT - 1 && (got = read(p[0], o->text + n, TEXT - 1 - n)) > 0)
		n += got;
	o->text[n] = 0;
	close(p[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	o->err = WIFEXITED(status) ? WEXITSTATUS(status) : ENOTRECOVERABLE;
}

static void become(unsigned id)
{
	if (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, id, id, id) < 0 ||
	    syscall(SYS_setresuid, id, id, id) < 0)
		_exit(EPROTO);
}

static int execute(void *arg)
{
	struct words *w = arg;
	execv(w->v[0], w->v);
	return errno;
}

static int execute_as_user(void *arg)
{
	become(1000);
	return execute(arg);
}

/* exec PROGRAM WORD…: errno of execve(2) or the exit status */
static void do_exec(struct words w, struct outcome *o)
{
	in_child(o, execute, &w);
}

/* suid PROGRAM: run by uid 1000, which user is it? */
static void do_suid(struct words w, struct outcome *o)
{
	char *v[] = {w.v[0], "ids", NULL};
	struct words program = {v, 2};
	in_child(o, execute_as_user, &program);
}

/* user ID COMMAND…: the command's outcome as another user */
struct as {
	struct words w;
	int (*before)(struct words *);
};

static int run_as(void *arg)
{
	struct as *a = arg;
	static struct outcome o;
	int err = a->before(&a->w);
	if (err)
		return err;
	perform(a->w, &o);
	if (write(STDOUT_FILENO, o.text, strlen(o.text)) < 0)
		return EPROTO;
	return o.err;
}

static int before_user(struct words *w)
{
	become(number(w->v[0]));
	w->v++, w->n--;
	return 0;
}

static int before_chroot(struct words *w)
{
	if (chroot(w->v[0]) < 0 || chdir("/") < 0)
		return EPROTO;
	w->v++, w->n--;
	return 0;
}

static int before_cd(struct words *w)
{
	if (chdir(w->v[0]) < 0)
		return EPROTO;
	w->v++, w->n--;
	return 0;
}

static int before_nocap(struct words *w)
{
	(void)w;
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];
	if (syscall(SYS_capget, &head, data) < 0)
		return EPROTO;
	data[0].effective &= ~(1u << CAP_SYS_ADMIN);
	return syscall(SYS_capset, &head, data) < 0 ? EPROTO : 0;
}

static int before_newns(struct words *w)
{
	(void)w;
	return unshare(CLONE_NEWNS) < 0 ? EPROTO : 0;
}

static int put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		return EPROTO;
	return close(fd);
}

static int before_nested(struct words *w)
{
	(void)w;
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
		return EPROTO;
	return put("/proc/self/setgroups", "deny") || put("/proc/self/uid_map", "0 0 1") ||
	       put("/proc/self/gid_map", "0 0 1");
}

#define PREFIX(name)                                                    \
	static void do_##name(struct words w, struct outcome *o)        \
	{                                                               \
		in_child(o, run_as, &(struct as){w, before_##name});    \
	}
PREFIX(user)
PREFIX(chroot)
PREFIX(cd)
PREFIX(nocap)
PREFIX(newns)
PREFIX(nested)

struct job {
	struct words w;
	struct outcome *o;
};

static void *work(void *arg)
{
	struct job *j = arg;
	perform(j->w, j->o);
	return NULL;
}

/* thread COMMAND…: by a thread that is not the first */
static void do_thread(struct words w, struct outcome *o)
{
	pthread_t t;
	struct job j = {w, o};
	o->err = pthread_create(&t, NULL, work, &j);
	if (!o->err)
		pthread_join(t, NULL);
}

static void pause_ms(long ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
	while (nanosleep(&t, &t) < 0)
		;
}

static void use(const char *path)
{
	struct outcome o;
	struct stat st;
	if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode)) {
		read_all(path, &o);
		return;
	}
	DIR *d = opendir(path);
	while (d && readdir(d))
		;
	if (d)
		closedir(d);
}

static const char *moved(const char *path, struct timespec *before)
{
	struct stat st;
	stat(path, &st);
	int same = st.st_atim.tv_sec == before->tv_sec && st.st_atim.tv_nsec == before->tv_nsec;
	*before = st.st_atim;
	return same ? "kept" : "moved";
}

/* atime PATH: does reading move the access time, first from before the last
 * change (relatime: yes), then from after it (relatime: no)? The clock of
 * timestamps has ticks of up to 10 ms. */
static void do_atime(struct words w, struct outcome *o)
{
	const char *path = w.v[0];
	struct timespec old[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000001}};
	result(o, utimensat(AT_FDCWD, path, old, 0));
	if (o->err)
		return;
	pause_ms(25);
	use(path);
	const char *first = moved(path, &old[0]);
	pause_ms(25);
	use(path);
	snprintf(o->text, TEXT, "%s %s", first, moved(path, &old[0]));
}

static int cut(char *line, char **v, int most)
{
	int n = 0;
	for (char *s = strtok(line, " \n"); s && n < most; s = strtok(NULL, " \n"))
		v[n++] = s;
	return n;
}

/* info TARGET: the last mount there as mountinfo has it:
 * TYPE SOURCE MOUNT-OPTIONS SUPERBLOCK-OPTIONS, or ENOENT */
static void do_info(struct words w, struct outcome *o)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	static char line[TEXT];
	o->err = ENOENT;
	while (f && fgets(line, sizeof line, f)) {
		char *v[64];
		int n = cut(line, v, 64), dash = 6;
		if (n < 10 || strcmp(v[4], w.v[0]))
			continue;
		while (dash < n - 3 && strcmp(v[dash], "-"))
			dash++;
		o->err = 0;
		snprintf(o->text, TEXT, "%s %s %s %s", v[dash + 1], v[dash + 2], v[5], v[dash + 3]);
	}
	if (f)
		fclose(f);
}

static char *snapshot(void)
{
	int fd = open("/proc/thread-self/mountinfo", O_RDONLY | O_CLOEXEC);
	size_t n = 0, room = 1 << 20;
	ssize_t got;
	char *text = malloc(room);
	while (fd >= 0 && n < room - 1 && (got = read(fd, text + n, room - 1 - n)) > 0)
		n += got;
	text[n] = 0;
	close(fd);
	return text;
}

static char *marked;

/* mark, and unchanged: the mounts are what they were at the mark */
static void do_mark(struct words w, struct outcome *o)
{
	(void)w, (void)o;
	free(marked);
	marked = snapshot();
}

static void do_unchanged(struct words w, struct outcome *o)
{
	(void)w;
	char *now = snapshot();
	o->err = marked && !strcmp(marked, now) ? 0 : EUCLEAN;
	if (o->err)
		snprintf(o->text, TEXT, "%.3000s", now);
	free(now);
}

static void do_sleep(struct words w, struct outcome *o)
{
	(void)o;
	pause_ms(number(w.v[0]));
}

/* await PATH: until the test has made it */
static void do_await(struct words w, struct outcome *o)
{
	for (int i = 0; i < 3000; i++) {
		if (access(w.v[0], F_OK) == 0)
			return;
		pause_ms(10);
	}
	o->err = ETIMEDOUT;
}

const struct command commands[] = {
	{"mount", 5, do_mount},	    {"umount", 1, do_umount},	{"repeat", 2, do_repeat},
	{"mkdir", 1, do_mkdir},	    {"symlink", 2, do_symlink}, {"unlink", 1, do_unlink},
	{"chown", 3, do_chown},	    {"chmod", 2, do_chmod},	{"write", 2, do_write},
	{"read", 1, do_read},	    {"open", 1, do_open},	{"stat", 1, do_stat},
	{"device", 3, do_device},   {"exec", 1, do_exec},	{"suid", 1, do_suid},
	{"user", 2, do_user},	    {"chroot", 2, do_chroot},	{"cd", 2, do_cd},
	{"nocap", 1, do_nocap},	    {"newns", 1, do_newns},	{"nested", 1, do_nested},
	{"thread", 1, do_thread},   {"atime", 1, do_atime},	{"info", 1, do_info},
	{"mark", 0, do_mark},	    {"unchanged", 0, do_unchanged}, {"sleep", 1, do_sleep},
	{"await", 1, do_await},	    {NULL, 0, NULL},
};
