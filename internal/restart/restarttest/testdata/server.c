/* A service for tests: server VERB...
 *   port=N     answers HTTP on 127.0.0.1:N with STATUS
 *   reexec     says that it can replace itself by SIGUSR2, and does
 *   rejects    says so, looks at the new code and rejects it
 *   takenback  says so, executes the new code, which goes back to the old
 *   takenbacklate  likewise, half a second later: it is no longer stale, and not ready
 *   takenbackmute  likewise, and it says so only at the end, as if it took long to load
 *   deaf       says so and does not;  quits: says so and ends
 *   reload     replaces itself on SIGHUP
 *   child      has a child that runs the same file
 *   escape     likewise, one that leaves its group and ends after ten minutes
 *   load=FILE  loads a library
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef STATUS
#define STATUS "200 OK"
#endif
const char version[] = VERSION;

/* By this a file is known that can replace itself (docs/reexec-protocol.md). */
__attribute__((section(".note.moult"), aligned(4), used)) static const struct {
	uint32_t name_size, size, type;
	char name[8], mark[40];
} note = {6, 40, 1, "moult", "moult-reexec protocol 1 5b8f0d2c71e94a36"};

static volatile sig_atomic_t upgrade;
static void on_upgrade(int sig) { upgrade = sig; }

static int has(char **argv, const char *verb) {
	size_t n = strlen(verb);
	for (int i = 1; argv[i]; i++)
		if (!strncmp(argv[i], verb, n) && (argv[i][n] == 0 || verb[n - 1] == '='))
			return i;
	return 0;
}

static void announce(int rejected, int starting) {
	static int fd = -1;
	char text[200];
	const char *old = getenv("GENERATION");
	int generation = (old ? atoi(old) : 0) + !rejected;
	snprintf(text, sizeof text, "%d", generation);
	setenv("GENERATION", text, 1);
	if (fd >= 0) close(fd);
	fd = memfd_create("moult-reexec", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int n = snprintf(text, sizeof text, "moult-reexec 1\npid %d\ngeneration %d\nsignal %d\nrejected %d\nstarting %d\n", getpid(), generation, SIGUSR2, rejected, starting);
	if (write(fd, text, n) != n) exit(2);
	fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
}

int main(int argc, char **argv) {
	int port = has(argv, "port="), sock = -1;
	struct sigaction sa = {.sa_handler = on_upgrade};
	(void)argc;
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	int back = has(argv, "takenback") || has(argv, "takenbacklate") || has(argv, "takenbackmute");
	if (has(argv, "reexec") || has(argv, "deaf") || has(argv, "quits") || has(argv, "rejects") || back) {
		sigaction(SIGUSR2, &sa, NULL);
		const char *previous = getenv("PREVIOUS");
		if (previous && has(argv, "takenbackmute")) usleep(500000);
		announce(0, previous != NULL);
		if (previous) { /* the new code, which is no good */
			if (has(argv, "takenbacklate")) usleep(500000);
			char link[64];
			snprintf(link, sizeof link, "/proc/self/fd/%s", previous);
			unsetenv("PREVIOUS");
			execv(link, argv);
			return 5;
		}
	}
	if (has(argv, "load=") && !dlopen(argv[has(argv, "load=")] + 5, RTLD_NOW)) return 7;
	if (has(argv, "reload")) sigaction(SIGHUP, &sa, NULL);
	if (has(argv, "child") && fork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;) pause();
	}
	if (has(argv, "escape") && fork() == 0) {
		setsid();
		sleep(600);
		_exit(0);
	}
	if (port) {
		struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[port] + 5))};
		int one = 1;
		a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
		if (bind(sock, (void *)&a, sizeof a) || listen(sock, 16)) return 1;
	}
	for (;;) {
		struct pollfd p = {.fd = sock, .events = POLLIN};
		int n = poll(&p, 1, -1);
		if (upgrade && has(argv, "quits")) return 4;
		if (upgrade && has(argv, "rejects")) {
			upgrade = 0;
			announce(1, 0);
			continue;
		}
		if (upgrade && back) {
			char number[16];
			snprintf(number, sizeof number, "%d", open("/proc/self/exe", O_PATH));
			setenv("PREVIOUS", number, 1);
		}
		if (upgrade && !has(argv, "deaf")) {
			execv(argv[0], argv);
			return 5;
		}
		if (n == 1) {
			char b[1000];
			const char answer[] = "HTTP/1.1 " STATUS "\r\nConnection: close\r\n\r\n";
			int c = accept4(sock, NULL, NULL, SOCK_CLOEXEC);
			if (c < 0) continue;
			if (read(c, b, sizeof b) > 0 && write(c, answer, sizeof answer - 1) < 0) return 6;
			close(c);
		}
	}
}
