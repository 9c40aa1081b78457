/*
 * probe makes device nodes in every way a program can and prints what came of
 * it, one JSON object a line. The same binary runs inside a container and, for
 * comparison, natively as real root; see ../README.md.
 */
#ifndef PROBE_H
#define PROBE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <limits.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* dev_t as mknod(2) itself takes it: new_encode_dev() in the kernel. */
#define DEV(major, minor) \
	(((minor) & 0xffu) | ((unsigned)(major) << 8) | (((minor) & ~0xffu) << 12))
#define NULL_DEV DEV(1, 3)
#define ZERO_DEV DEV(1, 5)

#define CHR (S_IFCHR | 0666)
#define BLK (S_IFBLK | 0660)

/* A scenario runs in a process of its own, in an empty directory of its own,
 * with umask 022, as root, with the capabilities of STANDARD_CAPS. */
struct scenario {
	const char *name;
	void (*run)(void);
};

/* One table per subject; each ends with a NULL name. */
extern const struct scenario kind_scenarios[];
extern const struct scenario path_scenarios[];
extern const struct scenario cred_scenarios[];
extern const struct scenario thread_scenarios[];
extern const struct scenario mount_scenarios[];
extern const struct scenario signal_scenarios[];
extern const struct scenario abi_scenarios[];

/* The running scenario and its absolute directory. */
extern const char *scenario_name;
extern char here[];

/* report prints the outcome of a call and what now stands at `look` (no
 * symlink followed), relative to the calling thread's cwd; NULL: nothing. */
void report(const char *label, long ret, int err, const char *look);
/* report_count prints a number that is compared as a result. */
void report_count(const char *label, long n);
/* report_time prints a measurement, which nobody compares. */
void report_time(const char *label, long calls, long long ns);

/* Raw calls: no libc between us and the kernel. errno is set. */
long sys_mknod(const char *path, unsigned mode, unsigned dev);
long sys_mknodat(int dirfd, const char *path, unsigned mode, unsigned dev);

/* The same, reported; try_mknod looks at the path it was given. */
void try_mknod(const char *label, const char *path, unsigned mode, unsigned dev);
void try_mknodat(const char *label, int dirfd, const char *path, unsigned mode, unsigned dev,
		 const char *look);

/* Set-up that has to work: must() ends the scenario with a line that says
 * what did not. */
long must(const char *what, long ret);
int open_dir(const char *path);
void make_dir(const char *path, mode_t mode); /* the umask does not count */
void make_file(const char *path);
char *under(const char *dir, const char *name); /* here/dir/name, never freed */

/* Capabilities of the calling thread. */
extern const int standard_caps[];
#define CAP_END (-1)
void limit_caps(const int *caps);    /* permitted and effective := both & caps */
void set_effective(const int *caps); /* effective := permitted & caps */
void drop_cap(int cap);

#endif
