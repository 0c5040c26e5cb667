/*
 * An HTTP/1.1 server in C99 that replaces itself: one process, poll(2), keep-alive.
 * It answers every request with its version and the body that was sent.
 *
 *   cc -std=c99 -I ../../include server.c -o server && ./server -p 8080
 *   cc -std=c99 -I ../../include -DVERSION='"2"' server.c -o server.new && mv server.new server
 *
 * The second command replaces the running server: same process, same connections.
 * A connection with nothing under way is carried across. One with a request under
 * way is finished first, for at most DRAIN_MS.
 *
 *   -p PORT      (8080; 127.0.0.1 alone)    -v VERSION   what it says it is
 *   -d MS        wait before each answer    -s DIR       state directory
 *   -t           preflight as a trial       -S           spawn instead of exec in place
 */
#define MOULT_IMPLEMENTATION
#include "moult.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#ifndef VERSION
#define VERSION "1"
#endif
#define DRAIN_MS 5000
#ifndef READY_MS
#define READY_MS 0 /* the default */
#endif
#define MAX_REQUEST 65536

struct conn {
	char *buf;
	size_t n, cap;
	int open;
};

static struct conn *conns; /* by descriptor */
static size_t nconns;
static struct pollfd *polls;
static size_t npolls;
static const char *version = VERSION;
static char conn_name[64], listen_name[32];
static int delay_ms, spawn, ending;
static volatile sig_atomic_t stop;

static void on_term(int sig)
{
	(void)sig;
	stop = 1;
}

static void on_hup(int sig)
{
	(void)sig; /* here logs would be opened anew */
}

static void say(int level, const char *text, void *arg)
{
	(void)arg;
	fprintf(stderr, "server[%ld] %d: %s\n", (long)getpid(), level, text);
}

static void die(const char *what)
{
	perror(what);
	exit(1); /* before moult_ready: back to the code that ran before */
}

static void *need(void *p)
{
	if (p == NULL)
		die("memory");
	return p;
}

static void conn_add(int fd)
{
	if ((size_t)fd >= nconns) {
		size_t n = (size_t)fd * 2 + 64;
		conns = (struct conn *)need(realloc(conns, n * sizeof *conns));
		memset(conns + nconns, 0, (n - nconns) * sizeof *conns);
		nconns = n;
	}
	conns[fd].open = 1;
	conns[fd].n = 0;
	int one = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	if (!spawn) /* or both processes would read from it */
		moult_keep(conn_name, fd);
}

static void conn_close(int fd)
{
	moult_forget(fd);
	free(conns[fd].buf);
	memset(&conns[fd], 0, sizeof conns[fd]);
	close(fd);
}

static int send_all(int fd, const char *p, size_t n)
{
	while (n > 0) {
		ssize_t w = send(fd, p, n, MSG_NOSIGNAL);
		if (w < 0 && errno == EAGAIN) {
			struct pollfd one;
			one.fd = fd;
			one.events = POLLOUT;
			if (poll(&one, 1, 5000) <= 0)
				return -1;
			continue;
		}
		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0)
			return -1;
		p += w;
		n -= (size_t)w;
	}
	return 0;
}

/* find looks for a header of the request, in any case. NULL: it is not there. */
static const char *find(const char *head, size_t len, const char *name)
{
	size_t n = strlen(name);
	for (size_t i = 0; i + n + 2 < len; i++)
		if (head[i] == '\n' && strncasecmp(head + i + 1, name, n) == 0 && head[i + 1 + n] == ':')
			return head + i + 2 + n;
	return NULL;
}

/* answer takes one whole request out of the buffer. 1: done, 0: not whole, -1: close. */
static int answer(int fd)
{
	struct conn *c = &conns[fd];
	char head[512];
	const char *end = c->n > 0 ? (const char *)memmem(c->buf, c->n, "\r\n\r\n", 4) : NULL;
	if (end == NULL)
		return c->n > MAX_REQUEST ? -1 : 0;
	size_t len = (size_t)(end - c->buf) + 4;
	const char *length = find(c->buf, len, "Content-Length"), *conn = find(c->buf, len, "Connection");
	unsigned long body = length != NULL ? strtoul(length, NULL, 10) : 0;
	if (body > MAX_REQUEST || find(c->buf, len, "Transfer-Encoding") != NULL)
		return -1;
	if (c->n < len + body)
		return 0;
	int last = ending || (conn != NULL && strncasecmp(conn + strspn(conn, " "), "close", 5) == 0);
	if (delay_ms > 0)
		poll(NULL, 0, delay_ms);
	snprintf(head, sizeof head,
	         "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %lu\r\nX-Version: %s\r\nX-Pid: %ld\r\n"
	         "X-Generation: %d\r\n%s\r\n%s ",
	         (unsigned long)strlen(version) + 1 + body, version, (long)getpid(), moult_generation(),
	         last ? "Connection: close\r\n" : "", version);
	size_t n = strlen(head);
	char *all = (char *)need(malloc(n + body));
	memcpy(all, head, n);
	memcpy(all + n, c->buf + len, body);
	int bad = send_all(fd, all, n + body);
	free(all);
	memmove(c->buf, c->buf + len + body, c->n - len - body);
	c->n -= len + body;
	return bad || last ? -1 : 1;
}

