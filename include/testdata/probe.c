/* A program that looks at itself before and after an exec. Its first argument says
 * what is to be tried; it prints "ok" at the end, or what is wrong. */
#define MOULT_IMPLEMENTATION
#include "moult.h"

static char snap[2][65536];

static void log_it(int level, const char *text, void *arg)
{
	(void)arg;
	fprintf(stderr, "%d: %s\n", level, text);
}

static void on_sig(int sig) { (void)sig; }

static volatile sig_atomic_t usr1, term;
static void on_usr1(int sig)
{
	(void)sig;
	usr1++;
}
static void on_term(int sig)
{
	(void)sig;
	term++;
}

static void add(char *to, const char *format, long a, long b, long c, long d)
{
	size_t n = strlen(to);
	snprintf(to + n, sizeof snap[0] - n, format, a, b, c, d);
}

/* look writes down all that a failed exec must not change. */
static void look(char *to)
{
	char line[512], cwd[4096];
	struct itimerval it;
	struct rlimit lim;
	FILE *f = fopen("/proc/self/status", "r");
	to[0] = 0;
	while (f != NULL && fgets(line, sizeof line, f) != NULL)
		if ((strncmp(line, "Sig", 3) == 0 && line[3] != 'Q') || strncmp(line, "Shd", 3) == 0 || strncmp(line, "Umask", 5) == 0 || strncmp(line, "FDSize", 6) == 0)
			strcat(to, line);
	if (f != NULL)
		fclose(f);
	for (int fd = 0; fd < 200; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			add(to, "fd %ld %ld %ld\n", fd, fcntl(fd, F_GETFD), fcntl(fd, F_GETFL), 0);
	for (int r = 0; r < 16; r++)
		if (getrlimit((__rlimit_resource_t)r, &lim) == 0)
			add(to, "limit %ld %ld %ld\n", r, (long)lim.rlim_cur, (long)lim.rlim_max, 0);
	getitimer(ITIMER_REAL, &it);
	add(to, "timer %ld %ld\n", it.it_value.tv_sec > 1000, it.it_interval.tv_sec, 0, 0);
	if (getcwd(cwd, sizeof cwd) != NULL)
		strcat(to, cwd);
}

static int fail(const char *what)
{
	printf("wrong: %s (%s)\n", what, moult_error());
	return 1;
}

/* restore: an execve that fails leaves everything as it was. */
static int restore(void)
{
	struct itimerval it = {{7, 0}, {5000, 0}};
	struct rlimit lim;
	sigset_t set;
	moult_ready();
	signal(SIGHUP, on_sig);
	signal(SIGUSR1, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGWINCH);
	sigprocmask(SIG_BLOCK, &set, NULL);
	setitimer(ITIMER_REAL, &it, NULL);
	umask(027);
	getrlimit(RLIMIT_NOFILE, &lim);
	lim.rlim_cur = lim.rlim_cur / 2;
	setrlimit(RLIMIT_NOFILE, &lim);
	int a = dup(0), b = dup(0);
	fcntl(b, F_SETFD, FD_CLOEXEC);
	moult_keep("a", a);
	moult_keep("b", b);
	dup(0);
	char path[4096], other[4200];
	ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
	path[n] = 0;
	snprintf(other, sizeof other, "cp %s %s.new && mv %s.new %s", path, path, path, path);
	if (system(other) != 0 || chdir("/") != 0)
		return fail("cp");
	int busy = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
	if (write(busy, "x", 1) != 1) /* not the same bytes */
		return fail("write");
	look(snap[0]);
	int err = moult_exec();
	look(snap[1]);
	if (err != -ETXTBSY)
		return fail("moult_exec of a busy file");
	if (strcmp(snap[0], snap[1]) != 0) {
		printf("before:\n%s\nafter:\n%s\n", snap[0], snap[1]);
		return fail("not as before");
	}
	puts("ok");
	return 0;
}

/* same: the descriptor is open, and on the pipe with this inode number. Open alone
 * says nothing: the number of one that was closed is free for what the library opens,
 * and whether it needs that one depends on what the environment has left open. */
static int same(int fd, unsigned long long ino)
{
	struct stat st;
	return fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode) && (unsigned long long)st.st_ino == ino;
}

