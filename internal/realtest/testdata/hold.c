// A static program that gets hold of something, says "ready" and waits until
// standard input ends.
//
//   hold               nothing but itself
//   hold chroot DIR    makes DIR its root directory
//   hold hide DIR      goes into a mount namespace of its own and mounts
//                      something else over DIR there
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

static int hold(char **argv) {
	if (!argv[1])
		return 0;
	if (!strcmp(argv[1], "chroot"))
		return chroot(argv[2]) || chdir("/");
	if (!strcmp(argv[1], "hide"))
		return unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
		       mount("none", argv[2], "tmpfs", 0, NULL);
	return 1;
}

int main(int argc, char **argv) {
	char c;
	if (hold(argv)) {
		perror(argv[1]);
		return 1;
	}
	write(1, "ready\n", 6);
	while (read(0, &c, 1) > 0)
		;
	return 0;
}