static void serve(int fd)
{
	struct conn *c = &conns[fd];
	if (c->cap - c->n < 4096) {
		c->cap += 8192;
		c->buf = (char *)need(realloc(c->buf, c->cap));
	}
	ssize_t n = recv(fd, c->buf + c->n, c->cap - c->n, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		conn_close(fd);
		return;
	}
	c->n += (size_t)n;
	int r;
	do
		r = answer(fd);
	while (r > 0 && c->n > 0);
	if (r < 0)
		conn_close(fd);
}

/* turn waits for work and does it. accepting 0: the rest of what is under way. */
static void turn(int listener, int accepting, int wait_ms)
{
	size_t n = 0;
	if (npolls < nconns + 1) {
		npolls = nconns + 64;
		polls = (struct pollfd *)need(realloc(polls, npolls * sizeof *polls));
	}
	if (accepting && listener >= 0) {
		polls[n].fd = listener;
		polls[n++].events = POLLIN;
	}
	for (size_t fd = 0; fd < nconns; fd++)
		if (conns[fd].open && (accepting || conns[fd].n > 0)) {
			polls[n].fd = (int)fd;
			polls[n++].events = POLLIN;
		}
	if (poll(polls, (nfds_t)n, wait_ms) <= 0)
		return;
	for (size_t i = 0; i < n; i++) {
		if (polls[i].revents == 0)
			continue;
		if (polls[i].fd != listener) {
			serve(polls[i].fd);
			continue;
		}
		int fd;
		while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0)
			conn_add(fd);
	}
}

static int busy(void)
{
	for (size_t fd = 0; fd < nconns; fd++)
		if (conns[fd].open && conns[fd].n > 0)
			return 1;
	return 0;
}

static int any(void)
{
	for (size_t fd = 0; fd < nconns; fd++)
		if (conns[fd].open)
			return 1;
	return 0;
}

/* finish brings what is under way to its end; connections with half a request count. */
static int finish(int listener)
{
	struct timespec a, b;
	clock_gettime(CLOCK_MONOTONIC, &a);
	while (busy()) {
		turn(listener, 0, 20);
		clock_gettime(CLOCK_MONOTONIC, &b);
		if ((b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000 > DRAIN_MS)
			return 0;
	}
	return 1;
}

static int listen_on(int port)
{
	struct sockaddr_in a;
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	memset(&a, 0, sizeof a);
	a.sin_family = AF_INET;
	a.sin_port = htons((uint16_t)port);
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
	    bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(fd, 4096) != 0)
		die("listen");
	return fd;
}

int main(int argc, char **argv)
{
	moult_options o = MOULT_OPTIONS_INIT;
	int port = 8080, c;
	o.log = say;
	o.settle_ms = 100;
	o.ready_ms = READY_MS;
	for (int i = 1; i < argc; i++) { /* what moult_init has to know */
		if (strcmp(argv[i], "-t") == 0)
			o.flags |= MOULT_TRIAL;
		if (strcmp(argv[i], "-s") == 0 && i + 1 < argc)
			o.state_dir = argv[i + 1];
	}
	if (moult_init(argc, argv, &o) < 0)
		fprintf(stderr, "server: %s\n", moult_error());
	while ((c = getopt(argc, argv, "p:v:d:s:tS")) != -1)
		switch (c) {
		case 'p': port = atoi(optarg); break;
		case 'v': version = optarg; break;
		case 'd': delay_ms = atoi(optarg); break;
		case 'S': spawn = 1; break;
		case 's': case 't': break;
		default: return 2;
		}
	struct sigaction sa;
	memset(&sa, 0, sizeof sa);
	sa.sa_handler = on_term;
	sigaction(SIGTERM, &sa, NULL);
	sa.sa_handler = on_hup;
	sigaction(SIGHUP, &sa, NULL);

	/* The names that package reexec gives to a listener and its idle connections. */
	snprintf(listen_name, sizeof listen_name, "tcp!:%d", port);
	snprintf(conn_name, sizeof conn_name, "moult.http!%s", listen_name);
	int listener = moult_take(listen_name), fd;
	if (listener < 0)
		listener = moult_take("http"); /* FileDescriptorName=http in a socket unit */
	if (listener < 0)
		listener = listen_on(port);
	fcntl(listener, F_SETFL, O_NONBLOCK);
	moult_keep(listen_name, listener);
	while ((fd = moult_take(conn_name)) >= 0)
		conn_add(fd);
#ifdef BROKEN
	BROKEN; /* the tests put a fault in here */
#endif
	moult_ready();
	fprintf(stderr, "server[%ld]: version %s, generation %d, port %d\n", (long)getpid(), version, moult_generation(), port);

	int what = 0;
	while (!stop) {
#ifdef BROKEN_LATER
		BROKEN_LATER;
#endif
		turn(listener, 1, (what & MOULT_UNSETTLED) != 0 ? 5 : 50); /* a preflight takes some ms */
		what = moult_changed();
		if ((what & MOULT_NOW) != 0) {
			if (spawn)
				moult_fork_exec(DRAIN_MS);
			else if (finish(listener))
				moult_exec();
		}
		if ((what & MOULT_REPLACED) != 0)
			break;
	}
	/* A spawned successor accepts now. Each connection gets its next answer from
	 * here, with the advice to come back on a new one; moult ends us in DRAIN_MS. */
	for (ending = 1; !stop && any();)
		turn(-1, 1, 50);
	finish(listener);
	if (stop)
		moult_stopping();
	return 0;
}