/* a pipe of its own, so that it can be told from all that is open. */
static int piped(unsigned long long *ino)
{
	int p[2];
	struct stat st;
	if (pipe(p) != 0 || fstat(p[0], &st) != 0 || close(p[1]) != 0)
		return -1;
	*ino = (unsigned long long)st.st_ino;
	return p[0];
}

/* many: 10,000 descriptors, a closed one among them, and one that nobody takes. */
static int many(void)
{
	struct {
		int fd;
		unsigned long long ino;
	} leak, lost;
	enum { N = 10000 };
	struct rlimit lim;
	if (moult_generation() == 0) {
		lim.rlim_cur = lim.rlim_max = 20000;
		setrlimit(RLIMIT_NOFILE, &lim);
		lim.rlim_cur = 12000;
		setrlimit(RLIMIT_NOFILE, &lim);
		getrlimit(RLIMIT_NOFILE, &lim);
		if (lim.rlim_cur < 12000) {
			puts("needs 12,000 open files, and the right to raise the limit");
			return 0;
		}
		for (int i = 0; i < N; i++) {
			int fd = open("/dev/null", O_RDONLY);
			if (fd < 0 || moult_keep(i % 2 ? "odd" : "even", fd) != 0)
				return fail("open");
		}
		int closed = dup(0);
		leak.fd = piped(&leak.ino);
		lost.fd = piped(&lost.ino);
		if (leak.fd < 0 || lost.fd < 0)
			return fail("pipe");
		moult_keep("closed", closed);
		moult_keep("lost", lost.fd);
		moult_save("leak", &leak, sizeof leak);
		moult_save("lost", &lost, sizeof lost);
		close(closed);
		moult_ready();
		printf("%d\n", moult_exec());
		return fail("moult_exec");
	}
	int n = 0, fd, last = -1;
	while ((fd = moult_take("even")) >= 0 || (fd = moult_take("odd")) >= 0) {
		if (fcntl(fd, F_GETFD) != FD_CLOEXEC)
			return fail("close-on-exec");
		if (last >= fd && last - fd < N - 10)
			return fail("their order");
		last = fd;
		n++;
	}
	if (n != N)
		return fail("their number");
	memcpy(&leak, moult_load("leak", NULL), sizeof leak);
	memcpy(&lost, moult_load("lost", NULL), sizeof lost);
	if (same(leak.fd, leak.ino))
		return fail("one that was not kept crossed");
	if (!same(lost.fd, lost.ino))
		return fail("one that was kept did not cross");
	moult_ready();
	if (same(lost.fd, lost.ino))
		return fail("one that nobody took is still open");
	puts("ok");
	return 0;
}

/* signals: what came before, during and after the exec is handled; masks and
 * actions are those of a first start. */
static int signals(void)
{
	sigset_t set;
	struct sigaction sa;
	if (moult_generation() < 3) {
		signal(SIGUSR1, on_usr1);
		signal(SIGTERM, on_term);
		signal(SIGPIPE, SIG_IGN);
		signal(SIGCHLD, SIG_IGN);
		moult_ready();
		if (moult_generation() > 0 && (usr1 != 1 || term != 1))
			return fail("signals that were pending");
		sigfillset(&set);
		sigprocmask(SIG_BLOCK, &set, NULL);
		kill(getpid(), SIGUSR1);
		kill(getpid(), SIGTERM);
		moult_exec();
		return fail("moult_exec");
	}
	sigprocmask(SIG_BLOCK, NULL, &set);
	for (int s = 1; s < 32; s++)
		if (sigismember(&set, s) == 1)
			return fail("a signal that is still blocked");
	sigaction(SIGCHLD, NULL, &sa);
	if (sa.sa_handler != SIG_DFL)
		return fail("SIGCHLD is still ignored");
	signal(SIGTERM, on_term);
	moult_ready(); /* USR1 is not handled any more, and has to be forgotten */
	if (term != 1)
		return fail("SIGTERM");
	puts("ok");
	return 0;
}

