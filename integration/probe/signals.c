/* Interruptions, and how long a call takes. */
#include "probe.h"

#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

static volatile sig_atomic_t signals;

static void count(int sig)
{
	(void)sig;
	signals++;
}

static long number(const char *name, long otherwise)
{
	const char *value = getenv(name);
	return value ? atol(value) : otherwise;
}

/* Each call makes its node exactly once and returns 0, whatever interrupts it;
 * or, where the filter's flags let a signal through, says what it did. */
static void alarms(int flags)
{
	struct sigaction act = {.sa_handler = count, .sa_flags = flags};
	struct itimerval every = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};
	must("sigaction", sigaction(SIGALRM, &act, NULL));
	long ok = 0, existed = 0, interrupted = 0, other = 0, absent = 0, early = 0, stays = 0;
	static bool made[500];
	must("setitimer", setitimer(ITIMER_REAL, &every, NULL));
	for (int i = 0; i < 500; i++) {
		char name[16];
		struct stat st;
		snprintf(name, sizeof name, "s%d", i);
		made[i] = sys_mknod(name, CHR, NULL_DEV) == 0;
		if (made[i])
			ok++;
		else if (errno == EEXIST)
			existed++;
		else if (errno == EINTR)
			interrupted++;
		else
			other++;
		bool there = lstat(name, &st) == 0 && S_ISCHR(st.st_mode);
		absent += made[i] && !there;
		early += !made[i] && there;
	}
	must("setitimer", setitimer(ITIMER_REAL, &never, NULL));
	usleep(200 * 1000);
	for (int i = 0; i < 500; i++) {
		char name[16];
		struct stat st;
		snprintf(name, sizeof name, "s%d", i);
		bool there = lstat(name, &st) == 0 && S_ISCHR(st.st_mode);
		absent += made[i] && !there;
		stays += !made[i] && there;
	}
	report_count("returned 0", ok);
	report_count("EEXIST", existed);
	report_count("EINTR", interrupted);
	report_count("other", other);
	report_count("made but absent", absent);
	report_count("failed but there at once", early);
	report_count("failed but there in the end", stays);
	report_time("signals", signals, 0);
}

static void storm(void)
{
	alarms(SA_RESTART);
}

/* mknod is not a call that returns EINTR. */
static void storm_norestart(void)
{
	alarms(0);
}

/* The caller is killed in the middle, again and again: no call hangs, and the
 * next caller is served. */
static void killed(void)
{
	for (int i = 0; i < 50; i++) {
		pid_t pid = must("fork", fork());
		if (pid == 0) {
			char name[32];
			for (int n = 0;; n++) {
				snprintf(name, sizeof name, "k%d-%d", i, n);
				sys_mknod(name, CHR, NULL_DEV);
			}
		}
		usleep(200 + 37 * i);
		kill(pid, SIGKILL);
		must("waitpid", waitpid(pid, NULL, 0));
	}
	try_mknod("afterwards", "null", CHR, NULL_DEV);
}

static void loop(void)
{
	struct timespec from, to;
	long n = number("PROBE_CALLS", 500), ok = 0;
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (long i = 0; i < n; i++) {
		ok += sys_mknod("null", CHR, NULL_DEV) == 0;
		unlink("null");
	}
	clock_gettime(CLOCK_MONOTONIC, &to);
	report_count("all made", ok == n);
	report_time("mknod and unlink", n,
		    (to.tv_sec - from.tv_sec) * 1000000000LL + to.tv_nsec - from.tv_nsec);
}

const struct scenario signal_scenarios[] = {
	{"signals", storm},
	{"signals-norestart", storm_norestart},
	{"killed", killed},
	{"loop", loop},
	{NULL, NULL},
};
