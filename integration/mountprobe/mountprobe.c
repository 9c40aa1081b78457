/*
 * mountprobe makes the raw calls that a script names, one a line, and prints
 * what came of each as a line of JSON. The same script runs inside a container
 * and, for comparison, natively as real root; see ../README.md.
 *
 *     mountprobe run SCRIPT DIR     with DIR as working directory
 *     mountprobe pause              a container's first process that stays
 *     mountprobe ids                prints the effective user id
 *
 * A line is a command with words between spaces; "-" is a null pointer and ""
 * an empty string. "# NAME" begins a section. commands[] has all of them.
 */
#include "mountprobe.h"

#include <sys/prctl.h>
#include <sys/wait.h>

static char section[128] = "?";

static size_t quote(char *to, size_t room, const char *from)
{
	size_t n = 0;
	for (; *from && n + 8 < room; from++) {
		unsigned char c = *from;
		if (c == '"' || c == '\\')
			n += snprintf(to + n, room - n, "\\%c", c);
		else if (c < ' ' || c > '~')
			n += snprintf(to + n, room - n, "\\u%04x", c);
		else
			to[n++] = c;
	}
	to[n] = 0;
	return n;
}

/* In the form of ../internal/probe's Result: what was read is the outcome's text. */
static void print(const char *command, const struct outcome *o)
{
	static char line[3 * TEXT], name[TEXT], text[2 * TEXT];
	const char *errname = o->err ? strerrorname_np(o->err) : "";
	quote(name, sizeof name, command);
	quote(text, sizeof text, o->text);
	int n = snprintf(line, sizeof line,
			 "{\"scenario\":\"%s\",\"name\":\"%s\",\"ret\":%d,\"errno\":%d,"
			 "\"errname\":\"%s\",\"read\":\"%s\"}\n",
			 section, name, o->err ? -1 : 0, o->err, errname ? errname : "?", text);
	if (write(STDOUT_FILENO, line, n) != n)
		_exit(3);
}

static const struct command *find(const char *name)
{
	for (const struct command *c = commands; c->name; c++)
		if (!strcmp(c->name, name))
			return c;
	return NULL;
}

void perform(struct words w, struct outcome *o)
{
	const struct command *c = w.n ? find(w.v[0]) : NULL;
	if (!c || w.n - 1 < c->least) {
		o->err = ENOSYS;
		snprintf(o->text, TEXT, "mountprobe: no such command, or too few words");
		return;
	}
	w.v++, w.n--;
	c->run(w, o);
}

static struct words split(char *line)
{
	static char *v[MAX_WORDS + 1];
	struct words w = {.v = v};
	memset(v, 0, sizeof v);
	for (char *s = strtok(line, " "); s && w.n < MAX_WORDS; s = strtok(NULL, " "))
		v[w.n++] = strcmp(s, "\"\"") ? s : "";
	return w;
}

static int run(const char *script, const char *dir)
{
	FILE *f = fopen(script, "re");
	if (!f) {
		perror(script);
		return 2;
	}
	mkdir(dir, 0755);
	if (chdir(dir) < 0) {
		perror(dir);
		return 2;
	}
	static char line[TEXT], copy[TEXT];
	while (fgets(line, sizeof line, f)) {
		line[strcspn(line, "\n")] = 0;
		if (!line[0])
			continue;
		if (line[0] == '#') {
			snprintf(section, sizeof section, "%.100s", line + 2);
			continue;
		}
		static struct outcome o;
		memset(&o, 0, sizeof o);
		memcpy(copy, line, sizeof copy);
		perform(split(copy), &o);
		print(line, &o);
	}
	fclose(f);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "run"))
		return run(argv[2], argv[3]);
	if (argc == 2 && !strcmp(argv[1], "pause"))
		for (;;)
			pause();
	/* Also under the names of the copies that a filesystem has. */
	if (argc == 2 && !strcmp(argv[1], "ids")) {
		printf("euid %d", (int)geteuid());
		return 0;
	}
	fprintf(stderr, "usage: mountprobe run SCRIPT DIR | pause | ids\n");
	return 2;
}
