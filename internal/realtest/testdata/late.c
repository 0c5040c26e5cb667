// A program with three libraries and a plugin that it loads late. It asks all
// of them for their version.
//
//   late once     waits 20 ms, loads the plugin, and ends with 0 if all is of
//                 one version, 99 if not, 98 if there is no plugin
//   late asked    prints its version, and for each line on standard input loads
//                 the plugin and prints the plugin's version
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int a_version(void);
int b_version(void);
int c_version(void);

static const volatile unsigned char mark[] = "MOULT-VERSION:\001";

static int plugin(void) {
	void *lib = dlopen("$ORIGIN/../lib/plugin.so", RTLD_NOW);
	if (!lib) {
		fprintf(stderr, "%s\n", dlerror());
		return -1;
	}
	int (*version)(void) = (int (*)(void))dlsym(lib, "plugin_version");
	return version();
}

int main(int argc, char **argv) {
	int v = mark[sizeof mark - 2];
	int one = v == a_version() && v == b_version() && v == c_version();
	if (argc > 1 && strcmp(argv[1], "asked") == 0) {
		char line[16];
		printf("%d\n", one ? v : -1);
		fflush(stdout);
		while (fgets(line, sizeof line, stdin)) {
			printf("%d\n", plugin());
			fflush(stdout);
		}
		return 0;
	}
	usleep(20000);
	int p = plugin();
	if (p < 0)
		return 98;
	return one && p == v ? 0 : 99;
}