/* state: what is saved arrives, of any size; and an environ and a directory as at
 * the start. */
static int state(int argc, char **argv)
{
	static char big[3000001];
	size_t n;
	char cwd[4096];
	if (moult_generation() == 0) {
		memset(big, 'x', sizeof big);
		moult_save("big", big, sizeof big);
		moult_save("empty", "", 0);
		moult_save("gone", "1", 1);
		moult_save("twice", "1", 1);
		moult_save("twice", "22", 2);
		moult_save("gone", NULL, 0);
		moult_ready();
		setenv("PROBE", "changed", 1);
		setenv("PROBE2", "new", 1);
		if (chdir("/") != 0)
			return fail("chdir");
		for (int i = 0; i < argc; i++)
			memset(argv[i], 'z', strlen(argv[i]));
		moult_exec();
		return fail("moult_exec");
	}
	const char *p = (const char *)moult_load("big", &n);
	if (p == NULL || n != sizeof big || p[0] != 'x' || p[n - 1] != 'x')
		return fail("big");
	if (moult_load("empty", &n) == NULL || n != 0 || moult_load("gone", &n) != NULL || moult_load("none", &n) != NULL)
		return fail("empty, gone, none");
	if ((p = (const char *)moult_load("twice", &n)) == NULL || n != 2 || p[1] != '2')
		return fail("twice");
	if (getenv("PROBE") == NULL || strcmp(getenv("PROBE"), "as it was") != 0 || getenv("PROBE2") != NULL || getenv("MOULT_FD") != NULL)
		return fail("environ");
	if (getcwd(cwd, sizeof cwd) == NULL || strcmp(cwd, "/") == 0)
		return fail("the working directory");
	moult_ready();
	puts("ok");
	return 0;
}

/* limit: a hand-over that is larger than a file may be, which ends nothing. */
static int limit(void)
{
	static char big[5000];
	struct rlimit lim;
	moult_ready();
	moult_save("big", big, sizeof big);
	getrlimit(RLIMIT_FSIZE, &lim);
	lim.rlim_cur = 1000;
	setrlimit(RLIMIT_FSIZE, &lim);
	if (moult_exec() != -EFBIG)
		return fail("moult_exec");
	puts("ok");
	return 0;
}

/* store: descriptors to and from systemd. */
static int store(void)
{
	int fd = moult_take("stored"), second = moult_take("stored");
	if (fd != 3 || second != 4 || moult_take("stored") != -1 || moult_take("other") != 5)
		return fail("LISTEN_FDS");
	moult_ready();
	if (fcntl(5, F_GETFD) < 0 || moult_fdstore("a:b", 5) != -EINVAL)
		return fail("LISTEN_FDS after ready");
	if (moult_fdstore("stored", fd) != 1 || moult_status("going\non") != 1 || moult_watchdog() != 1 || moult_watchdog() != 0)
		return fail("notify");
	if (moult_generation() == 0) {
		moult_exec();
		return fail("moult_exec");
	}
	moult_stopping();
	puts("ok");
	return 0;
}

int main(int argc, char **argv)
{
	moult_options o = MOULT_OPTIONS_INIT;
	const char *what = argc > 1 ? argv[1] : "";
	setvbuf(stdout, NULL, _IONBF, 0);
	o.log = log_it;
	o.version = "9.9";
	o.settle_ms = 1;
	if (strcmp(what, "restore") == 0)
		o.flags = MOULT_NO_PREFLIGHT;
	if (moult_init(argc, argv, &o) != 0)
		return fail("moult_init");
	if (strcmp(what, "restore") == 0)
		return restore();
	if (strcmp(what, "many") == 0)
		return many();
	if (strcmp(what, "signals") == 0)
		return signals();
	if (strcmp(what, "state") == 0)
		return state(argc, argv);
	if (strcmp(what, "limit") == 0)
		return limit();
	if (strcmp(what, "store") == 0)
		return store();
	return fail("argument");
}
