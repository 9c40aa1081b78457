/* What every scenario shares: the raw calls, the report, set-up, capabilities. */
#include "probe.h"

#include <linux/capability.h>
#include <sys/sysmacros.h>

const char *scenario_name = "?";
char here[PATH_MAX];

const int standard_caps[] = {
	CAP_CHOWN,  CAP_DAC_OVERRIDE, CAP_FOWNER,     CAP_FSETID,    CAP_KILL,	CAP_SETGID,
	CAP_SETUID, CAP_SETPCAP,      CAP_SYS_CHROOT, CAP_SYS_ADMIN, CAP_MKNOD, CAP_SETFCAP,
	CAP_END,
};

long sys_mknod(const char *path, unsigned mode, unsigned dev)
{
	return syscall(SYS_mknod, path, mode, dev);
}

long sys_mknodat(int dirfd, const char *path, unsigned mode, unsigned dev)
{
	return syscall(SYS_mknodat, dirfd, path, mode, dev);
}

static const char *type_name(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFCHR: return "char";
	case S_IFBLK: return "block";
	case S_IFIFO: return "fifo";
	case S_IFSOCK: return "socket";
	case S_IFREG: return "regular";
	case S_IFDIR: return "directory";
	case S_IFLNK: return "symlink";
	}
	return "unknown";
}

static int add_node(char *at, size_t room, const struct stat *st)
{
	return snprintf(at, room,
			"{\"type\":\"%s\",\"mode\":\"%06o\",\"uid\":%u,\"gid\":%u,"
			"\"major\":%u,\"minor\":%u}",
			type_name(st->st_mode), (unsigned)st->st_mode, (unsigned)st->st_uid,
			(unsigned)st->st_gid, major(st->st_rdev), minor(st->st_rdev));
}

/* Opening is what a node is for; reading shows that the right driver answers. */
static void open_and_read(const char *look, const char **opened, char *data, size_t room)
{
	int fd = open(look, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW);
	if (fd < 0) {
		*opened = strerrorname_np(errno);
		return;
	}
	*opened = "ok";
	unsigned char got[4];
	ssize_t n = read(fd, got, sizeof got);
	if (n < 0)
		snprintf(data, room, "%s", strerrorname_np(errno));
	else if (n == 0)
		snprintf(data, room, "eof");
	for (ssize_t i = 0; i < n; i++)
		snprintf(data + 2 * i, room - 2 * i, "%02x", got[i]);
	close(fd);
}

static void put(const char *line, int n)
{
	/* One write, so that the lines of threads do not mix. */
	if (write(STDOUT_FILENO, line, n) != n)
		_exit(3);
}

void report(const char *label, long ret, int err, const char *look)
{
	char node[256] = "null", data[16] = "";
	const char *opened = "";
	struct stat st;
	if (look && fstatat(AT_FDCWD, look, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		add_node(node, sizeof node, &st);
		if (!S_ISLNK(st.st_mode) && !S_ISDIR(st.st_mode))
			open_and_read(look, &opened, data, sizeof data);
	}
	const char *name = ret < 0 && err ? strerrorname_np(err) : "";
	char line[1024];
	int n = snprintf(line, sizeof line,
			 "{\"scenario\":\"%s\",\"name\":\"%s\",\"ret\":%ld,\"errno\":%d,"
			 "\"errname\":\"%s\",\"node\":%s,\"open\":\"%s\",\"read\":\"%s\"}\n",
			 scenario_name, label, ret, ret < 0 ? err : 0, name ? name : "?", node,
			 opened, data);
	put(line, n);
}

void report_count(const char *label, long n)
{
	report(label, n, 0, NULL);
}

void report_time(const char *label, long calls, long long ns)
{
	char line[256];
	int n = snprintf(line, sizeof line,
			 "{\"scenario\":\"%s\",\"name\":\"%s\",\"time\":true,\"calls\":%ld,\"ns\":%lld}\n",
			 scenario_name, label, calls, ns);
	put(line, n);
}

void try_mknod(const char *label, const char *path, unsigned mode, unsigned dev)
{
	long ret = sys_mknod(path, mode, dev);
	report(label, ret, errno, path);
}

void try_mknodat(const char *label, int dirfd, const char *path, unsigned mode, unsigned dev,
		 const char *look)
{
	long ret = sys_mknodat(dirfd, path, mode, dev);
	report(label, ret, errno, look);
}

long must(const char *what, long ret)
{
	if (ret >= 0)
		return ret;
	char label[128];
	snprintf(label, sizeof label, "set-up: %s", what);
	report(label, ret, errno, NULL);
	exit(0);
}

int open_dir(const char *path)
{
	return must(path, open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

void make_dir(const char *path, mode_t mode)
{
	must(path, mkdir(path, 0700));
	must(path, chmod(path, mode));
}

void make_file(const char *path)
{
	close(must(path, open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644)));
}

char *under(const char *dir, const char *name)
{
	char *s;
	must("asprintf", asprintf(&s, "%s/%s/%s", here, dir, name));
	return s;
}

static uint64_t bits(const int *caps)
{
	uint64_t b = 0;
	for (; *caps != CAP_END; caps++)
		b |= 1ULL << *caps;
	return b;
}

static void change_caps(uint64_t permitted, uint64_t effective, uint64_t raise)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];
	must("capget", syscall(SYS_capget, &head, data));
	for (int i = 0; i < 2; i++) {
		data[i].permitted &= (uint32_t)(permitted >> (32 * i));
		data[i].effective = (data[i].effective | (uint32_t)(raise >> (32 * i))) &
				    (uint32_t)(effective >> (32 * i)) & data[i].permitted;
	}
	must("capset", syscall(SYS_capset, &head, data));
}

void limit_caps(const int *caps)
{
	change_caps(bits(caps), bits(caps), 0);
}

void set_effective(const int *caps)
{
	change_caps(~0ULL, bits(caps), bits(caps));
}

void drop_cap(int cap)
{
	change_caps(~0ULL, ~(1ULL << cap), 0);
}
