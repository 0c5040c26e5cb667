/* launcher CPU PROGRAM starts the program again and again, as fast as it can,
   on one processor, until its standard input ends. Then it prints how many
   launches there were, how many were of a mixed set (exit status 3), how many
   failed in any other way, and how the last of these did: the program could not
   be started, or it has ended with that status (127: a library is missing), or
   by that signal. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	cpu_set_t set;
	long launches = 0, mixed = 0, failed = 0;
	char how[80] = "-";
	volatile int error; /* of the child, which has our memory until it is another program */

	if (argc != 3)
		return 2;
	CPU_ZERO(&set);
	CPU_SET(atoi(argv[1]), &set);
	if (sched_setaffinity(0, sizeof set, &set) != 0)
		return 1;
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct pollfd in = { 0, POLLIN, 0 };
		int status;
		pid_t pid;

		if (poll(&in, 1, 0) != 0)
			break;
		error = 0;
		pid = vfork();
		if (pid == 0) {
			execl(argv[2], argv[2], (char *)0);
			error = errno;
			_exit(126);
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid)
			return 1;
		launches++;
		if (WIFEXITED(status) && WEXITSTATUS(status) == 3) {
			mixed++;
		} else if (status != 0) {
			failed++;
			if (error != 0)
				snprintf(how, sizeof how, "%s", strerror(error));
			else if (WIFSIGNALED(status))
				snprintf(how, sizeof how, "signal %d", WTERMSIG(status));
			else
				snprintf(how, sizeof how, "status %d", WEXITSTATUS(status));
		}
	}
	printf("%ld %ld %ld %s\n", launches, mixed, failed, how);
	return 0;
}
