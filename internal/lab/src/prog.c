/* The program of the lab.

   prog launch   prints the version of itself and of each library, and ends.
   prog serve    answers one line for each line on its standard input:
                   ask   the versions, after a call into every page of code
                   cold  gives its pages of code back to the kernel
                   call  from now on calls while it waits, without a pause
                   plug  loads the plugin and asks it
                 and ends with its input. Waiting, it sleeps in poll(2). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define MEND prog_mend
#include "pages.h"

int a_pages(void), a_call(int);
int b_pages(void), b_call(int);

static int exe_pages(void) { return PAGES; }
static int exe_call(int i) { return table[i](); }

/* version calls functions 0 to n-1; every one must give the same version and
   its own number. 0 means that they do not. */
static int version(int (*call)(int), int n)
{
	int first = call(0);
	for (int i = 1; i < n; i++)
		if (call(i) != first + i)
			return 0;
	return first % 1000 ? 0 : first / 1000;
}

/* ask_plugin loads the plugin by its bare name: the loader finds it by the
   program's run path, $ORIGIN/../lib. It returns the version, 0 if the
   plugin's functions do not agree, -1 if it does not load. */
static int ask_plugin(const char **why)
{
	void *plugin = dlopen("libplugin.so", RTLD_NOW);
	if (!plugin) {
		*why = dlerror();
		return -1;
	}
	int (*call)(int) = (int (*)(int))dlsym(plugin, "plugin_call");
	int (*pages)(void) = (int (*)(void))dlsym(plugin, "plugin_pages");
	*why = "its functions are missing";
	return call && pages ? version(call, pages()) : -1;
}

/* go_cold unmaps, page by page, all code that is mapped from files: it is
   private and was never written, so the next call reads it from the file. */
static void go_cold(void)
{
	char line[4352];
	FILE *maps = fopen("/proc/self/maps", "r");
	while (maps && fgets(line, sizeof line, maps)) {
		unsigned long from, to, inode;
		char perm[5];
		if (sscanf(line, "%lx-%lx %4s %*s %*s %lu", &from, &to, perm, &inode) == 4
		    && inode && !strcmp(perm, "r-xp"))
			madvise((void *)from, to - from, MADV_DONTNEED);
	}
	if (maps)
		fclose(maps);
}

static long major_faults(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return u.ru_majflt;
}

static int next_line(char *line, size_t size)
{
	size_t n = 0;
	while (n + 1 < size && read(0, line + n, 1) == 1) {
		if (line[n] == '\n') {
			line[n] = 0;
			return 1;
		}
		n++;
	}
	return 0;
}

static void serve(void)
{
	char line[64];
	const char *why;
	int calling = 0, steady = 1;
	int first_exe = exe_call(0), first_a = a_call(0);

	puts("ready");
	for (;;) {
		struct pollfd in = { 0, POLLIN, 0 };
		while (calling && poll(&in, 1, 0) == 0) {
			/* the first quarter only: the rest stays cold */
			for (int i = 0; i < PAGES / 4; i++)
				steady &= exe_call(i) == first_exe + i;
			for (int i = 0; i < 256 / 4; i++)
				steady &= a_call(i) == first_a + i;
		}
		if (!calling)
			poll(&in, 1, -1);
		if (!next_line(line, sizeof line))
			return;
		if (!strcmp(line, "ask")) {
			int exe = version(exe_call, exe_pages());
			int a = version(a_call, a_pages()), b = version(b_call, b_pages());
			printf("exe=%d a=%d b=%d steady=%d faults=%ld\n", exe, a, b, steady, major_faults());
		} else if (!strcmp(line, "cold")) {
			go_cold();
			puts("cold");
		} else if (!strcmp(line, "call")) {
			calling = 1;
			puts("calling");
		} else if (!strcmp(line, "plug")) {
			int plugin = ask_plugin(&why);
			if (plugin < 0)
				printf("plugin fails: %s\n", why);
			else
				printf("plugin=%d\n", plugin);
		}
	}
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 1 && !strcmp(argv[1], "serve")) {
		serve();
		return 0;
	}
	const char *why;
	int plugin = ask_plugin(&why);
	if (plugin < 0) {
		fprintf(stderr, "plugin: %s\n", why);
		return 1;
	}
	/* one call each: a launch is to be short */
	printf("exe=%d a=%d b=%d plugin=%d\n", exe_call(0) / 1000, a_call(0) / 1000, b_call(0) / 1000, plugin);
	return 0;
}
