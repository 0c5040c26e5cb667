// A program with a library that the loader finds by its cache. It prints the
// library's version, and with an argument waits until standard input ends.
#include <stdio.h>

int moultx_version(void);

int main(int argc, char **argv) {
	printf("%d\n", moultx_version());
	fflush(stdout);
	if (argc > 1)
		while (getchar() != EOF)
			;
	return 0;
}
