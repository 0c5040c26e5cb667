/* Faults that a successor may have before it is ready. Which one, is in the file
 * "fault" of the working directory. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int deep(int n)
{
	volatile char room[4096];
	memset((char *)room, n, sizeof room);
	return deep(n + 1) + room[n % 4096];
}

static void *crash(void *arg)
{
	*(volatile int *)(size_t)16 = 1;
	return arg;
}

int fault(int (*rollback)(const char *))
{
	char name[32] = "";
	pthread_t thread;
	int fd = open("fault", O_RDONLY);
	if (fd < 0 || read(fd, name, sizeof name - 1) < 0)
		return 0;
	close(fd);
	if (strcmp(name, "segfault") == 0)
		crash(NULL);
	else if (strcmp(name, "abort") == 0)
		abort();
	else if (strcmp(name, "divide") == 0)
		raise(SIGFPE);
	else if (strcmp(name, "illegal") == 0)
		__builtin_trap();
	else if (strcmp(name, "bus") == 0)
		raise(SIGBUS);
	else if (strcmp(name, "exit") == 0)
		exit(1);
	else if (strcmp(name, "state") == 0)
		rollback("the saved state is of version 9");
	else if (strcmp(name, "overflow") == 0)
		return deep(1);
	else if (strcmp(name, "thread") == 0) {
		if (pthread_create(&thread, NULL, crash, NULL) == 0)
			pthread_join(thread, NULL);
	} else if (strcmp(name, "fork") == 0) {
		pid_t child = fork();
		if (child == 0)
			crash(NULL);
		int status = 0;
		waitpid(child, &status, 0);
		if (!WIFSIGNALED(status))
			rollback("a child went back");
		exit(1);
	}
	return 1;
}
