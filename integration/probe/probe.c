/* The command: probe list | probe run SCENARIO[,SCENARIO…]|all DIR */
#include "probe.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

/* No scenario takes this long unless its call hangs. */
#define SCENARIO_SECONDS 30

static const struct scenario *const tables[] = {
	kind_scenarios,	 path_scenarios,   cred_scenarios, thread_scenarios,
	mount_scenarios, signal_scenarios, abi_scenarios,
};
#define TABLES (sizeof tables / sizeof *tables)

static const struct scenario *find(const char *name)
{
	for (size_t i = 0; i < TABLES; i++)
		for (const struct scenario *s = tables[i]; s->name; s++)
			if (!strcmp(s->name, name))
				return s;
	return NULL;
}

static void child(const struct scenario *s, const char *dir)
{
	umask(022);
	/* What a scenario leaves running ends with it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (snprintf(here, PATH_MAX, "%s/%s", dir, s->name) >= PATH_MAX)
		exit(2);
	must("mkdir", mkdir(here, 0755));
	must("chdir", chdir(here));
	s->run();
	exit(0);
}

static int run_one(const struct scenario *s, const char *dir)
{
	sigset_t chld, before;
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, &before);
	scenario_name = s->name;

	pid_t pid = fork();
	if (pid < 0) {
		perror("fork");
		return 1;
	}
	if (pid == 0) {
		sigprocmask(SIG_SETMASK, &before, NULL);
		child(s, dir);
	}

	struct timespec left = {.tv_sec = SCENARIO_SECONDS};
	bool late = sigtimedwait(&chld, NULL, &left) < 0 && errno == EAGAIN;
	if (late)
		kill(pid, SIGKILL);
	int status;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (late)
		report("timeout", -1, ETIMEDOUT, NULL);
	else if (WIFSIGNALED(status))
		report_count("killed by signal", WTERMSIG(status));
	else if (WEXITSTATUS(status))
		report_count("exit status", WEXITSTATUS(status));
	return late || status;
}

static int run(char *names, const char *dir)
{
	int bad = 0;
	if (!strcmp(names, "all")) {
		for (size_t i = 0; i < TABLES; i++)
			for (const struct scenario *s = tables[i]; s->name; s++)
				bad |= run_one(s, dir);
		return bad;
	}
	for (char *name = strtok(names, ","); name; name = strtok(NULL, ",")) {
		const struct scenario *s = find(name);
		if (!s) {
			fprintf(stderr, "probe: no scenario %s\n", name);
			return 2;
		}
		bad |= run_one(s, dir);
	}
	return bad;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "list")) {
		for (size_t i = 0; i < TABLES; i++)
			for (const struct scenario *s = tables[i]; s->name; s++)
				puts(s->name);
		return 0;
	}
	/* A container's first process that stays, for exec sessions. */
	if (argc == 2 && !strcmp(argv[1], "pause"))
		for (;;)
			pause();
	/* Before the fork, so that parent and children may look at each other. */
	limit_caps(standard_caps);
	if (argc == 4 && !strcmp(argv[1], "run")) {
		mkdir(argv[3], 0755);
		return run(argv[2], argv[3]) ? 1 : 0;
	}
	fprintf(stderr, "usage: probe list | pause | run SCENARIO[,SCENARIO...]|all DIR\n");
	return 2;
}
