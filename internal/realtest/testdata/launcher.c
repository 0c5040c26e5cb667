// launcher QUICK LATE THREADS: starts programs back to back in so many threads,
// one LATE for fifteen QUICK, until standard input ends, and prints what has
// become of the launches as JSON.
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char *quick, *slow;
static volatile int over;

struct counts {
	long launches, late, mixed, failed;
	int reasons[3][256]; // errno of the start, exit status, signal
	char said[400];      // of the last failure
};

static void launch(struct counts *c, char *program, char *how) {
	char *argv[] = {program, how, NULL}, *envp[] = {NULL};
	char said[sizeof c->said];
	int pipe_[2], status;
	pid_t pid;
	if (pipe(pipe_))
		abort();
	posix_spawn_file_actions_t actions;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, pipe_[1], 2);
	int err = posix_spawn(&pid, program, &actions, NULL, argv, envp);
	posix_spawn_file_actions_destroy(&actions);
	close(pipe_[1]);
	c->launches++;
	if (err) {
		c->failed++;
		c->reasons[0][err & 255]++;
		close(pipe_[0]);
		return;
	}
	if (waitpid(pid, &status, 0) != pid)
		abort();
	// Others may have inherited the pipe, so it is read only if it must hold
	// something, and is never waited for.
	if (WIFEXITED(status) && WEXITSTATUS(status) > 99) {
		ssize_t n = read(pipe_[0], said, sizeof said - 1);
		memcpy(c->said, said, n > 0 ? n : 0);
	}
	close(pipe_[0]);
	if (WIFSIGNALED(status)) {
		c->failed++;
		c->reasons[2][WTERMSIG(status)]++;
	} else if (WEXITSTATUS(status) == 99) {
		c->mixed++;
	} else if (WEXITSTATUS(status)) {
		c->failed++;
		c->reasons[1][WEXITSTATUS(status)]++;
	}
}

static void *work(void *arg) {
	struct counts *c = arg;
	for (long i = 1; !over; i++) {
		int late = i % 16 == 0;
		c->late += late;
		launch(c, late ? slow : quick, "once");
	}
	return NULL;
}

// text prints a JSON string.
static void text(const char *s) {
	putchar('"');
	for (; *s; s++)
		if (*s == '"' || *s == '\\')
			printf("\\%c", *s);
		else
			putchar(*s < ' ' ? ' ' : *s);
	putchar('"');
}

int main(int argc, char **argv) {
	if (argc != 4)
		return 2;
	quick = argv[1];
	slow = argv[2];
	int n = atoi(argv[3]);
	pthread_t *threads = calloc(n, sizeof *threads);
	struct counts *all = calloc(n, sizeof *all), sum = {0};
	for (int i = 0; i < n; i++)
		if (pthread_create(&threads[i], NULL, work, &all[i]))
			return 1;
	char c;
	while (read(0, &c, 1) > 0)
		;
	over = 1;
	for (int i = 0; i < n; i++) {
		pthread_join(threads[i], NULL);
		sum.launches += all[i].launches;
		sum.late += all[i].late;
		sum.mixed += all[i].mixed;
		sum.failed += all[i].failed;
		if (all[i].said[0])
			strcpy(sum.said, all[i].said);
		for (int k = 0; k < 3; k++)
			for (int r = 0; r < 256; r++)
				sum.reasons[k][r] += all[i].reasons[k][r];
	}
	printf("{\"launches\":%ld,\"late\":%ld,\"mixed\":%ld,\"failed\":%ld,\"said\":", sum.launches, sum.late, sum.mixed, sum.failed);
	text(sum.said);
	printf(",\"reasons\":{\"\":0");
	const char *kinds[] = {"errno", "exit", "signal"};
	for (int k = 0; k < 3; k++)
		for (int r = 0; r < 256; r++)
			if (sum.reasons[k][r])
				printf(",\"%s %d\":%d", kinds[k], r, sum.reasons[k][r]);
	printf("}}\n");
	return 0;
}
