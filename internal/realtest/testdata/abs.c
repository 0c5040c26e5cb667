// A program that does what it is told, by absolute paths. It prints "ready",
// and for each line on standard input one line:
//
//   load PATH     the version of the plugin that it loads from there
//   read PATH     the first line of the file, or "errno N"
//   make PATH     "made" after it has made the file, or "errno N"
//   shut          "shut" after it has closed all but 0, 1 and 2
//   pid           its process id
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void load(const char *path) {
	void *lib = dlopen(path, RTLD_NOW);
	int (*version)(void) = lib ? (int (*)(void))dlsym(lib, "plugin_version") : 0;
	if (version)
		printf("%d\n", version());
	else
		printf("%s\n", dlerror());
}

static void show(const char *path) {
	char line[256];
	FILE *f = fopen(path, "r");
	if (f && fgets(line, sizeof line, f))
		printf("%s\n", strtok(line, "\n"));
	else
		printf("errno %d\n", errno);
	if (f)
		fclose(f);
}

static void make(const char *path) {
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
	if (fd < 0)
		printf("errno %d\n", errno);
	else
		printf("made\n");
	close(fd);
}

int main(void) {
	char line[4096];
	printf("ready\n");
	fflush(stdout);
	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = 0;
		if (!strncmp(line, "load ", 5))
			load(line + 5);
		else if (!strncmp(line, "read ", 5))
			show(line + 5);
		else if (!strncmp(line, "make ", 5))
			make(line + 5);
		else if (!strcmp(line, "pid"))
			printf("%d\n", getpid());
		else {
			for (int fd = 3; fd < 1024; fd++)
				close(fd);
			printf("shut\n");
		}
		fflush(stdout);
	}
	return 0;
}
