#ifndef MOUNTPROBE_H
#define MOUNTPROBE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TEXT 8192
#define MAX_WORDS 16

struct words {
	char **v;
	int n;
};

/* What a command gives: an errno, or a text, or nothing but success. */
struct outcome {
	int err;
	char text[TEXT];
};

struct command {
	const char *name;
	int least; /* words after the name */
	void (*run)(struct words, struct outcome *);
};

extern const struct command commands[];

void perform(struct words w, struct outcome *o);

#endif
