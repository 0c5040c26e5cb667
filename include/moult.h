/*
 * moult.h: a C or C++ program that replaces itself without losing a request.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * The program notices that its executable or one of its libraries was replaced,
 * tries whether the new one starts, and executes it in the same process: same
 * PID, same listening sockets, same idle connections. What cannot run is not
 * executed, or is taken back within the same process.
 *
 *     #define MOULT_IMPLEMENTATION            // in exactly one file,
 *     #include "moult.h"                      // before any other header
 *
 *     int main(int argc, char **argv) {
 *         moult_options o = MOULT_OPTIONS_INIT;
 *         moult_init(argc, argv, &o);         // first of all
 *         int s = moult_take("http");         // inherited, or -1
 *         if (s < 0) s = open_listener(8080);
 *         moult_keep("http", s);
 *         moult_ready();
 *         while (running) {
 *             serve_one_batch(s);
 *             if (moult_changed() & MOULT_NOW) {
 *                 finish_what_is_under_way();
 *                 moult_exec();               // comes back only if it failed:
 *             }                               // then all is as it was; go on
 *         }
 *     }
 *
 * C99 and C++11, Linux 3.17 or newer, any libc that has dl_iterate_phdr (glibc,
 * musl). It speaks docs/reexec-protocol.md, as the Go package reexec does: a
 * program in one language can be replaced by one in the other. More, with
 * recipes and the limits, is in docs/moult-h.md.
 *
 * Threads: call all functions from one thread, or one at a time, unless a
 * function says otherwise. Other threads may run; execve(2) ends them.
 *
 * Results: 0 or more is success, less is -errno; moult_error() says it in words.
 * Nothing here prints, unless you pass a log function, and nothing ends the
 * process, except for the answer to a preflight and the end of a drain.
 */
#ifndef MOULT_H
#define MOULT_H

#ifdef MOULT_IMPLEMENTATION
#ifndef _GNU_SOURCE
#if defined(_FEATURES_H) || defined(_STDLIB_H) || defined(_UNISTD_H)
#error "moult.h: with MOULT_IMPLEMENTATION, include it before any other header, or define _GNU_SOURCE"
#endif
#define _GNU_SOURCE 1
#endif
#endif

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this header. The protocol has a number of its own. */
#define MOULT_VERSION_MAJOR 1
#define MOULT_VERSION_MINOR 0

/* Options of moult_init. Zero or NULL means the default, for every field. Start
 * from MOULT_OPTIONS_INIT, so that a field of a later version is zero. Strings
 * are copied. */
typedef struct moult_options {
	uint32_t size;         /* sizeof(moult_options) */
	uint32_t flags;        /* MOULT_NO_LIBS and others, or'ed */
	const char *exe;       /* path to watch, as the program sees it (after a chroot: inside). Default: the
	                          first of argv[0], AT_EXECFN and /proc/self/exe that leads to the running file.
	                          Symbolic links are followed at each look */
	const char *version;   /* of your program, for moult_status and STATUS= */
	uint32_t settle_ms;    /* how long all files have to be unchanged; 500 */
	uint32_t preflight_ms; /* limit of a preflight; 30,000. A trial has ready_ms on top */
	uint32_t ready_ms;     /* from moult_init of new code to moult_ready, then it is taken back; 60,000 */
	uint32_t probation_ms; /* how long a version has to run after moult_ready to count as good; 300,000 */
	int signal;            /* asks for an upgrade, even if no file has changed; SIGUSR2. -1: none */
	const char *state_dir; /* for the boot counter; the first of $STATE_DIRECTORY. "": no boot counter */
	void (*log)(int level, const char *text, void *arg); /* level as in syslog(3): 3 error, 4 warning, 6 info.
	                          Called in the calls of the program, never in a signal handler. It must not call
	                          moult functions but moult_error */
	void *arg;             /* for log */
} moult_options;

#define MOULT_OPTIONS_INIT { (uint32_t)sizeof(moult_options), 0u, NULL, NULL, 0u, 0u, 0u, 0u, 0, NULL, NULL, NULL }

/* Flags of moult_options. */
enum {
	MOULT_NO_LIBS = 1,      /* watch the executable alone, not the shared libraries */
	MOULT_NO_ROLLBACK = 2,  /* no traps and no timer before moult_ready: what fails then, fails */
	MOULT_NO_PREFLIGHT = 4, /* do not run the new file before it is executed; its ELF headers are read all the same */
	MOULT_TRIAL = 8         /* the preflight runs the new file up to its moult_ready, with all descriptors and saved
	                           bytes. The program must stand being started beside itself (see moult_trial) */
};

/* What moult_changed has seen; or'ed. */
enum {
	MOULT_SAME = 0,         /* nothing to do */
	MOULT_EXE = 1,          /* a new executable is there: settled, tried, fit */
	MOULT_LIB = 2,          /* new libraries are there: likewise */
	MOULT_UNSETTLED = 4,    /* something is changing, is being tried, or is half there: look again */
	MOULT_REJECTED = 8,     /* what is there has failed before; it is not tried again */
	MOULT_OVERWRITTEN = 16, /* a file in use was written to in place: never executed, moult_error() names it */
	MOULT_ASKED = 32,       /* the upgrade signal came, and what is there is fit */
	MOULT_REPLACED = 64,    /* the successor that moult_fork_exec started is ready: finish and end */
	MOULT_NOW = MOULT_EXE | MOULT_LIB | MOULT_ASKED /* now is the time for moult_exec or moult_fork_exec */
};

/* moult_init has to be the first statement of main, before threads, chdir,
 * setuid and setproctitle: it remembers argv, environ, the working directory and
 * the signal mask, because the new code is started with them. It adopts what a
 * predecessor handed over, and from then until moult_ready a crash (SIGSEGV,
 * SIGBUS, SIGILL, SIGFPE, SIGABRT), exit(3) or ready_ms without moult_ready
 * executes the predecessor again in this process. A preflight is answered here,
 * and the process ends: keep constructors of global objects free of effects.
 *
 * argv must be main's. options may be NULL. Installs a handler for the upgrade
 * signal (without SA_RESTART, so that poll(2) wakes up).
 *
 * 0, or -EPERM: the program is set-user-id or has file capabilities; it cannot be
 * replaced, and everything else here works as after a cold start. -EPROTO: there
 * was a hand-over, and it is not readable; nothing was adopted. -EINVAL: called
 * twice. -ENOMEM, -EMFILE and others: no watching. The program may go on after
 * every error. */
int moult_init(int argc, char **argv, const moult_options *options);

/* moult_keep hands fd to the successor, under its own number and a name of your
 * choice (1 to 4,096 bytes). Several fds may share a name, and keep their order.
 * An fd that is kept already gets the new name. Call moult_forget before you
 * close it. 0, -EBADF, -EINVAL, -ENOMEM. */
int moult_keep(const char *name, int fd);

/* moult_forget takes fd off the list of what is handed over. It does not close
 * it. 0, or -ENOENT if it was not kept. */
int moult_forget(int fd);

/* moult_take returns the next descriptor that was handed over with this name, or
 * came from systemd with it (LISTEN_FDNAMES), or -1 if there is none (left). It
 * has FD_CLOEXEC; a socket may be non-blocking. It is yours, and is handed over
 * again only if it is kept again. Between moult_take and moult_ready do not close
 * it: a rollback needs it. */
int moult_take(const char *name);

/* moult_save hands len bytes to the successor; they are copied now. The same name
 * again replaces them; data NULL removes them. 0, -EINVAL, -ENOMEM. */
int moult_save(const char *name, const void *data, size_t len);

/* moult_load returns bytes that the predecessor saved, and their number, or NULL.
 * They are 8-byte aligned only by chance, not zero-terminated, and gone after
 * moult_ready. What cannot be understood is a reason for moult_rollback: the
 * predecessor gets the same bytes back. */
const void *moult_load(const char *name, size_t *len);

/* moult_generation is 0 after a cold start, and one more with every hand-over. A
 * program with a generation above 0 must leave out what needs privileges that its
 * predecessor dropped. Safe in threads and signal handlers. */
int moult_generation(void);

/* moult_trial is 1 in a trial run (MOULT_TRIAL): the process is beside the one
 * that serves, and ends in moult_ready. Accept nothing, lock nothing, write
 * nothing in it. Safe in threads and signal handlers. */
int moult_trial(void);

/* moult_ready says that this code works. Disarms the rollback, closes what was
 * handed over and nobody took, lets signals that came meanwhile through, tells
 * systemd READY=1 and a waiting predecessor (spawn) the same. In a trial run it
 * ends the process. Call it after the last step that can fail, right before
 * serving. 0; a second call does nothing. */
int moult_ready(void);

/* moult_changed looks whether there is new code: a few stat(2) calls, at most
 * every 50 ms, so that it may be called in each turn of an event loop. It also
 * runs the preflight of what it finds, without waiting for it, and reports
 * MOULT_EXE and MOULT_LIB only when that has passed. Returns flags (MOULT_EXE and
 * so on); before moult_ready MOULT_SAME. */
int moult_changed(void);

/* moult_preflight tries what is there, and waits for the result, at most
 * preflight_ms. moult_changed and moult_exec do so by themselves. 0: moult_exec
 * will start it. -EKEYREJECTED: it failed, now or before. -ESTALE: a file in use was
 * overwritten in place. -ENOENT, -EACCES (no x bit, noexec mount), -ETXTBSY: not
 * yet, try again. */
int moult_preflight(void);

/* moult_exec replaces the code in this process. Bring your work to rest first:
 * what is in memory and not saved is lost, unwritten stdio buffers are not. It
 * comes back only if that failed, with -errno as moult_preflight or of execve(2);
 * then descriptor flags, signal mask and actions, timers, umask and working
 * directory are as before the call: go on serving. Resource limits are never
 * touched. -EBUSY before moult_ready, -EPERM for a set-user-id program. */
int moult_exec(void);

/* moult_fork_exec starts the new code as a child (spawn), and comes back at once;
 * both run until the child is ready. Then moult_changed returns MOULT_REPLACED:
 * cease to accept, finish, end. After drain_ms more (0: never) the process is
 * ended with status 0. If the child fails, moult_changed says MOULT_REJECTED, and
 * this code goes on. The PID changes: systemd needs NotifyAccess=all. Returns the
 * child's PID, or -errno as moult_exec; -EALREADY while a child starts. The child
 * is your child: do not stop it, and expect it in wait(2). */
int moult_fork_exec(uint32_t drain_ms);

/* moult_rollback gives up before moult_ready: the predecessor is executed again
 * in this process and told why (for people; printable, at most 200 bytes). Comes
 * back only if there is none (-ENOENT), after moult_ready (-EALREADY), or if it
 * cannot be executed. Safe in threads and signal handlers: a crash reporter of
 * your own may call it. */
int moult_rollback(const char *why);

/* moult_rolled_back says whether this code was started again because its
 * successor failed: NULL, or why. Valid for the life of the process. */
const char *moult_rolled_back(void);

/* moult_error says in words what the last failure, warning or rejection was; ""
 * if there was none. Valid until the next call of a moult function. */
const char *moult_error(void);

/* systemd, without libsystemd. All of them do nothing and return 0 where there is
 * no NOTIFY_SOCKET (or, for moult_watchdog, no WATCHDOG_USEC), and in a trial; 1 if
 * sent, -errno if not. moult_ready sends READY=1 and, after a spawn, MAINPID=;
 * moult_exec RELOADING=1 and, if it fails, READY=1. Safe in threads. An end within
 * probation_ms without moult_stopping or exit(0) counts as a crash. */
int moult_notify(const char *state);           /* lines as in sd_notify(3) */
int moult_status(const char *text);            /* STATUS=, with the version in front */
int moult_stopping(void);                      /* STOPPING=1: for the last end only, never for an upgrade */
int moult_watchdog(void);                      /* WATCHDOG=1, when half of its time is over: call it often */
int moult_fdstore(const char *name, int fd);   /* FDSTORE=1: fd survives a crash (FileDescriptorStoreMax=),
                                                  and comes back by moult_take(name) */

#ifdef __cplusplus
}
#endif
#endif /* MOULT_H */

/* ------------------------------------------------------------------------- */
#if defined(MOULT_IMPLEMENTATION) && !defined(MOULT_IMPLEMENTED)
#define MOULT_IMPLEMENTED

#if !defined(__linux__)
#error "moult.h: Linux only"
#endif

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

/* The signal of the timer until moult_ready, and after it that of a drain. A
 * realtime signal that neither glibc, musl nor valgrind uses. */
#ifndef MOULT_TIMER_SIGNAL
#define MOULT_TIMER_SIGNAL (SIGRTMAX - 7)
#endif

/* What older headers do not have. The numbers are the same on all machines but
 * alpha for the calls since 424; the others come from <sys/syscall.h>. */
#if !defined(SYS_close_range) && !defined(__alpha__)
#define SYS_close_range 436
#endif
#ifndef F_ADD_SEALS
#define F_ADD_SEALS 1033
#define F_GET_SEALS 1034
#endif
#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif
#define MOULT__CLOSE_RANGE_CLOEXEC 4U
#define MOULT__SEALS 0xf /* seal, shrink, grow, write */
#define MOULT__MARK "moult-reexec protocol 1 5b8f0d2c71e94a36"
#define MOULT__MARK_LEN 40U
#define MOULT__MAGIC "MOULT\0\0\1"
#define MOULT__MAX_FD 1048576 /* of a descriptor in a hand-over */
#define MOULT__LOOK_MS 50
#define MOULT__CHUNK (1U << 20) /* of a file that one look reads: a few ms */

/* Types of records. */
enum {
	MOULT__END = 0, MOULT__PID = 1, MOULT__PARENT = 2, MOULT__GENERATION = 3, MOULT__FD = 4,
	MOULT__BLOB = 5, MOULT__PREVIOUS = 6, MOULT__ARG = 7, MOULT__ENV = 8, MOULT__CWD = 9,
	MOULT__REJECTED = 10, MOULT__ROLLED_BACK = 11, MOULT__READY = 12, MOULT__IGNORED = 13,
	MOULT__EXE = 14
};
#define MOULT__PAUSED 0x80000001U
#define MOULT__BLOCKED 0x80000002U       /* only from C to C */
#define MOULT__FIRST_IGNORED 0x80000003U /* only C looks at it */
#define MOULT__TRIED 0x80000004U         /* likewise */
#define MOULT__SKIP 0x80000000U

/* The note by which a file is known to contain this library. Linkers keep notes
 * when they collect what nobody refers to. */
struct moult__note_t {
	uint32_t namesz, descsz, type;
	char name[8];
	char desc[MOULT__MARK_LEN];
};
#ifdef __cplusplus
extern "C" {
#endif
extern const struct moult__note_t moult__note;
#if defined(__GNUC__)
__attribute__((section(".note.moult"), used, aligned(4)))
#endif
const struct moult__note_t moult__note = {
	6, MOULT__MARK_LEN, 1, {'m', 'o', 'u', 'l', 't', 0, 0, 0},
	{'m', 'o', 'u', 'l', 't', '-', 'r', 'e', 'e', 'x', 'e', 'c', ' ', 'p', 'r', 'o', 't', 'o', 'c', 'o', 'l', ' ', '1',
	 ' ', '5', 'b', '8', 'f', '0', 'd', '2', 'c', '7', '1', 'e', '9', '4', 'a', '3', '6'}};

/* What tells one state of a file from another. No ctime: chmod changes it. */
typedef struct moult__file {
	uint64_t dev, ino, size;
	int64_t sec, nsec;
} moult__file;

typedef struct moult__lib {
	char *path;
	moult__file f;
	unsigned char id[20]; /* of the build, copied while it was good: a write in place changes the mapping as well */
	unsigned idlen;
	uintptr_t addr;
	int stale; /* replaced before the first look */
} moult__lib;

typedef struct moult__kept {
	char *name; /* NULL: forgotten */
	int fd;
	int was_cloexec;
} moult__kept;

typedef struct moult__blob {
	char *name;
	void *data;
	size_t len;
	struct moult__blob *next;
} moult__blob;

typedef struct moult__got { /* an fd that was handed over; name points into the hand-over or listen_names */
	const char *name;
	size_t len;
	int fd, taken;
} moult__got;

typedef struct moult__sha {
	uint32_t h[8];
	uint64_t n;
	unsigned char buf[64];
} moult__sha;

typedef struct moult__buf {
	unsigned char *p;
	size_t n, cap;
	int bad;
} moult__buf;

/* One look at the files. */
typedef struct moult__seen {
	int flags;       /* EXE, LIB, UNSETTLED, OVERWRITTEN */
	uint64_t digest; /* of all that differs from what runs; 0: nothing does */
	uint64_t libs;   /* of the libraries alone */
	moult__file exe;
	char at[PATH_MAX]; /* the executable, links resolved */
} moult__seen;

enum { MOULT__IDLE = 0, MOULT__READING, MOULT__RUNNING, MOULT__GOOD, MOULT__BAD };

/* A candidate on its way through the preflight. */
typedef struct moult__try {
	int step;
	uint64_t digest;
	int fd;      /* of the new file, while it is read */
	int self_fd; /* of the running one, if it may have the same bytes */
	uint64_t off;
	moult__sha sha;
	char sha_hex[65];
	unsigned char *buf;
	uint64_t ranges[16][2]; /* of the file: segments that are not writable */
	unsigned nranges, nnotes;
	uint64_t notes[8][2];
	int marked;
	int has_note; /* written in C: takes blocked signals */
	int pipe_fd;
	pid_t pid;
	char out[4096];
	size_t out_len;
	char nonce[33];
	uint64_t deadline; /* ms */
	int err;           /* what failed: a result for the caller */
	moult__seen seen;
} moult__try;

#define MOULT__REJECTS 64
typedef struct moult__reject {
	char *id, *why;
} moult__reject;

static struct moult__state {
	int inited, secure, ready, armed, trial, generation;
	pid_t pid;
	moult_options o;
	char *version, *state_dir;
	char **argv, **envp; /* of the first start; the first of envp is moult__env_fd */
	int cwd_fd, proc_fd, img_fd, mark_fd;
	unsigned turned_down; /* upgrades that were asked for */
	dev_t root_dev;
	ino_t root_ino;
	mode_t mask_files;
	sigset_t mask;         /* of the first start */
	uint64_t first_ignored; /* likewise */

	char *exe;              /* path to watch */
	char at[PATH_MAX];      /* where it led when this code started */
	moult__file self;
	char self_id[256];
	unsigned char self_build[20];
	unsigned self_idlen;
	moult__lib *libs;
	size_t nlibs;
	unsigned long long adds, subs;

	const unsigned char *in; /* the hand-over, mapped */
	size_t in_len;
	int in_fd, prev_fd, ready_fd, prev_is_c;
	int spare_fd; /* given up for the hand-over of a rollback, if nothing else is left */
	moult__got *got;
	size_t ngot;
	char *listen_names;
	int listen_n;

	moult__kept *kept;
	size_t nkept, capkept;
	int *kept_at; /* fd -> place in kept, plus 1 */
	size_t nkept_at;
	moult__blob *blobs;
	moult__reject rejects[MOULT__REJECTS];
	size_t nrejects;
	uint64_t bad[16]; /* sets of files that were taken back, or can never run */
	unsigned nbad;
	uint64_t failed[16]; /* that failed their preflight: tried again if somebody asks */
	unsigned nfailed;
	uint64_t hold_until; /* after what failed by no fault of the file */
	uint32_t holds;
	char *rolled_back;

	volatile sig_atomic_t asked;
	uint64_t caught; /* signals that wait for moult_ready, by their temporary handler */
	volatile sig_atomic_t came[65];
	struct sigaction old_fatal[8];
	void *alt;
	size_t alt_len;
	int has_timer, timer;
	volatile int rolling; /* __atomic */
	int boot_watch;
	uint64_t boot_until;

	uint64_t last_look, last_digest, since, last_dog, warned;
	int last_flags, asked_now;
	moult__try t;

	pid_t child; /* spawn */
	int child_fd, replaced;
	char child_out[64];
	size_t child_len;
	uint64_t child_deadline;
	uint32_t drain_ms;

	char error[512];
} moult__g;

/* ---- small things ---- */

static const int moult__fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
enum { MOULT__NFATAL = 5 };

static uint64_t moult__bit(int sig) { return (uint64_t)1 << (sig - 1); }

static uint64_t moult__now(void) /* ms */
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000U + (uint64_t)ts.tv_nsec / 1000000U;
}

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
static void moult__say(int level, const char *format, ...)
{
	va_list ap;
	va_start(ap, format);
	vsnprintf(moult__g.error, sizeof moult__g.error, format, ap);
	va_end(ap);
	for (char *p = moult__g.error; *p != 0; p++)
		if ((unsigned char)*p < ' ' || *p == 127)
			*p = ' ';
	if (moult__g.o.log != NULL)
		moult__g.o.log(level, moult__g.error, moult__g.o.arg);
}

static void moult__close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static int moult__cloexec(int fd, int on) { return fcntl(fd, F_SETFD, on ? FD_CLOEXEC : 0); }

/* moult__high moves a descriptor of ours out of the way of 0, 1 and 2, which a
 * daemon may have closed. */
static int moult__high(int fd)
{
	if (fd < 0 || fd > 2)
		return fd;
	int to = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	close(fd);
	return to;
}

static char *moult__copy(const char *s, size_t n)
{
	char *c = (char *)malloc(n + 1);
	if (c != NULL) {
		memcpy(c, s, n);
		c[n] = 0;
	}
	return c;
}

/* moult__number reads a whole decimal number, or returns -1. */
static long moult__number(const char *s)
{
	if (s == NULL || *s < '0' || *s > '9')
		return -1;
	long v = 0;
	for (; *s >= '0' && *s <= '9'; s++) {
		if (v > 100000000)
			return -1;
		v = v * 10 + (*s - '0');
	}
	return *s == 0 ? v : -1;
}

static moult__file moult__file_of(const struct stat *st)
{
	moult__file f;
	f.dev = (uint64_t)st->st_dev;
	f.ino = (uint64_t)st->st_ino;
	f.size = (uint64_t)st->st_size;
	f.sec = (int64_t)st->st_mtim.tv_sec;
	f.nsec = (int64_t)st->st_mtim.tv_nsec;
	return f;
}

static int moult__same_inode(const moult__file *a, const moult__file *b) { return a->dev == b->dev && a->ino == b->ino; }

static int moult__same_file(const moult__file *a, const moult__file *b)
{
	return moult__same_inode(a, b) && a->size == b->size && a->sec == b->sec && a->nsec == b->nsec;
}

/* moult__identity writes the identity of the protocol. sha may be "". */
static void moult__identity(char *out, size_t n, const moult__file *f, const char *sha)
{
	snprintf(out, n, "stat:%llu:%llu:%llu:%lld.%09lld%s%.64s", (unsigned long long)f->dev, (unsigned long long)f->ino,
	         (unsigned long long)f->size, (long long)f->sec, (long long)f->nsec, *sha != 0 ? " sha256:" : "", sha);
}

/* moult__same_id: is one of the words that we know in both? */
static int moult__same_id(const char *a, const char *b)
{
	while (*a != 0) {
		size_t n = strcspn(a, " ");
		if (n > 5 && (strncmp(a, "stat:", 5) == 0 || strncmp(a, "sha256:", 7) == 0))
			for (const char *w = b; *w != 0;) {
				size_t m = strcspn(w, " ");
				if (n == m && memcmp(a, w, n) == 0)
					return 1;
				w += m;
				while (*w == ' ')
					w++;
			}
		a += n;
		while (*a == ' ')
			a++;
	}
	return 0;
}

static const char *moult__rejected(const char *id)
{
	for (size_t i = 0; i < moult__g.nrejects; i++)
		if (moult__same_id(moult__g.rejects[i].id, id))
			return moult__g.rejects[i].why;
	return NULL;
}

static void moult__reject_id(const char *id, size_t idlen, const char *why, size_t whylen)
{
	struct moult__state *g = &moult__g;
	if (idlen > 1024)
		idlen = 1024;
	if (whylen > 200)
		whylen = 200;
	char *i = moult__copy(id, idlen), *w = moult__copy(why, whylen);
	if (i == NULL || w == NULL || *i == 0 || moult__rejected(i) != NULL) {
		free(i);
		free(w);
		return;
	}
	if (g->nrejects == MOULT__REJECTS) { /* the oldest goes */
		free(g->rejects[0].id);
		free(g->rejects[0].why);
		memmove(g->rejects, g->rejects + 1, (MOULT__REJECTS - 1) * sizeof g->rejects[0]);
		g->nrejects--;
	}
	g->rejects[g->nrejects].id = i;
	g->rejects[g->nrejects++].why = w;
}

/* ---- SHA-256 (FIPS 180-4) ---- */

static uint32_t moult__ror(uint32_t x, unsigned n) { return (x >> n) | (x << (32U - n)); }

static void moult__sha_block(moult__sha *s, const unsigned char *p)
{
	static const uint32_t k[64] = {
		0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98,
		0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
		0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8,
		0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
		0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819,
		0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
		0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
		0xc67178f2};
	uint32_t w[64], v[8];
	for (int i = 0; i < 16; i++, p += 4)
		w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
	for (int i = 16; i < 64; i++) {
		uint32_t a = moult__ror(w[i - 15], 7) ^ moult__ror(w[i - 15], 18) ^ (w[i - 15] >> 3);
		uint32_t b = moult__ror(w[i - 2], 17) ^ moult__ror(w[i - 2], 19) ^ (w[i - 2] >> 10);
		w[i] = w[i - 16] + a + w[i - 7] + b;
	}
	memcpy(v, s->h, sizeof v);
	for (int i = 0; i < 64; i++) {
		uint32_t e = moult__ror(v[4], 6) ^ moult__ror(v[4], 11) ^ moult__ror(v[4], 25);
		uint32_t t1 = v[7] + e + ((v[4] & v[5]) ^ (~v[4] & v[6])) + k[i] + w[i];
		uint32_t a = moult__ror(v[0], 2) ^ moult__ror(v[0], 13) ^ moult__ror(v[0], 22);
		uint32_t t2 = a + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
		memmove(v + 1, v, 7 * sizeof v[0]);
		v[4] += t1;
		v[0] = t1 + t2;
	}
	for (int i = 0; i < 8; i++)
		s->h[i] += v[i];
}

static void moult__sha_start(moult__sha *s)
{
	static const uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
	                              0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
	memset(s, 0, sizeof *s);
	memcpy(s->h, h, sizeof h);
}

static void moult__sha_add(moult__sha *s, const unsigned char *p, size_t n)
{
	size_t have = (size_t)(s->n & 63U);
	s->n += n;
	if (have != 0) {
		size_t take = 64 - have < n ? 64 - have : n;
		memcpy(s->buf + have, p, take);
		p += take;
		n -= take;
		if (have + take < 64)
			return;
		moult__sha_block(s, s->buf);
	}
	for (; n >= 64; p += 64, n -= 64)
		moult__sha_block(s, p);
	if (n != 0)
		memcpy(s->buf, p, n);
}

static void moult__sha_end(moult__sha *s, char *hex)
{
	uint64_t bits = s->n * 8;
	unsigned char end[72] = {0x80};
	size_t pad = (size_t)((s->n & 63U) < 56 ? 56 - (s->n & 63U) : 120 - (s->n & 63U));
	for (unsigned i = 0; i < 8; i++)
		end[pad + i] = (unsigned char)(bits >> (56 - 8 * i));
	moult__sha_add(s, end, pad + 8);
	for (int i = 0; i < 8; i++)
		snprintf(hex + 8 * i, 9, "%08lx", (unsigned long)s->h[i]);
}

/* ---- the hand-over: writing ---- */

static void moult__put(moult__buf *b, const void *p, size_t n)
{
	if (b->bad || n == 0)
		return;
	if (b->cap - b->n < n) {
		size_t cap = b->cap * 2 + n + 4096;
		unsigned char *q = (unsigned char *)realloc(b->p, cap);
		if (q == NULL) {
			b->bad = 1;
			return;
		}
		b->p = q;
		b->cap = cap;
	}
	memcpy(b->p + b->n, p, n);
	b->n += n;
}

/* moult__header lays out the head of a record in little endian. */
static void moult__le(unsigned char *p, uint64_t v, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		p[i] = (unsigned char)(v >> (8 * i));
}

static uint64_t moult__un_le(const unsigned char *p, unsigned n)
{
	uint64_t v = 0;
	for (unsigned i = 0; i < n; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

static size_t moult__pad(size_t n) { return (8 - (n & 7U)) & 7U; }

static void moult__record(moult__buf *b, uint32_t type, const char *name, size_t name_len, const void *data, size_t len)
{
	static const unsigned char zero[8] = {0};
	unsigned char head[16];
	moult__le(head, type, 4);
	moult__le(head + 4, name_len, 4);
	moult__le(head + 8, len, 8);
	moult__put(b, head, 16);
	moult__put(b, name, name_len);
	moult__put(b, data, len);
	moult__put(b, zero, moult__pad(name_len + len));
}

static void moult__record_u64(moult__buf *b, uint32_t type, const char *name, uint64_t v)
{
	unsigned char d[8];
	moult__le(d, v, 8);
	moult__record(b, type, name, strlen(name), d, 8);
}

/* moult__write writes all. Only system calls: a signal handler uses it. */
static int moult__write(int fd, const void *data, size_t n)
{
	const char *p = (const char *)data;
	while (n > 0) {
		ssize_t w = write(fd, p, n);
		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0)
			return -(w < 0 ? errno : EIO);
		p += w;
		n -= (size_t)w;
	}
	return 0;
}

static int moult__memfd(const char *name) /* close-on-exec, may be sealed */
{
#ifdef SYS_memfd_create
	int fd = (int)syscall(SYS_memfd_create, name, 1U | 2U | 8U /* not to be executed: vm.memfd_noexec=2 */);
	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
		fd = (int)syscall(SYS_memfd_create, name, 1U | 2U);
	fd = moult__high(fd);
	return fd < 0 ? -errno : fd;
#else
	(void)name;
	return -ENOSYS;
#endif
}

static int moult__sealed(const char *name, const void *data, size_t n)
{
	struct rlimit most;
	/* It counts as a file, and SIGXFSZ would end the program. */
	if (getrlimit(RLIMIT_FSIZE, &most) == 0 && most.rlim_cur < n)
		return -EFBIG;
	int fd = moult__memfd(name);
	if (fd < 0)
		return fd;
	int err = moult__write(fd, data, n);
	if (err == 0 && fcntl(fd, F_ADD_SEALS, MOULT__SEALS) != 0)
		err = -errno;
	if (err != 0) {
		close(fd);
		return err;
	}
	return fd;
}

/* ---- the hand-over: reading ---- */

typedef struct moult__rec {
	uint32_t type;
	const char *name;
	size_t name_len;
	const unsigned char *data;
	size_t len;
	const unsigned char *start, *next; /* the whole record */
} moult__rec;

/* moult__next reads the record at *off. 0 at the end or if it is not whole. Signal
 * handlers use it. */
static int moult__next(size_t *off, moult__rec *r)
{
	const unsigned char *p = moult__g.in + *off;
	size_t left = moult__g.in_len - *off;
	if (left < 16)
		return 0;
	uint64_t name = moult__un_le(p + 4, 4), data = moult__un_le(p + 8, 8);
	if (name > 4096 || data > left - 16 || name > left - 16 - data)
		return 0;
	uint64_t pad = moult__pad((size_t)(name + data));
	if (pad > left - 16 - data - name)
		return 0;
	r->type = (uint32_t)moult__un_le(p, 4);
	r->name = (const char *)(p + 16);
	r->name_len = (size_t)name;
	r->data = p + 16 + name;
	r->len = (size_t)data;
	r->start = p;
	r->next = r->data + data + pad;
	*off += (size_t)(16 + name + data + pad);
	return 1;
}

static int moult__fd_of(const moult__rec *r)
{
	uint64_t v = r->len == 8 ? moult__un_le(r->data, 8) : ~(uint64_t)0;
	return v < MOULT__MAX_FD ? (int)v : -1;
}

/* moult__valid checks a mapped hand-over before anything is adopted. 1: it is for
 * us; 0: for another process, inherited by mistake; -EPROTO. */
static int moult__valid(void)
{
	unsigned count[16] = {0};
	size_t off = 8;
	moult__rec r;
	uint64_t pid = 0, parent = 0;
	if (moult__g.in_len < 8 || memcmp(moult__g.in, MOULT__MAGIC, 8) != 0)
		return -EPROTO;
	while (moult__next(&off, &r)) {
		if (r.type > MOULT__EXE) {
			if ((r.type & MOULT__SKIP) != 0)
				continue;
			return -EPROTO;
		}
		count[r.type]++;
		switch (r.type) {
		case MOULT__PID: case MOULT__PARENT: case MOULT__GENERATION: case MOULT__FD: case MOULT__PREVIOUS:
		case MOULT__CWD: case MOULT__READY: case MOULT__IGNORED:
			if (r.len != 8)
				return -EPROTO;
			break;
		default:
			break;
		}
		if (r.type == MOULT__PID)
			pid = moult__un_le(r.data, 8);
		if (r.type == MOULT__PARENT)
			parent = moult__un_le(r.data, 8);
		if (r.type == MOULT__END)
			break;
	}
	if (count[MOULT__END] != 1 || count[MOULT__PID] + count[MOULT__PARENT] != 1 || count[MOULT__GENERATION] != 1 ||
	    count[MOULT__PREVIOUS] > 1 || count[MOULT__CWD] > 1 || count[MOULT__READY] > 1 || count[MOULT__IGNORED] > 1 ||
	    count[MOULT__EXE] > 1 || count[MOULT__ROLLED_BACK] > 1)
		return -EPROTO;
	if (count[MOULT__PID] != 0)
		return pid == (uint64_t)getpid();
	return parent == (uint64_t)getppid();
}

/* moult__open maps the hand-over that MOULT_FD names. Results as moult__valid. */
static int moult__open(const char *number)
{
	struct moult__state *g = &moult__g;
	long n = moult__number(number);
	struct stat st;
	if (n < 3 || n >= MOULT__MAX_FD || fcntl((int)n, F_GETFD) < 0 || fstat((int)n, &st) != 0)
		return -EPROTO;
	if ((fcntl((int)n, F_GET_SEALS) & MOULT__SEALS) != MOULT__SEALS || st.st_uid != geteuid() || st.st_size < 8)
		return -EPROTO;
	void *m = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, (int)n, 0);
	if (m == MAP_FAILED)
		return -errno;
	g->in = (const unsigned char *)m;
	g->in_len = (size_t)st.st_size;
	int ok = moult__valid();
	if (ok != 1) {
		munmap(m, g->in_len);
		g->in = NULL;
		g->in_len = 0;
		return ok;
	}
	g->in_fd = (int)n;
	return 1;
}

/* moult__vector makes argv or environ of records of one type, or else of v, in
 * memory that nobody writes to by mistake: a crashed program has to execute with
 * it. first goes in front. NULL if there is no memory. */
static char **moult__vector(uint32_t type, char **v, char *first)
{
	size_t n = first != NULL ? 1 : 0, bytes = 0, found = 0, off = 8;
	moult__rec r;
	if (moult__g.in != NULL)
		while (moult__next(&off, &r) && r.type != MOULT__END)
			if (r.type == type) {
				found++;
				bytes += r.len + 1;
			}
	if (found == 0)
		for (char **s = v; s != NULL && *s != NULL; s++) {
			n++;
			bytes += strlen(*s) + 1;
		}
	n += found;
	size_t all = (n + 1) * sizeof(char *) + bytes;
	void *m = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m == MAP_FAILED)
		return NULL;
	char **out = (char **)m, *text = (char *)(out + n + 1);
	size_t i = 0;
	if (first != NULL)
		out[i++] = first;
	off = 8;
	if (found != 0)
		while (moult__next(&off, &r) && r.type != MOULT__END) {
			if (r.type != type)
				continue;
			memcpy(text, r.data, r.len); /* the byte after it is zero already */
			out[i++] = text;
			text += r.len + 1;
		}
	else
		for (char **s = v; s != NULL && *s != NULL; s++) {
			size_t len = strlen(*s) + 1;
			memcpy(text, *s, len);
			out[i++] = text;
			text += len;
		}
	mprotect(m, all, PROT_READ);
	return out;
}

static int moult__adopt_fd(const char *name, size_t len, int fd)
{
	struct moult__state *g = &moult__g;
	if (fd < 0 || moult__cloexec(fd, 1) != 0)
		return 0; /* its sender had closed it */
	if ((g->ngot & (g->ngot + 1)) == 0) { /* grow at 0, 1, 3, 7, … */
		moult__got *p = (moult__got *)realloc(g->got, (2 * g->ngot + 1) * sizeof *p);
		if (p == NULL)
			return -ENOMEM;
		g->got = p;
	}
	moult__got *e = &g->got[g->ngot++];
	e->name = name;
	e->len = len;
	e->fd = fd;
	e->taken = 0;
	return 0;
}

/* What a hand-over says beside descriptors. */
typedef struct moult__said {
	uint64_t ignored, blocked, first_ignored, tried;
	int has_first_ignored, in_place;
	char *exe;
	char exe_id[512];
} moult__said;

static int moult__adopt(moult__said *said)
{
	struct moult__state *g = &moult__g;
	size_t off = 8;
	moult__rec r;
	int err = 0;
	moult__cloexec(g->in_fd, 1);
	while (moult__next(&off, &r) && r.type != MOULT__END) {
		switch (r.type) {
		case MOULT__PID:
			said->in_place = 1;
			break;
		case MOULT__GENERATION:
			g->generation = (int)(moult__un_le(r.data, 8) & 0x7fffffffU);
			break;
		case MOULT__FD:
			err = moult__adopt_fd(r.name, r.name_len, moult__fd_of(&r));
			break;
		case MOULT__PREVIOUS:
			g->prev_fd = moult__fd_of(&r);
			if (g->prev_fd >= 0 && moult__cloexec(g->prev_fd, 1) != 0)
				g->prev_fd = -1;
			break;
		case MOULT__CWD:
			if (moult__fd_of(&r) >= 0 && moult__cloexec(moult__fd_of(&r), 1) == 0) {
				moult__close(&g->cwd_fd);
				g->cwd_fd = moult__fd_of(&r);
			}
			break;
		case MOULT__READY:
			g->ready_fd = moult__fd_of(&r);
			if (g->ready_fd >= 0 && moult__cloexec(g->ready_fd, 1) != 0)
				g->ready_fd = -1;
			break;
		case MOULT__REJECTED:
			{
				char *id = moult__copy((const char *)r.data, r.len < 1024 ? r.len : 1024);
				if (id != NULL)
					moult__reject_id(id, strlen(id), r.name, r.name_len);
				free(id);
			}
			break;
		case MOULT__ROLLED_BACK:
			if (g->rolled_back == NULL)
				g->rolled_back = moult__copy(r.name, r.name_len);
			break;
		case MOULT__IGNORED:
			said->ignored = moult__un_le(r.data, 8);
			break;
		case MOULT__EXE:
			free(said->exe);
			said->exe = r.name_len > 0 && r.name_len < PATH_MAX ? moult__copy(r.name, r.name_len) : NULL;
			if (r.len < sizeof said->exe_id) {
				memcpy(said->exe_id, r.data, r.len);
				said->exe_id[r.len] = 0;
			}
			break;
		case MOULT__BLOCKED:
			if (r.len == 8) {
				said->blocked = moult__un_le(r.data, 8);
				g->prev_is_c = 1;
			}
			break;
		case MOULT__TRIED: /* if it is ours again: it was taken back */
			if (r.len == 8)
				said->tried = moult__un_le(r.data, 8);
			break;
		case MOULT__FIRST_IGNORED:
			if (r.len == 8) {
				said->first_ignored = moult__un_le(r.data, 8);
				said->has_first_ignored = 1;
			}
			break;
		default:
			break;
		}
		if (err != 0)
			return err;
	}
	/* Descriptors that are handed over may be above a soft limit that the sender's
	 * runtime has lowered; then nothing more could be opened here. */
	struct rlimit lim;
	int top = g->in_fd;
	for (size_t i = 0; i < g->ngot; i++)
		if (g->got[i].fd > top)
			top = g->got[i].fd;
	if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur <= (rlim_t)top + 64 && lim.rlim_cur < lim.rlim_max) {
		lim.rlim_cur = lim.rlim_max;
		setrlimit(RLIMIT_NOFILE, &lim);
	}
	return 0;
}

/* moult__listen_fds adopts what systemd passes (sd_listen_fds(3)). The numbers
 * stay open for the life of the process, so that the variables stay true. */
static void moult__listen_fds(void)
{
	struct moult__state *g = &moult__g;
	const char *names = getenv("LISTEN_FDNAMES");
	long n = moult__number(getenv("LISTEN_FDS"));
	if (moult__number(getenv("LISTEN_PID")) != (long)g->pid || n <= 0 || n > 4096)
		return;
	g->listen_n = (int)n;
	g->listen_names = moult__copy(names != NULL ? names : "", names != NULL ? strlen(names) : 0);
	const char *p = g->listen_names != NULL ? g->listen_names : "";
	for (int fd = 3; fd < 3 + g->listen_n; fd++) {
		size_t len = strcspn(p, ":");
		int known = 0;
		for (size_t i = 0; i < g->ngot && !known; i++)
			known = g->got[i].fd == fd;
		if (!known)
			moult__adopt_fd(len > 0 ? p : "unknown", len > 0 ? len : 7, fd);
		p += len;
		if (*p == ':')
			p++;
	}
}

static int moult__is_listen_fd(int fd) { return fd >= 3 && fd < 3 + moult__g.listen_n; }

/* ---- rollback ---- */

static char moult__env_fd[32]; /* the first of envp; "MOULT_FD=<n>" during an exec */

static void moult__env_number(int fd)
{
	char digits[12];
	int n = 0;
	do
		digits[n++] = (char)('0' + fd % 10);
	while ((fd /= 10) != 0);
	memcpy(moult__env_fd, "MOULT_FD=", 9);
	char *p = moult__env_fd + 9;
	while (n > 0)
		*p++ = digits[--n];
	*p = 0;
}

static int moult__emit(int fd, uint32_t type, const char *name, const void *data, size_t len)
{
	unsigned char head[16], zero[8] = {0};
	size_t n = strlen(name);
	moult__le(head, type, 4);
	moult__le(head + 4, n, 4);
	moult__le(head + 8, len, 8);
	int err = moult__write(fd, head, 16);
	if (err == 0)
		err = moult__write(fd, name, n);
	if (err == 0)
		err = moult__write(fd, data, len);
	if (err == 0)
		err = moult__write(fd, zero, moult__pad(n + len));
	return err;
}

/* moult__give_back makes the hand-over of a rollback out of the one that was
 * received. System calls alone, and memory that is read-only. */
static int moult__give_back(const char *why)
{
	struct moult__state *g = &moult__g;
	unsigned char u64[8];
	size_t off = 8;
	moult__rec r;
	moult__close(&g->spare_fd);
	int fd = moult__memfd("moult-handover"), err;
	if (fd < 0)
		return fd;
	err = moult__write(fd, MOULT__MAGIC, 8);
	while (err == 0 && moult__next(&off, &r) && r.type != MOULT__END) {
		switch (r.type) {
		case MOULT__FD:
		case MOULT__CWD:
			if (moult__fd_of(&r) < 0 || moult__cloexec(moult__fd_of(&r), 0) != 0)
				continue; /* closed meanwhile */
			break;
		case MOULT__PID: case MOULT__BLOB: case MOULT__ARG: case MOULT__ENV: case MOULT__REJECTED:
		case MOULT__FIRST_IGNORED: case MOULT__BLOCKED: case MOULT__TRIED:
			break;
		default:
			continue;
		}
		err = moult__write(fd, r.start, (size_t)(r.next - r.start));
	}
	moult__le(u64, (uint64_t)g->generation + 1, 8);
	if (err == 0)
		err = moult__emit(fd, MOULT__GENERATION, "", u64, 8);
	if (err == 0)
		err = moult__emit(fd, MOULT__ROLLED_BACK, why, g->self_id, strlen(g->self_id));
	if (err == 0)
		err = moult__emit(fd, MOULT__REJECTED, why, g->self_id, strlen(g->self_id));
	if (err == 0)
		err = moult__emit(fd, MOULT__EXE, g->exe != NULL ? g->exe : "", "", 0);
	if (err == 0 && !g->prev_is_c) {
		/* What arrives during the exec would end a program that cannot take blocked
		 * signals over. */
		uint64_t set = moult__bit(SIGHUP) | moult__bit(SIGUSR1) | moult__bit(SIGUSR2);
		if (g->o.signal > 0)
			set |= moult__bit(g->o.signal);
		struct sigaction sa;
		memset(&sa, 0, sizeof sa);
		uint64_t did = 0;
		for (int s = 1; s < 65; s++) {
			struct sigaction old;
			if ((set & moult__bit(s)) == 0 || sigaction(s, NULL, &old) != 0 || old.sa_handler == SIG_IGN)
				continue;
			sa.sa_handler = SIG_IGN;
			sigaction(s, &sa, NULL);
			did |= moult__bit(s);
		}
		moult__le(u64, did, 8);
		err = moult__emit(fd, MOULT__IGNORED, "", u64, 8);
	}
	if (err == 0)
		err = moult__emit(fd, MOULT__END, "", "", 0);
	if (err == 0 && (fcntl(fd, F_ADD_SEALS, MOULT__SEALS) != 0 || moult__cloexec(fd, 0) != 0))
		err = -errno;
	if (err != 0) {
		close(fd);
		return err;
	}
	return fd;
}

/* moult__back executes the predecessor. Comes back with -errno. */
static int moult__back(const char *why)
{
	struct moult__state *g = &moult__g;
	if (__atomic_exchange_n(&g->rolling, 1, __ATOMIC_SEQ_CST) != 0)
		for (;;)
			pause(); /* another thread does it, and its exec ends this one */
	char text[201];
	size_t n = 0;
	for (; why[n] != 0 && n < 200; n++)
		text[n] = why[n] >= ' ' && why[n] < 127 ? why[n] : '?';
	text[n] = 0;
	sigset_t all;
	sigfillset(&all);
	for (int i = 0; i < MOULT__NFATAL; i++)
		sigdelset(&all, moult__fatal[i]);
	sigprocmask(SIG_SETMASK, &all, NULL);
	if (g->prev_is_c)
		for (int s = 1; s < 65; s++)
			if (g->came[s] != 0)
				kill(g->pid, s); /* pending, for it */
	int fd = moult__give_back(text), err = fd;
	if (fd >= 0) {
		moult__env_number(fd);
		for (int i = 3; i < 3 + g->listen_n; i++)
			moult__cloexec(i, 0);
		if (g->cwd_fd >= 0 && fchdir(g->cwd_fd) != 0)
			err = -errno; /* not a reason to stay */
		umask(g->mask_files);
		sigset_t mask = g->mask;
		if (g->prev_is_c) { /* what its hand-over said was blocked, and it unblocks */
			size_t off = 8;
			moult__rec r;
			while (moult__next(&off, &r) && r.type != MOULT__END)
				if (r.type == MOULT__BLOCKED && r.len == 8) {
					uint64_t b = moult__un_le(r.data, 8);
					for (int s = 1; s < 65; s++)
						if ((b & moult__bit(s)) != 0)
							sigaddset(&mask, s);
				}
		}
		sigprocmask(SIG_SETMASK, &mask, NULL);
#ifdef SYS_execveat
		syscall(SYS_execveat, g->prev_fd, "", g->argv, g->envp, AT_EMPTY_PATH);
		err = -errno;
#endif
		if (err == -ENOSYS || fd < 0) {
			char link[40] = "/proc/self/fd/";
			size_t at = strlen(link);
			int v = g->prev_fd, d = 1;
			while (v / d >= 10)
				d *= 10;
			for (; d > 0; d /= 10)
				link[at++] = (char)('0' + v / d % 10);
			link[at] = 0;
			execve(link, g->argv, g->envp);
			err = -errno;
		}
		close(fd);
	}
	static const char sorry[] = "moult: the previous program cannot be executed again\n";
	moult__write(2, sorry, sizeof sorry - 1);
	g->armed = 0;
	__atomic_store_n(&g->rolling, 0, __ATOMIC_SEQ_CST);
	return err;
}

static void moult__on_fatal(int sig)
{
	struct moult__state *g = &moult__g;
	/* A child that was forked before moult_ready has these handlers too. */
	if (g->armed && (pid_t)syscall(SYS_getpid) == g->pid) {
		const char *why = "not ready in time";
		switch (sig) {
		case SIGSEGV: why = "segmentation fault before it was ready"; break;
		case SIGBUS: why = "bus error before it was ready"; break;
		case SIGILL: why = "illegal instruction before it was ready"; break;
		case SIGFPE: why = "arithmetic error before it was ready"; break;
		case SIGABRT: why = "aborted before it was ready"; break;
		default: break;
		}
		moult__back(why);
	}
	if (sig == MOULT_TIMER_SIGNAL && !g->armed)
		return;
	signal(sig, SIG_DFL); /* the fault comes again; abort(3) raises it again */
	if (sig == SIGABRT)
		raise(sig);
}

static void moult__on_exit(void)
{
	struct moult__state *g = &moult__g;
	if (!g->armed || g->pid != getpid())
		return;
	fflush(NULL); /* what it said before it gave up */
	moult__back("exited before it was ready");
}

static void moult__timer_stop(void)
{
	struct moult__state *g = &moult__g;
	if (g->has_timer)
		syscall(SYS_timer_delete, g->timer);
	g->has_timer = 0;
}

/* moult__timer_start: POSIX timers end with exec, unlike alarm(2), and are not
 * inherited by fork. System calls, because glibc before 2.34 has them in librt. */
static int moult__timer_start(uint32_t ms, void (*handler)(int))
{
	struct moult__state *g = &moult__g;
	struct sigevent ev;
	struct { long sec, nsec, value_sec, value_nsec; } spec = {0, 0, (long)(ms / 1000U), (long)(ms % 1000U) * 1000000L};
	struct sigaction sa;
	memset(&sa, 0, sizeof sa);
	sa.sa_handler = handler;
	sa.sa_flags = SA_ONSTACK;
	sigaction(MOULT_TIMER_SIGNAL, &sa, NULL);
	memset(&ev, 0, sizeof ev);
	ev.sigev_notify = SIGEV_SIGNAL;
	ev.sigev_signo = MOULT_TIMER_SIGNAL;
	moult__timer_stop();
	if (syscall(SYS_timer_create, CLOCK_MONOTONIC, &ev, &g->timer) != 0)
		return -errno;
	g->has_timer = 1;
	return syscall(SYS_timer_settime, g->timer, 0, &spec, NULL) != 0 ? -errno : 0;
}

static void moult__arm(void)
{
	struct moult__state *g = &moult__g;
	struct sigaction sa;
	stack_t ss;
	g->armed = 1;
	g->spare_fd = fcntl(g->prev_fd, F_DUPFD_CLOEXEC, 3);
	/* A stack of its own, for a stack overflow of the main thread. */
	memset(&ss, 0, sizeof ss);
	g->alt_len = 64U * 1024U;
	g->alt = mmap(NULL, g->alt_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (g->alt != MAP_FAILED) {
		stack_t old;
		ss.ss_sp = g->alt;
		ss.ss_size = g->alt_len;
		if (sigaltstack(NULL, &old) == 0 && (old.ss_flags & SS_DISABLE) != 0 && sigaltstack(&ss, NULL) == 0)
			;
		else {
			munmap(g->alt, g->alt_len); /* there is one, such as that of a sanitizer */
			g->alt = NULL;
		}
	} else
		g->alt = NULL;
	memset(&sa, 0, sizeof sa);
	sa.sa_handler = moult__on_fatal;
	sa.sa_flags = SA_ONSTACK;
	for (int i = 0; i < MOULT__NFATAL; i++)
		sigaction(moult__fatal[i], &sa, &g->old_fatal[i]);
	atexit(moult__on_exit);
	moult__timer_start(g->o.ready_ms, moult__on_fatal);
}

static void moult__disarm(void)
{
	struct moult__state *g = &moult__g;
	if (!g->armed)
		return;
	g->armed = 0;
	moult__close(&g->spare_fd);
	moult__timer_stop();
	signal(MOULT_TIMER_SIGNAL, SIG_DFL);
	for (int i = 0; i < MOULT__NFATAL; i++) {
		struct sigaction now;
		if (sigaction(moult__fatal[i], NULL, &now) == 0 && now.sa_handler == moult__on_fatal)
			sigaction(moult__fatal[i], &g->old_fatal[i], NULL);
	}
	if (g->alt != NULL) {
		stack_t now, off;
		memset(&off, 0, sizeof off);
		off.ss_flags = SS_DISABLE;
		if (sigaltstack(NULL, &now) == 0 && now.ss_sp == g->alt && sigaltstack(&off, NULL) == 0)
			munmap(g->alt, g->alt_len);
		g->alt = NULL;
	}
}

int moult_rollback(const char *why)
{
	struct moult__state *g = &moult__g;
	if (!g->inited || g->in == NULL || g->prev_fd < 0)
		return g->ready ? -EALREADY : -ENOENT;
	if (g->ready)
		return -EALREADY;
	if ((pid_t)syscall(SYS_getpid) != g->pid)
		return -ENOENT;
	return moult__back(why != NULL ? why : "it gave up");
}

/* ---- signals ---- */

static void moult__on_ask(int sig)
{
	(void)sig;
	moult__g.asked = 1;
}

/* Signals that came while nobody was there to handle them: the program's own
 * handler replaces this one, and moult_ready sends them once more. */
static void moult__on_early(int sig)
{
	if (sig > 0 && sig < 65)
		moult__g.came[sig] = 1;
}

static int moult__ours_to_catch(int sig)
{
	if (sig == SIGKILL || sig == SIGSTOP || sig == SIGTRAP || sig == SIGSYS || sig == MOULT_TIMER_SIGNAL)
		return 0;
	for (int i = 0; i < MOULT__NFATAL; i++)
		if (sig == moult__fatal[i])
			return 0;
	return 1;
}

static void moult__signals(const moult__said *said)
{
	struct moult__state *g = &moult__g;
	struct sigaction sa, old;
	memset(&sa, 0, sizeof sa);
	sigprocmask(SIG_BLOCK, NULL, &g->mask);
	for (int s = 1; s < 65; s++) {
		uint64_t bit = moult__bit(s);
		if ((said->blocked & bit) != 0)
			sigdelset(&g->mask, s);
		if (!moult__ours_to_catch(s) || sigaction(s, NULL, &old) != 0)
			continue;
		if (((said->blocked | said->ignored) & bit) != 0) {
			sa.sa_handler = moult__on_early;
			sa.sa_flags = SA_RESTART;
			sigaction(s, &sa, NULL);
			g->caught |= bit;
		} else if (old.sa_handler == SIG_IGN) {
			/* The predecessor ignored it, and did not find it so: a fresh start would
			 * not either. SIGCHLD, ignored, breaks wait(2). */
			if (said->has_first_ignored && (said->first_ignored & bit) == 0) {
				sa.sa_handler = SIG_DFL;
				sa.sa_flags = 0;
				sigaction(s, &sa, NULL);
			} else
				g->first_ignored |= bit;
		}
	}
	if (said->has_first_ignored)
		g->first_ignored = said->first_ignored;
	if (g->o.signal > 0 && !g->secure) {
		sa.sa_handler = moult__on_ask;
		sa.sa_flags = 0;
		sigaction(g->o.signal, &sa, NULL);
		g->caught &= ~moult__bit(g->o.signal);
	}
	sigprocmask(SIG_SETMASK, &g->mask, NULL);
}

static void moult__signals_ready(void)
{
	struct moult__state *g = &moult__g;
	for (int s = 1; s < 65; s++) {
		struct sigaction now;
		int ours;
		if ((g->caught & moult__bit(s)) == 0 || sigaction(s, NULL, &now) != 0)
			continue;
		ours = now.sa_handler == moult__on_early;
		if (ours)
			signal(s, SIG_DFL);
		if (!g->came[s])
			continue;
		g->came[s] = 0;
		/* Sent to a predecessor that handled them; this program does not. */
		if (ours && (s == SIGHUP || s == SIGUSR1 || s == SIGUSR2 || s == SIGALRM || s >= SIGRTMIN))
			continue;
		kill(g->pid, s);
	}
	g->caught = 0;
}

/* ---- what runs, and what is there now ---- */

/* moult__exe_link is where the running file is, or "" if nobody can tell. *gone: it
 * has no name any more. */
static void moult__exe_link(char *out, size_t n, int *gone)
{
	static const char deleted[] = " (deleted)";
	ssize_t len = moult__g.proc_fd >= 0 ? readlinkat(moult__g.proc_fd, "exe", out, n - 1) : -1;
	*gone = 0;
	out[len > 0 ? (size_t)len : 0] = 0;
	if (out[0] != '/') {
		out[0] = 0;
		return;
	}
	size_t d = sizeof deleted - 1;
	struct stat st;
	if ((size_t)len > d && strcmp(out + (size_t)len - d, deleted) == 0 && stat(out, &st) != 0) {
		out[(size_t)len - d] = 0;
		*gone = 1;
	}
}

/* moult__absolute makes a copy of path that does not depend on the working directory. */
static char *moult__absolute(const char *path)
{
	char cwd[PATH_MAX];
	if (*path == '/')
		return moult__copy(path, strlen(path));
	if (getcwd(cwd, sizeof cwd) == NULL)
		return NULL;
	size_t a = strlen(cwd), b = strlen(path);
	char *out = (char *)malloc(a + b + 2);
	if (out != NULL) {
		memcpy(out, cwd, a);
		out[a] = '/';
		memcpy(out + a + 1, path, b + 1);
	}
	return out;
}

static int moult__leads_to(const char *path, const moult__file *f)
{
	struct stat st;
	if (path == NULL || stat(path, &st) != 0)
		return 0;
	moult__file found = moult__file_of(&st);
	return moult__same_inode(&found, f);
}

/* moult__search finds argv[0] as the shell did. */
static char *moult__search(const char *name, const moult__file *f)
{
	const char *p = getenv("PATH");
	char path[PATH_MAX];
	if (strchr(name, '/') != NULL)
		return moult__absolute(name);
	for (p = p != NULL ? p : ""; *p != 0;) {
		size_t n = strcspn(p, ":");
		if (snprintf(path, sizeof path, "%.*s/%s", (int)n, n > 0 ? p : ".", name) < (int)sizeof path &&
		    moult__leads_to(path, f))
			return moult__absolute(path);
		p += n;
		if (*p == ':')
			p++;
	}
	return NULL;
}

static unsigned moult__file_id(const char *path, unsigned char *id);

/* moult__find sets what is watched, and the state of the running file. */
static int moult__find(const char *option, moult__said *said, const char *arg0)
{
	struct moult__state *g = &moult__g;
	struct stat st;
	int gone = 0;
	char id[256];
	int known = g->proc_fd >= 0 && fstatat(g->proc_fd, "exe", &st, 0) == 0;
	if (known)
		g->self = moult__file_of(&st);
	moult__exe_link(g->at, sizeof g->at, &gone);
	if (option != NULL && *option != 0)
		g->exe = moult__absolute(option);
	else if (said->exe != NULL) {
		g->exe = said->exe;
		said->exe = NULL;
	} else {
		const char *execfn = (const char *)(uintptr_t)getauxval(AT_EXECFN);
		char *tries[3];
		tries[0] = arg0 != NULL ? moult__search(arg0, &g->self) : NULL;
		tries[1] = execfn != NULL ? moult__absolute(execfn) : NULL;
		tries[2] = g->at[0] != 0 ? moult__copy(g->at, strlen(g->at)) : NULL;
		for (int i = 0; i < 3; i++)
			if (g->exe == NULL && tries[i] != NULL && (known ? moult__leads_to(tries[i], &g->self) : stat(tries[i], &st) == 0)) {
				g->exe = tries[i];
				tries[i] = NULL;
			}
		/* Replaced since it was started, or a file system where stat(2) and /proc
		 * disagree about what a file is. */
		if (g->exe == NULL && tries[2] != NULL && stat(tries[2], &st) == 0) {
			g->exe = tries[2];
			tries[2] = NULL;
			if (!gone)
				g->self = moult__file_of(&st);
		}
		for (int i = 0; i < 3; i++)
			free(tries[i]);
	}
	if (g->exe == NULL)
		return -ENOENT;
	if (stat(g->exe, &st) == 0) {
		moult__file now = moult__file_of(&st);
		moult__identity(id, sizeof id, &now, "");
		/* What our predecessor found there is what we are, whatever /proc says: else
		 * we would execute it again and again. */
		if (!known || moult__same_id(id, said->exe_id))
			g->self = now;
		if (moult__same_inode(&now, &g->self))
			g->self_idlen = moult__file_id(g->exe, g->self_build);
		if (g->at[0] == 0 && strlen(g->exe) < sizeof g->at)
			memcpy(g->at, g->exe, strlen(g->exe) + 1);
	}
	if (said->exe_id[0] != 0 && strlen(said->exe_id) < sizeof g->self_id)
		memcpy(g->self_id, said->exe_id, strlen(said->exe_id) + 1);
	else
		moult__identity(g->self_id, sizeof g->self_id, &g->self, "");
	return 0;
}

/* moult__resolve follows the links of path once: what is checked is what is
 * executed, and the loader's $ORIGIN is that of one generation. */
static int moult__resolve(const char *path, char *out, size_t n)
{
	int fd = open(path, O_PATH | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	char link[32];
	snprintf(link, sizeof link, "fd/%d", fd);
	ssize_t len = moult__g.proc_fd >= 0 ? readlinkat(moult__g.proc_fd, link, out, n - 1) : -1;
	close(fd);
	if (len > 0 && out[0] == '/') {
		out[len] = 0;
		return 0;
	}
	if (strlen(path) >= n)
		return -ENAMETOOLONG;
	memcpy(out, path, strlen(path) + 1); /* no /proc */
	return 0;
}

/* moult__moved turns a path below the generation that runs into the same below
 * the one that is live: old and now are two places of the executable, and what
 * differs before their common end is the generation. */
static const char *moult__moved(const char *path, const char *old, const char *now, char *out, size_t n)
{
	size_t a = strlen(old), b = strlen(now), cut = 0;
	if (strcmp(old, now) == 0)
		return path;
	for (size_t i = 1; i <= a && i <= b && old[a - i] == now[b - i]; i++)
		if (old[a - i] == '/')
			cut = i;
	if (cut == 0 || cut == a || cut == b || strncmp(path, old, a - cut) != 0 || path[a - cut] != '/' ||
	    b - cut + strlen(path + a - cut) >= n)
		return path;
	memcpy(out, now, b - cut);
	memcpy(out + b - cut, path + a - cut, strlen(path + a - cut) + 1);
	return out;
}

/* moult__note_id finds a build id in notes. */
static unsigned moult__note_id(const unsigned char *p, size_t n, size_t align, unsigned char *id)
{
	while (n >= 12) {
		uint32_t h[3];
		memcpy(h, p, 12);
		size_t a = align == 8 ? 8 : 4, name = (12 + (size_t)h[0] + a - 1) / a * a, all;
		if (h[0] > n || h[1] > n || name > n)
			return 0;
		all = (name + h[1] + a - 1) / a * a;
		if (h[2] == NT_GNU_BUILD_ID && h[0] == 4 && memcmp(p + 12, "GNU", 4) == 0 && h[1] > 0 && h[1] <= 20 &&
		    name + h[1] <= n) {
			memcpy(id, p + name, h[1]);
			return h[1];
		}
		if (all > n)
			return 0;
		p += all;
		n -= all;
	}
	return 0;
}

/* moult__file_id is the build id of a library on disk. */
static unsigned moult__file_id(const char *path, unsigned char *id)
{
	ElfW(Ehdr) eh;
	unsigned len = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return 0;
	if (pread(fd, &eh, sizeof eh, 0) == (ssize_t)sizeof eh && memcmp(eh.e_ident, ELFMAG, SELFMAG) == 0 &&
	    eh.e_phentsize == sizeof(ElfW(Phdr)))
		for (unsigned i = 0; i < eh.e_phnum && i < 64 && len == 0; i++) {
			ElfW(Phdr) ph;
			unsigned char note[4096];
			if (pread(fd, &ph, sizeof ph, (off_t)(eh.e_phoff + i * sizeof ph)) != (ssize_t)sizeof ph)
				break;
			if (ph.p_type != PT_NOTE)
				continue;
			ssize_t n = pread(fd, note, ph.p_filesz < sizeof note ? (size_t)ph.p_filesz : sizeof note, (off_t)ph.p_offset);
			if (n > 0)
				len = moult__note_id(note, (size_t)n, (size_t)ph.p_align, id);
		}
	close(fd);
	return len;
}

typedef struct moult__walk {
	moult__lib *libs;
	size_t n;
	int bad;
} moult__walk;

static int moult__on_lib(struct dl_phdr_info *info, size_t size, void *arg)
{
	moult__walk *w = (moult__walk *)arg;
	struct stat st;
	(void)size;
	if (info->dlpi_name == NULL || info->dlpi_name[0] != '/' || w->n >= 4096 || stat(info->dlpi_name, &st) != 0)
		return 0; /* the program itself, the vdso; or gone, see moult__libs */
	if (strcmp(info->dlpi_name, moult__g.at) == 0)
		return 0; /* musl names the program */
	if ((w->n & (w->n - 1)) == 0) {
		moult__lib *p = (moult__lib *)realloc(w->libs, (w->n == 0 ? 1 : 2 * w->n) * sizeof *p);
		if (p == NULL) {
			w->bad = 1;
			return 1;
		}
		w->libs = p;
	}
	moult__lib *l = &w->libs[w->n];
	memset(l, 0, sizeof *l);
	l->path = moult__copy(info->dlpi_name, strlen(info->dlpi_name));
	if (l->path == NULL) {
		w->bad = 1;
		return 1;
	}
	l->f = moult__file_of(&st);
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		if (ph->p_type == PT_LOAD && l->addr == 0)
			l->addr = (uintptr_t)(info->dlpi_addr + ph->p_vaddr);
		if (ph->p_type == PT_NOTE && l->idlen == 0)
			l->idlen = moult__note_id((const unsigned char *)(uintptr_t)(info->dlpi_addr + ph->p_vaddr), (size_t)ph->p_memsz,
			                          (size_t)ph->p_align, l->id);
	}
	w->n++;
	return 0;
}

/* moult__mapped finds libraries that were replaced between their loading and the
 * first look: mapped from an inode that has no name any more. */
static void moult__mapped(moult__lib *libs, size_t n)
{
	int fd = moult__g.proc_fd >= 0 ? openat(moult__g.proc_fd, "maps", O_RDONLY | O_CLOEXEC) : -1;
	FILE *f = fd >= 0 ? fdopen(fd, "r") : NULL;
	char line[PATH_MAX + 128];
	if (f == NULL) {
		moult__close(&fd);
		return;
	}
	while (fgets(line, (int)sizeof line, f) != NULL) {
		unsigned long from, to, ino;
		size_t len = strlen(line);
		if (len < 12 || strcmp(line + len - 11, " (deleted)\n") != 0 ||
		    sscanf(line, "%lx-%lx %*s %*s %*s %lu", &from, &to, &ino) != 3)
			continue;
		for (size_t i = 0; i < n; i++)
			if (libs[i].addr >= from && libs[i].addr < to && libs[i].f.ino != (uint64_t)ino)
				libs[i].stale = 1;
	}
	fclose(f);
}

static int moult__count(struct dl_phdr_info *info, size_t size, void *arg)
{
	unsigned long long *n = (unsigned long long *)arg;
	(void)size;
	n[0] = info->dlpi_adds;
	n[1] = info->dlpi_subs;
	return 1;
}

/* moult__libs brings the list of libraries up to date: dlopen(3) adds to it. What is
 * on it already keeps its first state. */
static void moult__libs(void)
{
	struct moult__state *g = &moult__g;
	unsigned long long count[2] = {0, 0};
	moult__walk w = {NULL, 0, 0};
	if ((g->o.flags & MOULT_NO_LIBS) != 0)
		return;
	dl_iterate_phdr(moult__count, count);
	if (g->libs != NULL && count[0] == g->adds && count[1] == g->subs)
		return;
	dl_iterate_phdr(moult__on_lib, &w);
	if (w.bad)
		return;
	moult__mapped(w.libs, w.n);
	for (size_t i = 0; i < w.n; i++)
		for (size_t j = 0; j < g->nlibs; j++)
			if (strcmp(w.libs[i].path, g->libs[j].path) == 0 && w.libs[i].addr == g->libs[j].addr) {
				char *path = w.libs[i].path;
				w.libs[i] = g->libs[j];
				w.libs[i].path = path;
			}
	for (size_t j = 0; j < g->nlibs; j++)
		free(g->libs[j].path);
	free(g->libs);
	g->libs = w.libs;
	g->nlibs = w.n;
	g->adds = count[0];
	g->subs = count[1];
}

static uint64_t moult__mix(uint64_t h, const void *p, size_t n) /* FNV-1a */
{
	const unsigned char *c = (const unsigned char *)p;
	if (h == 0)
		h = 1469598103934665603ULL;
	while (n-- > 0)
		h = (h ^ *c++) * 1099511628211ULL;
	return h != 0 ? h : 1;
}

/* moult__warn says something once for each key. */
static void moult__warn(uint64_t key, int level, const char *what, const char *path)
{
	if (key == moult__g.warned)
		return;
	moult__g.warned = key;
	moult__say(level, "%s: %s", path, what);
}

static void moult__overwritten(moult__seen *s, const char *path, const moult__file *f)
{
	s->flags |= MOULT_OVERWRITTEN;
	moult__warn(moult__mix(moult__mix(0, path, strlen(path)), f, sizeof *f), 4,
	            "written to in place while it is in use: it is not executed; put a good file there by rename", path);
}

/* moult__look is one look at all files. */
static void moult__look(moult__seen *s)
{
	struct moult__state *g = &moult__g;
	struct stat st;
	char path[PATH_MAX];
	memset(s, 0, offsetof(moult__seen, at));
	s->at[0] = 0;
	moult__libs();
	if (stat(g->exe, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size == 0 || moult__resolve(g->exe, s->at, sizeof s->at) != 0) {
		s->flags = MOULT_UNSETTLED; /* between two renames */
		return;
	}
	s->exe = moult__file_of(&st);
	if (!moult__same_inode(&s->exe, &g->self)) {
		s->flags |= MOULT_EXE;
		s->digest = moult__mix(s->digest, &s->exe, sizeof s->exe);
	} else if (s->exe.size != g->self.size || s->exe.sec != g->self.sec || s->exe.nsec != g->self.nsec) {
		unsigned char id[20];
		unsigned n = moult__file_id(g->exe, id);
		if (s->exe.size == g->self.size && n != 0 && n == g->self_idlen && memcmp(id, g->self_build, n) == 0) {
			g->self = s->exe; /* touch(1) */
		} else {
			moult__overwritten(s, g->exe, &s->exe);
			return;
		}
	}
	for (size_t i = 0; i < g->nlibs; i++) {
		moult__lib *l = &g->libs[i];
		const char *where = moult__moved(l->path, g->at, s->at, path, sizeof path);
		if (stat(where, &st) != 0) {
			if ((s->flags & MOULT_EXE) == 0)
				s->flags |= MOULT_UNSETTLED; /* or else the new program does not need it */
			continue;
		}
		moult__file f = moult__file_of(&st);
		if (moult__same_file(&f, &l->f) && !l->stale)
			continue;
		unsigned char id[20];
		unsigned n = moult__file_id(where, id);
		if (f.size == l->f.size && n != 0 && n == l->idlen && memcmp(id, l->id, n) == 0 && !l->stale) {
			if (where == l->path)
				l->f = f; /* touched, or replaced by the same build */
			continue;
		}
		if (moult__same_inode(&f, &l->f) && !l->stale) {
			moult__overwritten(s, l->path, &f);
			return;
		}
		s->flags |= MOULT_LIB;
		s->libs = moult__mix(s->libs, where, strlen(where));
		s->libs = moult__mix(s->libs, &f, sizeof f);
	}
	if (s->libs != 0)
		s->digest = moult__mix(s->digest, &s->libs, sizeof s->libs);
}

/* ---- the boot counter ---- */

typedef struct moult__boot {
	int starts, probation;
	char id[512], good[PATH_MAX], good_id[512];
	char rejected[8][512];
	unsigned nrejected;
} moult__boot;

static int moult__boot_path(char *out, size_t n, const char *name)
{
	const char *dir = moult__g.state_dir;
	return dir != NULL && snprintf(out, n, "%s/%s", dir, name) < (int)n ? 0 : -ENOENT;
}

/* moult__trusted: would somebody else than root or us have written it? */
static int moult__trusted(int fd)
{
	struct stat st;
	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (st.st_uid == 0 || st.st_uid == geteuid()) &&
	       (st.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

static void moult__line(char *out, size_t n, const char *value)
{
	size_t len = strcspn(value, "\n");
	if (len >= n)
		len = 0; /* not cut: half an identity or a path is none */
	memcpy(out, value, len);
	out[len] = 0;
}

static int moult__boot_read(moult__boot *b)
{
	char path[PATH_MAX];
	memset(b, 0, sizeof *b);
	if (moult__boot_path(path, sizeof path, "moult-boot") != 0)
		return -ENOENT;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	FILE *f = moult__trusted(fd) ? fdopen(fd, "r") : NULL;
	if (f == NULL) {
		close(fd);
		return -EPERM;
	}
	char line[PATH_MAX + 16];
	int ok = fgets(line, (int)sizeof line, f) != NULL && strcmp(line, "moult-boot 1\n") == 0;
	for (int i = 0; ok && i < 64 && fgets(line, (int)sizeof line, f) != NULL; i++) {
		if (strncmp(line, "id ", 3) == 0)
			moult__line(b->id, sizeof b->id, line + 3);
		else if (strncmp(line, "starts ", 7) == 0)
			b->starts = atoi(line + 7);
		else if (strncmp(line, "probation", 9) == 0)
			b->probation = 1;
		else if (strncmp(line, "good ", 5) == 0)
			moult__line(b->good, sizeof b->good, line + 5);
		else if (strncmp(line, "good-id ", 8) == 0)
			moult__line(b->good_id, sizeof b->good_id, line + 8);
		else if (strncmp(line, "rejected ", 9) == 0 && b->nrejected < 8)
			moult__line(b->rejected[b->nrejected++], sizeof b->rejected[0], line + 9);
	}
	fclose(f);
	return ok ? 0 : -EPROTO;
}

static void moult__boot_write(const moult__boot *b)
{
	char path[PATH_MAX], tmp[PATH_MAX];
	if (moult__boot_path(path, sizeof path, "moult-boot") != 0 || moult__boot_path(tmp, sizeof tmp, "moult-boot.new") != 0)
		return;
	unlink(tmp);
	int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;
	if (f == NULL) {
		moult__close(&fd);
		moult__say(4, "%s: %s; no boot counter", tmp, strerror(errno));
		return;
	}
	fprintf(f, "moult-boot 1\nid %s\nstarts %d\n%s", b->id, b->starts, b->probation ? "probation\n" : "");
	if (b->good[0] != 0)
		fprintf(f, "good %s\ngood-id %s\n", b->good, b->good_id);
	for (unsigned i = 0; i < b->nrejected; i++)
		fprintf(f, "rejected %s\n", b->rejected[i]);
	int bad = fflush(f) != 0 || fsync(fd) != 0;
	fclose(f);
	if (bad || rename(tmp, path) != 0)
		moult__say(4, "%s: %s; no boot counter", path, strerror(errno));
}

static int moult__boot_rejects(const moult__boot *b, const char *id)
{
	for (unsigned i = 0; i < b->nrejected; i++)
		if (moult__same_id(b->rejected[i], id))
			return 1;
	return 0;
}

/* moult__boot_start counts a cold start, and after the third that did not survive
 * its probation executes the last good version. */
static void moult__boot_start(void)
{
	struct moult__state *g = &moult__g;
	moult__boot b;
	char id[256];
	moult__identity(id, sizeof id, &g->self, "");
	if (moult__boot_read(&b) != 0)
		memset(&b, 0, sizeof b);
	for (unsigned i = 0; i < b.nrejected; i++)
		moult__reject_id(b.rejected[i], strlen(b.rejected[i]), "it did not survive three starts", 31);
	if (moult__same_id(b.good_id, id) || (b.probation == 0 && moult__same_id(b.id, id)))
		return;
	int again = moult__same_id(b.id, id), refused = moult__boot_rejects(&b, id);
	if (!again)
		b.starts = 0;
	if ((refused || b.starts >= 3) && b.good[0] == '/') {
		int fd = open(b.good, O_RDONLY | O_CLOEXEC), mem;
		struct stat st;
		char good_id[256] = "";
		if (fd >= 0 && fstat(fd, &st) == 0) {
			moult__file f = moult__file_of(&st);
			moult__identity(good_id, sizeof good_id, &f, "");
		}
		if (fd >= 0 && moult__trusted(fd) && moult__same_id(good_id, b.good_id)) {
			moult__buf h = {NULL, 0, 0, 0};
			static const char why[] = "it did not survive three starts";
			if (!refused && b.nrejected < 8) {
				memcpy(b.rejected[b.nrejected++], id, strlen(id) + 1);
				moult__boot_write(&b);
			}
			moult__put(&h, MOULT__MAGIC, 8);
			moult__record_u64(&h, MOULT__PID, "", (uint64_t)g->pid);
			moult__record_u64(&h, MOULT__GENERATION, "", (uint64_t)g->generation + 1);
			moult__record(&h, MOULT__EXE, g->exe, strlen(g->exe), "", 0);
			moult__record(&h, MOULT__ROLLED_BACK, why, sizeof why - 1, id, strlen(id));
			moult__record(&h, MOULT__REJECTED, why, sizeof why - 1, id, strlen(id));
			moult__record(&h, MOULT__END, "", 0, "", 0);
			mem = h.bad ? -ENOMEM : moult__sealed("moult-handover", h.p, h.n);
			free(h.p);
			if (mem >= 0) {
				moult__env_number(mem);
				moult__cloexec(mem, 0);
				for (int i = 3; i < 3 + g->listen_n; i++)
					moult__cloexec(i, 0);
				moult__say(3, "%s did not survive three starts; going back to %s", g->exe, b.good);
				execve(b.good, g->argv, g->envp);
				moult__say(3, "%s: %s; going on with a version that did not survive three starts", b.good, strerror(errno));
				for (int i = 3; i < 3 + g->listen_n; i++)
					moult__cloexec(i, 1);
				close(mem);
			}
		}
		moult__close(&fd);
	}
	memcpy(b.id, id, strlen(id) + 1);
	b.starts++;
	b.probation = 1;
	g->boot_watch = 1;
	moult__boot_write(&b);
}

/* moult__boot_stopped: an end that is meant is no failure. */
static void moult__boot_stopped(void)
{
	struct moult__state *g = &moult__g;
	moult__boot b;
	char id[256];
	if (!g->boot_watch || g->pid != getpid())
		return;
	g->boot_watch = 0;
	moult__identity(id, sizeof id, &g->self, "");
	if (moult__boot_read(&b) != 0 || !moult__same_id(b.id, id) || !b.probation || b.starts == 0)
		return;
	b.starts--;
	moult__boot_write(&b);
}

#if defined(__GLIBC__)
static void moult__on_end(int status, void *arg)
{
	(void)arg;
	if (status == 0 && moult__g.ready)
		moult__boot_stopped();
}
#endif

/* moult__boot_ready puts a version that was upgraded to on probation. */
static void moult__boot_ready(void)
{
	struct moult__state *g = &moult__g;
	moult__boot b;
	char id[256];
	if (g->state_dir == NULL)
		return;
	g->boot_until = moult__now() + g->o.probation_ms;
#if defined(__GLIBC__)
	on_exit(moult__on_end, NULL);
#endif
	if (g->generation == 0)
		return;
	moult__identity(id, sizeof id, &g->self, "");
	if (moult__boot_read(&b) != 0)
		return;
	if (g->rolled_back != NULL) { /* what was taken back is not to be started cold either */
		for (size_t i = 0; i < g->nrejects; i++) {
			if (moult__boot_rejects(&b, g->rejects[i].id) || strlen(g->rejects[i].id) >= sizeof b.rejected[0])
				continue;
			if (b.nrejected == 8)
				memmove(b.rejected[0], b.rejected[1], sizeof b.rejected[0] * --b.nrejected);
			memcpy(b.rejected[b.nrejected++], g->rejects[i].id, strlen(g->rejects[i].id) + 1);
		}
		moult__boot_write(&b);
		return;
	}
	if (moult__same_id(b.id, id) || moult__same_id(b.good_id, id))
		return;
	memcpy(b.id, id, strlen(id) + 1);
	b.starts = 1;
	b.probation = 1;
	g->boot_watch = 1;
	moult__boot_write(&b);
}

static int moult__copy_file(int from, const char *to, mode_t mode)
{
	char tmp[PATH_MAX];
	static char buf[65536];
	if (snprintf(tmp, sizeof tmp, "%s.new", to) >= (int)sizeof tmp)
		return -ENAMETOOLONG;
	unlink(tmp);
	int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0700), err = 0;
	ssize_t n;
	if (fd < 0)
		return -errno;
	while (err == 0 && (n = read(from, buf, sizeof buf)) != 0)
		err = n < 0 ? -errno : moult__write(fd, buf, (size_t)n);
	if (err == 0 && (fchmod(fd, mode & 0755) != 0 || fsync(fd) != 0))
		err = -errno;
	close(fd);
	if (err == 0 && rename(tmp, to) != 0)
		err = -errno;
	if (err != 0)
		unlink(tmp);
	return err;
}

/* moult__boot_good notes that what runs is good: its probation is over, or it is
 * about to be replaced and no other is known. The file itself is kept: its path if
 * it is still there, a copy in the state directory if not. */
static void moult__boot_good(int replaced)
{
	struct moult__state *g = &moult__g;
	moult__boot b;
	char id[256], copy[PATH_MAX];
	struct stat st;
	if (g->state_dir == NULL)
		return;
	moult__identity(id, sizeof id, &g->self, "");
	if (moult__boot_read(&b) != 0)
		memset(&b, 0, sizeof b);
	if (g->boot_watch && replaced && b.good[0] != 0)
		return; /* on probation itself */
	g->boot_watch = 0;
	int here = stat(g->at, &st) == 0;
	moult__file f;
	memset(&f, 0, sizeof f);
	if (here)
		f = moult__file_of(&st);
	if (here && moult__same_file(&f, &g->self)) {
		if (strlen(g->at) < sizeof b.good)
			memcpy(b.good, g->at, strlen(g->at) + 1);
	} else {
		int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), err;
		if (from < 0 || fstat(from, &st) != 0 || moult__boot_path(copy, sizeof copy, "moult-good") != 0 ||
		    (err = moult__copy_file(from, copy, st.st_mode)) != 0) {
			moult__close(&from);
			moult__say(4, "%s: the running version cannot be kept for the boot counter", g->state_dir);
			return;
		}
		close(from);
		memcpy(b.good, copy, strlen(copy) + 1);
		if (stat(copy, &st) == 0) { /* the copy is good too, when it runs */
			moult__file c = moult__file_of(&st);
			char two[512];
			moult__identity(two, sizeof two, &c, "");
			snprintf(b.good_id, sizeof b.good_id, "%.250s %.250s", id, two);
			b.probation = 0;
			memcpy(b.id, id, strlen(id) + 1);
			b.starts = 0;
			moult__boot_write(&b);
			return;
		}
	}
	memcpy(b.good_id, id, strlen(id) + 1);
	memcpy(b.id, id, strlen(id) + 1);
	b.probation = 0;
	b.starts = 0;
	moult__boot_write(&b);
}

/* ---- systemd ---- */

static int moult__send(const char *state, int fd)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un to;
	struct iovec iov;
	struct msghdr m;
	union { struct cmsghdr head; char room[CMSG_SPACE(sizeof(int))]; } c;
	if (path == NULL || moult__g.trial)
		return 0;
	size_t n = strlen(path);
	if ((path[0] != '/' && path[0] != '@') || n < 2 || n >= sizeof to.sun_path)
		return -EINVAL;
	memset(&to, 0, sizeof to);
	to.sun_family = AF_UNIX;
	memcpy(to.sun_path, path, n);
	if (path[0] == '@')
		to.sun_path[0] = 0;
	memset(&m, 0, sizeof m);
	memset(&c, 0, sizeof c);
	iov.iov_base = (void *)(uintptr_t)state;
	iov.iov_len = strlen(state);
	m.msg_name = &to;
	m.msg_namelen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
	m.msg_iov = &iov;
	m.msg_iovlen = 1;
	if (fd >= 0) {
		m.msg_control = c.room;
		m.msg_controllen = CMSG_SPACE(sizeof(int));
		struct cmsghdr *h = CMSG_FIRSTHDR(&m);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(h), &fd, sizeof fd);
	}
	int s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), err = 1;
	if (s < 0)
		return -errno;
	while (sendmsg(s, &m, MSG_NOSIGNAL) < 0)
		if (errno != EINTR) {
			err = -errno;
			break;
		}
	close(s);
	return err;
}

int moult_notify(const char *state) { return state == NULL || *state == 0 ? -EINVAL : moult__send(state, -1); }

int moult_status(const char *text)
{
	char line[512];
	const char *v = moult__g.version != NULL ? moult__g.version : "";
	snprintf(line, sizeof line, "STATUS=%s%s%.300s", v, *v != 0 ? ": " : "", text != NULL ? text : "");
	for (char *p = line; *p != 0; p++)
		if (*p == '\n')
			*p = ' ';
	return moult__send(line, -1);
}

int moult_stopping(void)
{
	moult__boot_stopped();
	return moult__send("STOPPING=1", -1);
}

int moult_watchdog(void)
{
	struct moult__state *g = &moult__g;
	const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
	uint64_t now = moult__now();
	char *end = NULL;
	if (usec == NULL || (pid != NULL && moult__number(pid) != (long)getpid()))
		return 0;
	unsigned long long v = strtoull(usec, &end, 10);
	if (end == usec || *end != 0 || v == 0)
		return 0;
	if (g->last_dog != 0 && now - g->last_dog < v / 2000U)
		return 0;
	g->last_dog = now;
	return moult__send("WATCHDOG=1", -1);
}

int moult_fdstore(const char *name, int fd)
{
	char line[300];
	size_t n = name != NULL ? strlen(name) : 0;
	if (n == 0 || n > 255 || fd < 0)
		return -EINVAL;
	for (size_t i = 0; i < n; i++)
		if (name[i] <= ' ' || name[i] >= 127 || name[i] == ':')
			return -EINVAL;
	snprintf(line, sizeof line, "FDSTORE=1\nFDNAME=%s", name);
	return moult__send(line, fd);
}

/* ---- a child that executes the new file: preflight, spawn ---- */

typedef struct moult__child {
	const char *path;
	char **envp;
	int out, mem, ready, keep, moved;
	int group; /* of its own */
	int dies; /* with us: it holds our sockets, and the next start could not listen */
	int err; /* of execve */
} moult__child;

/* It runs in the memory of its parent, which waits: only system calls, no locks,
 * and nothing that a sanitizer could note down. */
#if defined(__clang__)
__attribute__((no_sanitize("address", "thread", "undefined")))
#elif defined(__GNUC__)
__attribute__((no_sanitize_address, no_sanitize_thread, no_sanitize_undefined))
#endif
static int moult__child_main(void *arg)
{
	struct moult__state *g = &moult__g;
	moult__child *c = (moult__child *)arg;
	struct sigaction sa, old;
	if (c->dies && (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || (pid_t)syscall(SYS_getppid) != g->pid))
		_exit(127);
	if (c->group)
		setpgid(0, 0);
	memset(&sa, 0, sizeof sa);
	sa.sa_handler = SIG_DFL;
	for (int s = 1; s < 65; s++)
		if (sigaction(s, NULL, &old) == 0 && old.sa_handler != SIG_DFL &&
		    (old.sa_handler != SIG_IGN || (s < 65 && (g->first_ignored & moult__bit(s)) == 0)))
			sigaction(s, &sa, NULL);
	if (c->out >= 0) {
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (null >= 0)
			dup2(null, 0);
		dup2(c->out, 1);
		dup2(c->out, 2);
	}
#ifdef SYS_close_range
	long closed = syscall(SYS_close_range, 3U, ~0U, MOULT__CLOSE_RANGE_CLOEXEC);
#else
	long closed = -1;
#endif
	if (closed != 0)
		for (int fd = 3; fd < 65536; fd++)
			fcntl(fd, F_SETFD, FD_CLOEXEC);
	if (c->keep) {
		for (size_t i = 0; i < g->nkept; i++)
			if (g->kept[i].name != NULL)
				fcntl(g->kept[i].fd, F_SETFD, 0);
		if (g->cwd_fd >= 0)
			fcntl(g->cwd_fd, F_SETFD, 0);
		fcntl(c->mem, F_SETFD, 0);
		if (c->ready >= 0)
			fcntl(c->ready, F_SETFD, 0);
	}
	if (g->cwd_fd >= 0 && fchdir(g->cwd_fd) != 0)
		c->moved = 0; /* it may start all the same */
	umask(g->mask_files);
	sigprocmask(SIG_SETMASK, &g->mask, NULL);
	execve(c->path, g->argv, c->envp);
	c->err = errno;
	_exit(127);
	return 127;
}

/* moult__start starts it. exit_signal 0: the program's wait(2) and SIGCHLD handler
 * do not see the child. */
static pid_t moult__start(moult__child *c, int exit_signal)
{
	size_t len = 256U * 1024U;
	void *stack = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	sigset_t all, old;
	if (stack == MAP_FAILED)
		return -errno;
	c->err = 0;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	pid_t pid = clone(moult__child_main, (char *)stack + len, CLONE_VM | CLONE_VFORK | exit_signal, c);
	int err = errno;
	sigprocmask(SIG_SETMASK, &old, NULL);
	munmap(stack, len);
	if (pid < 0)
		return -err;
	return pid;
}

static int moult__prefix(const char *s, const char *prefix) { return strncmp(s, prefix, strlen(prefix)) == 0; }

/* moult__env makes an environ: that of the first start without what is none of the
 * child's business, plus up to four. */
static char **moult__env(char **more, int trial)
{
	struct moult__state *g = &moult__g;
	size_t n = 0, m = 0;
	while (g->envp[n] != NULL)
		n++;
	char **out = (char **)malloc((n + 5) * sizeof *out);
	if (out == NULL)
		return NULL;
	for (size_t i = 0; i < 4 && more[i] != NULL; i++)
		out[m++] = more[i];
	for (size_t i = 1; i < n; i++)
		if (!trial || !(moult__prefix(g->envp[i], "NOTIFY_SOCKET=") || moult__prefix(g->envp[i], "WATCHDOG_") ||
		                moult__prefix(g->envp[i], "LISTEN_") || moult__prefix(g->envp[i], "LD_BIND_NOW=")))
			out[m++] = g->envp[i];
	out[m] = NULL;
	return out;
}

/* moult__hand makes the hand-over. ready_fd: spawn, -1: in place, -2: trial. */
static int moult__hand(int ready_fd, uint64_t blocked, uint64_t ignored)
{
	struct moult__state *g = &moult__g;
	moult__buf b = {NULL, 0, 0, 0};
	char id[512];
	moult__put(&b, MOULT__MAGIC, 8);
	moult__record_u64(&b, ready_fd == -1 ? (uint32_t)MOULT__PID : (uint32_t)MOULT__PARENT, "", (uint64_t)getpid());
	moult__record_u64(&b, MOULT__GENERATION, "", (uint64_t)g->generation + 1);
	if (g->cwd_fd >= 0)
		moult__record_u64(&b, MOULT__CWD, "", (uint64_t)g->cwd_fd);
	if (ready_fd >= 0)
		moult__record_u64(&b, MOULT__READY, "", (uint64_t)ready_fd);
	if (ready_fd == -1 && g->img_fd >= 0)
		moult__record_u64(&b, MOULT__PREVIOUS, g->at, (uint64_t)g->img_fd);
	moult__identity(id, sizeof id, &g->t.seen.exe, g->t.sha_hex);
	moult__record(&b, MOULT__EXE, g->exe, strlen(g->exe), id, strlen(id));
	for (size_t i = 0; i < g->nkept; i++)
		if (g->kept[i].name != NULL && fcntl(g->kept[i].fd, F_GETFD) >= 0)
			moult__record_u64(&b, MOULT__FD, g->kept[i].name, (uint64_t)g->kept[i].fd);
	for (moult__blob *p = g->blobs; p != NULL; p = p->next)
		moult__record(&b, MOULT__BLOB, p->name, strlen(p->name), p->data, p->len);
	for (char **s = g->argv; *s != NULL; s++)
		moult__record(&b, MOULT__ARG, "", 0, *s, strlen(*s));
	for (char **s = g->envp + 1; *s != NULL; s++)
		moult__record(&b, MOULT__ENV, "", 0, *s, strlen(*s));
	for (size_t i = 0; i < g->nrejects; i++)
		moult__record(&b, MOULT__REJECTED, g->rejects[i].why, strlen(g->rejects[i].why), g->rejects[i].id,
		              strlen(g->rejects[i].id));
	if (ready_fd == -1) {
		moult__record_u64(&b, MOULT__IGNORED, "", ignored);
		if (g->t.has_note)
			moult__record_u64(&b, MOULT__BLOCKED, "", blocked);
	}
	moult__record_u64(&b, MOULT__FIRST_IGNORED, "", g->first_ignored);
	if (g->t.seen.digest != 0)
		moult__record_u64(&b, MOULT__TRIED, "", g->t.seen.digest);
	moult__record(&b, MOULT__END, "", 0, "", 0);
	int fd = b.bad ? -ENOMEM : moult__sealed("moult-handover", b.p, b.n);
	free(b.p);
	return fd;
}

/* ---- preflight ---- */

static int moult__is_bad(uint64_t key)
{
	for (unsigned i = 0; i < 16; i++)
		if (moult__g.bad[i] == key || moult__g.failed[i] == key)
			return 1;
	return 0;
}

static void moult__try_stop(void)
{
	moult__try *t = &moult__g.t;
	moult__close(&t->fd);
	moult__close(&t->self_fd);
	free(t->buf);
	t->buf = NULL;
	if (t->pid > 0) {
		kill(-t->pid, SIGKILL);
		kill(t->pid, SIGKILL);
		while (waitpid(t->pid, NULL, __WALL) < 0 && errno == EINTR)
			;
		t->pid = 0;
	}
	moult__close(&t->pipe_fd);
	t->step = MOULT__IDLE;
}

static int moult__try_later(int err, const char *why) /* not fit now; nothing is held against the file */
{
	moult__warn(moult__mix(moult__g.t.digest, why, strlen(why)), 4, why, moult__g.exe);
	moult__try_stop();
	return err;
}

/* moult__try_bad refuses the set of files for good; the file itself as well if it can
 * never run. */
static int moult__try_bad(const char *why, int file_itself)
{
	struct moult__state *g = &moult__g;
	char id[512];
	uint64_t *list = file_itself ? g->bad : g->failed;
	unsigned *n = file_itself ? &g->nbad : &g->nfailed;
	moult__try_stop();
	g->t.step = MOULT__BAD;
	g->t.err = -EKEYREJECTED;
	if (g->t.digest != 0)
		list[(*n)++ % 16] = g->warned = g->t.digest;
	if (g->t.sha_hex[0] != 0) /* the same bytes in another file */
		list[(*n)++ % 16] = moult__mix(g->t.seen.libs, g->t.sha_hex, 64);
	if (file_itself && (g->t.seen.flags & MOULT_EXE) != 0) {
		moult__identity(id, sizeof id, &g->t.seen.exe, g->t.sha_hex);
		moult__reject_id(id, strlen(id), why, strlen(why));
	}
	moult__say(3, "%s: rejected: %s", g->exe, why);
	moult_status("new version rejected");
	return -EKEYREJECTED;
}

/* moult__try_begin opens what was seen. 0: goes on. */
static int moult__try_begin(const moult__seen *seen)
{
	struct moult__state *g = &moult__g;
	moult__try *t = &g->t;
	struct stat st;
	struct statvfs vfs;
	char id[256];
	moult__try_stop();
	t->seen = *seen;
	t->digest = seen->digest;
	t->off = 0;
	t->out_len = 0;
	t->sha_hex[0] = 0;
	t->marked = t->has_note = 0;
	t->nranges = t->nnotes = 0;
	moult__identity(id, sizeof id, &seen->exe, "");
	const char *why = (seen->flags & MOULT_EXE) != 0 ? moult__rejected(id) : NULL;
	if (why != NULL)
		return moult__try_bad(why, 0);
	t->fd = open(seen->at, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (t->fd < 0)
		return moult__try_later(-errno, "cannot be opened (yet)");
	if (fstat(t->fd, &st) != 0)
		return moult__try_later(-errno, "cannot be looked at");
	moult__file now = moult__file_of(&st);
	if (!moult__same_file(&now, &seen->exe)) {
		moult__try_stop();
		return -EAGAIN;
	}
	if ((st.st_mode & (S_ISUID | S_ISGID)) != 0 || fgetxattr(t->fd, "security.capability", NULL, 0) > 0)
		return moult__try_later(-EACCES, "set-user-id, set-group-id or file capabilities: it would not take the sockets over");
	if (fstatvfs(t->fd, &vfs) == 0 && (vfs.f_flag & 8U /* ST_NOEXEC */) != 0)
		return moult__try_later(-EACCES, "on a file system that is mounted noexec");
	if (faccessat(AT_FDCWD, seen->at, X_OK, AT_EACCESS) != 0)
		return moult__try_later(-EACCES, "not executable (yet)");
	if ((seen->flags & MOULT_EXE) != 0 && seen->exe.size == g->self.size)
		t->self_fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	t->buf = (unsigned char *)malloc(262144 + 64);
	if (t->buf == NULL)
		return moult__try_later(-ENOMEM, "no memory");
	moult__sha_start(&t->sha);
	t->step = MOULT__READING;
	return 0;
}

/* moult__elf checks the headers, and notes where the mark may be. NULL: good. */
static const char *moult__elf(void)
{
	moult__try *t = &moult__g.t;
	ElfW(Ehdr) eh, self;
	int own = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	ssize_t have = own >= 0 ? pread(own, &self, sizeof self, 0) : 0;
	uint64_t size = t->seen.exe.size;
	moult__close(&own);
	if (pread(t->fd, &eh, sizeof eh, 0) != (ssize_t)sizeof eh || memcmp(eh.e_ident, ELFMAG, SELFMAG) != 0)
		return "not an ELF program";
	if (eh.e_ident[EI_CLASS] != (sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32))
		return "for another machine (word size)";
	if (have == (ssize_t)sizeof self && (eh.e_ident[EI_DATA] != self.e_ident[EI_DATA] || eh.e_machine != self.e_machine))
		return "for another machine";
	if (eh.e_type != ET_EXEC && eh.e_type != ET_DYN)
		return "not a program";
	if (eh.e_phentsize != sizeof(ElfW(Phdr)) || eh.e_phnum == 0 || eh.e_phnum > 512 || eh.e_phoff > size ||
	    eh.e_phnum * sizeof(ElfW(Phdr)) > size - eh.e_phoff)
		return "truncated (program headers)";
	if (eh.e_shoff > size || (uint64_t)eh.e_shnum * eh.e_shentsize > size - eh.e_shoff)
		return "truncated (section headers)";
	for (unsigned i = 0; i < eh.e_phnum; i++) {
		ElfW(Phdr) ph;
		if (pread(t->fd, &ph, sizeof ph, (off_t)(eh.e_phoff + i * sizeof ph)) != (ssize_t)sizeof ph)
			return "truncated (program headers)";
		if (ph.p_type == PT_LOAD || ph.p_type == PT_INTERP || ph.p_type == PT_NOTE)
			if (ph.p_offset > size || ph.p_filesz > size - ph.p_offset)
				return "truncated (segments)";
		if (ph.p_type == PT_LOAD && (ph.p_flags & PF_W) == 0 && t->nranges < 16) {
			t->ranges[t->nranges][0] = ph.p_offset;
			t->ranges[t->nranges++][1] = ph.p_offset + ph.p_filesz;
		}
		if (ph.p_type == PT_NOTE && t->nnotes < 8) {
			t->notes[t->nnotes][0] = ph.p_offset;
			t->notes[t->nnotes++][1] = ph.p_offset + ph.p_filesz;
		}
		if (ph.p_type == PT_INTERP) {
			char interp[PATH_MAX];
			size_t n = ph.p_filesz < sizeof interp ? (size_t)ph.p_filesz : 0;
			if (n == 0 || pread(t->fd, interp, n, (off_t)ph.p_offset) != (ssize_t)n || interp[n - 1] != 0)
				return "broken (interpreter)";
			if (access(interp, X_OK) != 0)
				return "its loader (PT_INTERP) is not there";
		}
	}
	return NULL;
}

static int moult__in(uint64_t (*ranges)[2], unsigned n, uint64_t at)
{
	for (unsigned i = 0; i < n; i++)
		if (at >= ranges[i][0] && at + MOULT__MARK_LEN <= ranges[i][1])
			return 1;
	return 0;
}

static int moult__try_run(void);

/* moult__try_read reads on in the new file: digest, the mark, the bytes of the old. */
static int moult__try_read(void)
{
	struct moult__state *g = &moult__g;
	moult__try *t = &g->t;
	const char *why;
	const size_t keep = MOULT__MARK_LEN - 1; /* of the block before: the mark may lie across */
	if (t->off == 0 && (why = moult__elf()) != NULL)
		return moult__try_bad(why, 1);
	for (unsigned done = 0; done < MOULT__CHUNK;) {
		unsigned char *at = t->buf + 64, *mark;
		ssize_t n = pread(t->fd, at, 262144, (off_t)t->off);
		if (n < 0)
			return moult__try_later(-errno, "cannot be read");
		if (n == 0)
			goto whole;
		unsigned char *from = t->off == 0 ? at : at - keep, *end = at + n;
		while (end > from && (mark = (unsigned char *)memmem(from, (size_t)(end - from), moult__note.desc, MOULT__MARK_LEN)) != NULL) {
			uint64_t where = t->off + (uint64_t)(mark - at);
			t->marked |= moult__in(t->ranges, t->nranges, where);
			t->has_note |= moult__in(t->notes, t->nnotes, where);
			from = mark + 1;
		}
		moult__sha_add(&t->sha, at, (size_t)n);
		if (t->self_fd >= 0) {
			static unsigned char other[262144];
			if (pread(t->self_fd, other, (size_t)n, (off_t)t->off) != n || memcmp(other, at, (size_t)n) != 0)
				moult__close(&t->self_fd);
		}
		if ((size_t)n >= keep)
			memcpy(at - keep, at + (size_t)n - keep, keep);
		else
			memset(at - keep, 0, keep); /* a last few bytes; nothing can follow */
		t->off += (uint64_t)n;
		done += (unsigned)n;
	}
	return -EAGAIN;
whole:
	moult__sha_end(&t->sha, t->sha_hex);
	if (t->self_fd >= 0 && t->off == g->self.size) {
		char at[PATH_MAX];
		g->self = t->seen.exe;
		memcpy(at, t->seen.at, sizeof at);
		g->self_idlen = moult__file_id(g->exe, g->self_build);
		moult__try_stop();
		moult__say(6, "%s: replaced by the same bytes; nothing to do", g->exe);
		return -EAGAIN;
	}
	if (!t->marked && !t->has_note)
		return moult__try_bad("does not contain moult.h or package reexec: it would not take the sockets over", 1);
	char id[512];
	moult__identity(id, sizeof id, &t->seen.exe, t->sha_hex);
	why = (t->seen.flags & MOULT_EXE) != 0 ? moult__rejected(id) : NULL;
	if (why != NULL)
		return moult__try_bad(why, 1);
	if (moult__is_bad(moult__mix(t->seen.libs, t->sha_hex, 64)))
		return moult__try_bad("the same bytes failed before", 0);
	moult__close(&t->fd);
	moult__close(&t->self_fd);
	free(t->buf);
	t->buf = NULL;
	if ((g->o.flags & MOULT_NO_PREFLIGHT) != 0) {
		t->step = MOULT__GOOD;
		return 0;
	}
	return moult__try_run();
}

static int moult__try_run(void)
{
	struct moult__state *g = &moult__g;
	moult__try *t = &g->t;
	unsigned char rnd[16];
	char preflight[64];
	char bind_now[] = "LD_BIND_NOW=1", trial[] = "MOULT_TRIAL=1", hand[32];
	char *more[5] = {preflight, bind_now, NULL, NULL, NULL};
	int p[2], is_trial = (g->o.flags & MOULT_TRIAL) != 0;
	moult__child c;
	memset(&c, 0, sizeof c);
	c.mem = c.ready = -1;
#ifdef SYS_getrandom
	if (syscall(SYS_getrandom, rnd, sizeof rnd, 0) != (long)sizeof rnd)
#endif
	{
		int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
		uint64_t now = moult__now();
		memset(rnd, 0, sizeof rnd);
		if (fd < 0 || read(fd, rnd, sizeof rnd) != (ssize_t)sizeof rnd)
			memcpy(rnd, &now, sizeof now); /* it tells an answer from noise; it is no secret */
		moult__close(&fd);
	}
	for (int i = 0; i < 16; i++)
		snprintf(t->nonce + 2 * i, 3, "%02x", (unsigned)rnd[i]);
	snprintf(preflight, sizeof preflight, "MOULT_PREFLIGHT=%s", t->nonce);
	if (is_trial) {
		c.mem = moult__hand(-2, 0, 0);
		if (c.mem < 0)
			return moult__try_later(c.mem, "no hand-over for its trial");
		snprintf(hand, sizeof hand, "MOULT_FD=%d", c.mem);
		more[2] = trial;
		more[3] = hand;
		c.keep = 1;
	}
	if (pipe2(p, O_CLOEXEC | O_NONBLOCK) != 0) {
		moult__close(&c.mem);
		return moult__try_later(-errno, "no pipe for its preflight");
	}
	p[0] = moult__high(p[0]);
	p[1] = moult__high(p[1]);
	fcntl(p[1], F_SETFL, 0); /* the child's end waits */
	c.out = p[1];
	c.path = t->seen.at;
	c.group = 1; /* what it starts ends with it: in a trial it would hold our sockets */
	/* The kernel goes by the thread that forks (prctl(2)), and others than the main
	 * one may end before the preflight does. */
	c.dies = (pid_t)syscall(SYS_gettid) == g->pid;
	c.envp = moult__env(more, 1);
	t->pid = c.envp != NULL ? moult__start(&c, 0) : -ENOMEM;
	free(c.envp);
	close(p[1]);
	moult__close(&c.mem);
	t->pipe_fd = p[0];
	if (t->pid < 0) {
		int err = t->pid;
		t->pid = 0;
		return moult__try_later(err, "no process for its preflight");
	}
	t->deadline = moult__now() + g->o.preflight_ms + (is_trial ? g->o.ready_ms : 0U);
	t->out_len = 0;
	t->step = MOULT__RUNNING;
	if (c.err != 0) { /* execve failed: it is about to end */
		while (waitpid(t->pid, NULL, __WALL) < 0 && errno == EINTR)
			;
		t->pid = 0;
		if (c.err == ETXTBSY || c.err == ENOMEM || c.err == EAGAIN || c.err == EACCES || c.err == EPERM)
			return moult__try_later(-c.err, strerror(c.err));
		return moult__try_bad(strerror(c.err), 1);
	}
	return -EAGAIN;
}

static int moult__answered(void)
{
	moult__try *t = &moult__g.t;
	char want[80];
	snprintf(want, sizeof want, "moult-preflight 1 %s %s", t->nonce,
	         (moult__g.o.flags & MOULT_TRIAL) != 0 ? "ready" : "load");
	size_t n = strlen(want);
	for (size_t i = 0; i + n < t->out_len; i++)
		if ((i == 0 || t->out[i - 1] == '\n') && memcmp(t->out + i, want, n) == 0 && (t->out[i + n] == '\n' || t->out[i + n] == ' '))
			return 1;
	return 0;
}

/* moult__try_wait looks whether the preflight has come to an end. */
static int moult__try_wait(void)
{
	struct moult__state *g = &moult__g;
	moult__try *t = &g->t;
	int status = 0, ended, late;
	pid_t w = 0;
	siginfo_t end;
	memset(&end, 0, sizeof end);
	ended = waitid(P_PID, (id_t)t->pid, &end, WEXITED | WNOHANG | WNOWAIT | __WALL) != 0 || end.si_pid != 0;
	if (ended) {
		kill(-t->pid, SIGKILL); /* as long as the number is not given to another */
		while ((w = waitpid(t->pid, &status, WNOHANG | __WALL)) < 0 && errno == EINTR)
			;
	}
	for (int i = 0; i < 64; i++) { /* 64 KiB for each look; what does not fit pushes out the oldest half */
		char *room = t->out + t->out_len;
		ssize_t n = read(t->pipe_fd, room, sizeof t->out - t->out_len);
		if (n <= 0)
			break;
		t->out_len += (size_t)n;
		if (moult__answered() && !ended)
			break;
		if (t->out_len == sizeof t->out) {
			memmove(t->out, t->out + sizeof t->out / 2, sizeof t->out / 2);
			t->out_len = sizeof t->out / 2;
		}
	}
	late = moult__now() >= t->deadline;
	if (!ended && !late)
		return -EAGAIN;
	if (ended) {
		t->pid = 0;
		if (moult__answered() && (w < 0 || (WIFEXITED(status) && WEXITSTATUS(status) == 0))) {
			moult__try_stop();
			t->step = MOULT__GOOD;
			moult__say(6, "%s: passed its preflight", g->exe);
			return 0;
		}
	}
	char why[300], said[160];
	size_t len = t->out_len < sizeof said - 1 ? t->out_len : sizeof said - 1;
	memcpy(said, t->out, len);
	said[len] = 0;
	said[strcspn(said, "\n")] = 0;
	if (!ended)
		snprintf(why, sizeof why, "no answer to its preflight in %lu ms: %s", (unsigned long)g->o.preflight_ms, said);
	else if (w > 0 && WIFSIGNALED(status))
		snprintf(why, sizeof why, "its preflight ended by signal %d: %s", WTERMSIG(status), said);
	else
		snprintf(why, sizeof why, "its preflight ended with status %d: %s", w > 0 ? WEXITSTATUS(status) : -1, said);
	return moult__try_bad(why, 0);
}

/* moult__try_on brings the candidate a step further. 0: fit; -EAGAIN: not yet. */
static int moult__try_on(const moult__seen *seen)
{
	struct moult__state *g = &moult__g;
	moult__try *t = &g->t;
	if (t->step == MOULT__BAD && seen->digest == 0)
		moult__try_stop(); /* what runs already: somebody asks once more */
	if (t->step != MOULT__IDLE &&
	    (t->digest != seen->digest || !moult__same_file(&t->seen.exe, &seen->exe) || strcmp(t->seen.at, seen->at) != 0))
		moult__try_stop();
	if (seen->digest != 0 && moult__is_bad(seen->digest)) {
		moult__warn(seen->digest, 4, "rejected: it failed before", g->exe);
		return -EKEYREJECTED;
	}
	if (t->step == MOULT__IDLE) {
		int err = moult__try_begin(seen);
		if (err != 0)
			return err;
	}
	switch (t->step) {
	case MOULT__READING:
		return moult__try_read();
	case MOULT__RUNNING:
		return moult__try_wait();
	case MOULT__GOOD:
		return 0;
	default:
		return t->err;
	}
}

/* ---- start ---- */

static char *moult__take_env(const char *name)
{
	const char *v = getenv(name);
	char *c = v != NULL ? moult__copy(v, strlen(v)) : NULL;
	unsetenv(name);
	return c;
}

static int moult__is_nonce(const char *s)
{
	size_t n = strlen(s);
	return n >= 16 && n <= 64 && strspn(s, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == n;
}

static void moult__answer(const char *nonce, const char *word)
{
	char line[128];
	snprintf(line, sizeof line, "moult-preflight 1 %s %s\n", nonce, word);
	moult__write(1, line, strlen(line));
	_exit(0);
}

static char moult__nonce[72]; /* of a trial */

static void moult__options_in(const moult_options *o)
{
	struct moult__state *g = &moult__g;
	if (o != NULL)
		memcpy(&g->o, o, o->size < sizeof g->o ? o->size : sizeof g->o);
	if (g->o.settle_ms == 0)
		g->o.settle_ms = 500;
	if (g->o.preflight_ms == 0)
		g->o.preflight_ms = 30000;
	if (g->o.ready_ms == 0)
		g->o.ready_ms = 60000;
	if (g->o.probation_ms == 0)
		g->o.probation_ms = 300000;
	if (g->o.signal == 0)
		g->o.signal = SIGUSR2;
	if (g->o.version != NULL)
		g->version = moult__copy(g->o.version, strlen(g->o.version));
	const char *dir = g->o.state_dir;
	if (dir == NULL)
		dir = getenv("STATE_DIRECTORY");
	size_t n = dir != NULL ? strcspn(dir, ":") : 0;
	if (n > 0 && !g->secure)
		g->state_dir = moult__copy(dir, n);
}

/* moult__mark says to others that this process can be replaced. */
static int moult__mark(void)
{
	struct moult__state *g = &moult__g;
	char text[128];
	snprintf(text, sizeof text, "moult-reexec 1\npid %ld\ngeneration %d\nsignal %d\nrejected %u\n%s", (long)g->pid, g->generation,
	         g->o.signal > 0 ? g->o.signal : 0, g->turned_down, g->ready ? "" : "starting 1\n");
	int fd = moult__sealed("moult-reexec", text, strlen(text));
	if (fd < 0)
		return fd;
	moult__close(&g->mark_fd);
	g->mark_fd = fd;
	return 0;
}

static int moult__remember(int argc, char **argv, moult__said *said, const char *option_exe)
{
	struct moult__state *g = &moult__g;
	struct stat st;
	extern char **environ;
	(void)argc;
	g->argv = moult__vector(MOULT__ARG, argv, NULL);
	g->envp = moult__vector(MOULT__ENV, environ, moult__env_fd);
	if (g->argv == NULL || g->envp == NULL)
		return -ENOMEM;
	g->proc_fd = moult__high(open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC));
	if (g->cwd_fd < 0)
		g->cwd_fd = moult__high(open(".", O_PATH | O_DIRECTORY | O_CLOEXEC));
	if (stat("/", &st) == 0) {
		g->root_dev = st.st_dev;
		g->root_ino = st.st_ino;
	}
	g->mask_files = umask(077);
	umask(g->mask_files);
	int err = moult__find(option_exe, said, argv[0]);
	g->img_fd = moult__high(open("/proc/self/exe", O_PATH | O_CLOEXEC));
	if (g->img_fd < 0 && g->exe != NULL)
		g->img_fd = moult__high(open(g->exe, O_PATH | O_CLOEXEC)); /* no /proc */
	/* After execveat the kernel calls us by a descriptor's number (before Linux 6.14). */
	char name[16] = "";
	FILE *f = g->rolled_back != NULL && g->exe != NULL ? fopen("/proc/self/comm", "r+") : NULL;
	if (f != NULL) {
		const char *base = strrchr(g->exe, '/');
		if (fgets(name, (int)sizeof name, f) != NULL && name[0] >= '0' && name[0] <= '9' && base != NULL) {
			fseek(f, 0, SEEK_SET);
			fputs(base + 1, f);
		}
		fclose(f);
	}
	return err;
}

int moult_init(int argc, char **argv, const moult_options *options)
{
	struct moult__state *g = &moult__g;
	moult__said said;
	int err = 0, err2;
	if (g->inited)
		return -EINVAL;
	memset(&said, 0, sizeof said);
	g->inited = 1;
	g->pid = getpid();
	g->cwd_fd = g->proc_fd = g->img_fd = g->mark_fd = g->in_fd = g->prev_fd = g->ready_fd = g->child_fd = g->spare_fd = -1;
	g->t.fd = g->t.self_fd = g->t.pipe_fd = -1;
	g->secure = getauxval(AT_SECURE) != 0;
	char *hand = moult__take_env("MOULT_FD"), *nonce = moult__take_env("MOULT_PREFLIGHT");
	char *trial = moult__take_env("MOULT_TRIAL"), *why = moult__take_env("MOULT_WHY");
	moult__options_in(options);
	if (!g->secure && nonce != NULL && moult__is_nonce(nonce)) {
		if (trial == NULL || strcmp(trial, "1") != 0)
			moult__answer(nonce, "load");
		g->trial = 1;
		memcpy(moult__nonce, nonce, strlen(nonce) + 1);
	}
	if (!g->secure && hand != NULL) {
		err = moult__open(hand);
		if (err == 1)
			err = moult__adopt(&said);
		else if (err < 0)
			moult__say(3, "the hand-over in MOULT_FD=%.20s cannot be read", hand);
	}
	if (why != NULL && g->rolled_back != NULL && *why != 0) {
		free(g->rolled_back);
		g->rolled_back = moult__copy(why, strlen(why) < 200 ? strlen(why) : 200);
	}
	free(hand);
	free(nonce);
	free(trial);
	free(why);
	moult__listen_fds();
	moult__signals(&said);
	err2 = moult__remember(argc, argv, &said, g->o.exe);
	free(said.exe);
	g->o.exe = g->o.version = g->o.state_dir = NULL; /* copied, or of no more use */
	if (err == 0)
		err = err2;
	if (g->secure) {
		moult__say(4, "set-user-id, set-group-id or file capabilities: this program cannot be replaced while it runs");
		return -EPERM;
	}
	if (g->in != NULL && said.in_place && g->prev_fd >= 0 && !g->trial && (g->o.flags & MOULT_NO_ROLLBACK) == 0)
		moult__arm();
	if (g->rolled_back != NULL && said.tried != 0)
		g->bad[g->nbad++ % 16] = said.tried;
	if (g->rolled_back != NULL)
		moult__say(4, "the new version was taken back: %s", g->rolled_back);
	if (!g->trial) {
		if (g->generation == 0 && g->in == NULL && err == 0 && g->state_dir != NULL)
			moult__boot_start();
		err2 = moult__mark();
		if (err2 != 0)
			moult__say(4, "others are not told that this program can be replaced: %s", strerror(-err2));
	}
	return err;
}

int moult_generation(void) { return moult__g.generation; }
int moult_trial(void) { return moult__g.trial; }
const char *moult_rolled_back(void) { return moult__g.rolled_back; }
const char *moult_error(void) { return moult__g.error; }

/* ---- what is handed over ---- */

static int moult__name_ok(const char *name) { return name != NULL && *name != 0 && strlen(name) <= 4096; }

int moult_keep(const char *name, int fd)
{
	struct moult__state *g = &moult__g;
	if (!moult__name_ok(name) || fd < 3 || fd >= MOULT__MAX_FD)
		return -EINVAL;
	int flags = fcntl(fd, F_GETFD);
	if (flags < 0)
		return -EBADF;
	if ((size_t)fd >= g->nkept_at) {
		size_t n = ((size_t)fd + 1) * 2;
		int *p = (int *)realloc(g->kept_at, n * sizeof *p);
		if (p == NULL)
			return -ENOMEM;
		memset(p + g->nkept_at, 0, (n - g->nkept_at) * sizeof *p);
		g->kept_at = p;
		g->nkept_at = n;
	}
	if (g->nkept == g->capkept) {
		size_t n = 0, cap;
		for (size_t i = 0; i < g->nkept; i++) /* first close the gaps */
			if (g->kept[i].name != NULL) {
				g->kept[n++] = g->kept[i];
				g->kept_at[g->kept[n - 1].fd] = (int)n;
			}
		g->nkept = n;
		cap = n * 2 + 16;
		moult__kept *p = (moult__kept *)realloc(g->kept, cap * sizeof *p);
		if (p == NULL)
			return -ENOMEM;
		g->kept = p;
		g->capkept = cap;
	}
	char *copy = moult__copy(name, strlen(name));
	if (copy == NULL)
		return -ENOMEM;
	if (g->kept_at[fd] != 0)
		moult_forget(fd);
	g->kept[g->nkept].name = copy;
	g->kept[g->nkept].fd = fd;
	g->kept[g->nkept].was_cloexec = 0;
	g->kept_at[fd] = (int)++g->nkept;
	return 0;
}

int moult_forget(int fd)
{
	struct moult__state *g = &moult__g;
	if (fd < 0 || (size_t)fd >= g->nkept_at || g->kept_at[fd] == 0)
		return -ENOENT;
	moult__kept *k = &g->kept[g->kept_at[fd] - 1];
	free(k->name);
	k->name = NULL;
	g->kept_at[fd] = 0;
	return 0;
}

int moult_take(const char *name)
{
	struct moult__state *g = &moult__g;
	size_t n = name != NULL ? strlen(name) : 0;
	static size_t from; /* where the last one was: thousands are taken one after the other */
	if (n == 0 || g->ngot == 0)
		return -1;
	for (size_t i = 0; i < g->ngot; i++) {
		moult__got *e = &g->got[(from + i) % g->ngot];
		if (!e->taken && e->len == n && memcmp(e->name, name, n) == 0) {
			size_t first = i;
			/* In their order: an earlier one may be before where we began. */
			for (size_t j = 0; first != 0 && j < (from + first) % g->ngot; j++)
				if (!g->got[j].taken && g->got[j].len == n && memcmp(g->got[j].name, name, n) == 0) {
					e = &g->got[j];
					break;
				}
			e->taken = 1;
			from = (size_t)(e - g->got);
			return e->fd;
		}
	}
	return -1;
}

int moult_save(const char *name, const void *data, size_t len)
{
	struct moult__state *g = &moult__g;
	moult__blob **p, *b;
	void *copy;
	if (!moult__name_ok(name))
		return -EINVAL;
	for (p = &g->blobs; *p != NULL && strcmp((*p)->name, name) != 0;)
		p = &(*p)->next;
	if (data == NULL) {
		if ((b = *p) != NULL) {
			*p = b->next;
			free(b->name);
			free(b->data);
			free(b);
		}
		return 0;
	}
	copy = malloc(len > 0 ? len : 1);
	if (copy == NULL)
		return -ENOMEM;
	memcpy(copy, data, len);
	if (*p == NULL) {
		b = (moult__blob *)calloc(1, sizeof *b);
		if (b == NULL || (b->name = moult__copy(name, strlen(name))) == NULL) {
			free(b);
			free(copy);
			return -ENOMEM;
		}
		*p = b;
	}
	free((*p)->data);
	(*p)->data = copy;
	(*p)->len = len;
	return 0;
}

const void *moult_load(const char *name, size_t *len)
{
	size_t off = 8, n = name != NULL ? strlen(name) : 0;
	const void *found = NULL;
	moult__rec r;
	if (len != NULL)
		*len = 0;
	if (moult__g.in == NULL || n == 0)
		return NULL;
	while (moult__next(&off, &r) && r.type != MOULT__END)
		if (r.type == MOULT__BLOB && r.name_len == n && memcmp(r.name, name, n) == 0) {
			found = r.data; /* the last one counts */
			if (len != NULL)
				*len = r.len;
		}
	return found;
}

int moult_ready(void)
{
	struct moult__state *g = &moult__g;
	char text[160];
	struct stat st;
	if (!g->inited)
		return -EINVAL;
	if (g->ready)
		return 0;
	if (g->trial)
		moult__answer(moult__nonce, "ready");
	moult__disarm();
	g->ready = 1;
	for (size_t i = 0; i < g->ngot; i++) {
		moult__got *e = &g->got[i];
		int used = e->taken || moult__is_listen_fd(e->fd) || ((size_t)e->fd < g->nkept_at && g->kept_at[e->fd] != 0);
		for (size_t j = 0; !used && j < i; j++) /* under another name */
			used = g->got[j].fd == e->fd;
		for (size_t j = i + 1; !used && j < g->ngot; j++)
			used = g->got[j].fd == e->fd && g->got[j].taken;
		if (!used)
			close(e->fd);
	}
	free(g->got);
	g->got = NULL;
	g->ngot = 0;
	free(g->listen_names);
	g->listen_names = NULL;
	moult__close(&g->prev_fd);
	moult__close(&g->in_fd);
	if (g->in != NULL)
		munmap((void *)(uintptr_t)g->in, g->in_len);
	g->in = NULL;
	g->in_len = 0;
	/* A descriptor of a directory outside leads out of a chroot. */
	if (stat("/", &st) != 0 || st.st_dev != g->root_dev || st.st_ino != g->root_ino) {
		moult__close(&g->cwd_fd);
		moult__close(&g->proc_fd);
	}
	moult__libs();
	/* Only libraries had changed: what is there now is what was taken back. */
	if (g->rolled_back != NULL && g->exe != NULL) {
		static moult__seen seen;
		moult__look(&seen);
		if ((seen.flags & MOULT_EXE) == 0 && seen.digest != 0)
			g->bad[g->nbad++ % 16] = seen.digest;
	}
	moult__boot_ready();
	moult__mark(); /* if it fails, others take us for one that is still starting */
	int spawned = g->ready_fd >= 0;
	if (spawned) {
		snprintf(text, sizeof text, "ready %ld\n", (long)g->pid);
		moult__write(g->ready_fd, text, strlen(text));
		moult__close(&g->ready_fd);
		snprintf(text, sizeof text, "MAINPID=%ld\nREADY=1\nSTATUS=generation %d", (long)g->pid, g->generation);
	} else
		snprintf(text, sizeof text, "READY=1\nSTATUS=%.80s%sgeneration %d", g->version != NULL ? g->version : "",
		         g->version != NULL ? ", " : "", g->generation);
	moult__send(text, -1);
	moult__signals_ready();
	return 0;
}

/* ---- changed, exec ---- */

/* moult__turn_down says that who has asked need not wait any longer. */
static void moult__turn_down(void)
{
	struct moult__state *g = &moult__g;
	if (!g->asked_now)
		return;
	g->asked_now = 0;
	g->turned_down++;
	moult__mark(); /* if it fails, they wait */
}

/* moult__advance takes a look, and the next step of the preflight. err: why not now.
 * now_please: somebody has asked, 1, or waits, 2. */
static int moult__advance(int now_please, int *err)
{
	struct moult__state *g = &moult__g;
	static moult__seen seen;
	uint64_t now = moult__now();
	moult__look(&seen);
	*err = -EAGAIN;
	if ((seen.flags & MOULT_OVERWRITTEN) != 0) {
		moult__try_stop();
		*err = -ESTALE;
		moult__turn_down();
		return MOULT_OVERWRITTEN;
	}
	if ((seen.flags & MOULT_UNSETTLED) != 0) {
		*err = -ENOENT;
		return MOULT_UNSETTLED;
	}
	if (seen.digest == 0 && !now_please) {
		moult__try_stop();
		g->last_digest = 0;
		return MOULT_SAME;
	}
	if (seen.digest != g->last_digest) {
		g->last_digest = seen.digest;
		g->since = now;
	}
	if ((now_please == 0 && now - g->since < g->o.settle_ms) || (now_please < 2 && now < g->hold_until))
		return MOULT_UNSETTLED;
	*err = moult__try_on(&seen);
	if (*err == 0)
		return (seen.flags & (MOULT_EXE | MOULT_LIB)) | (g->asked_now ? MOULT_ASKED : 0);
	if (*err == -EAGAIN)
		return MOULT_UNSETTLED;
	if (*err == -EKEYREJECTED) {
		moult__turn_down();
		return MOULT_REJECTED;
	}
	if (now_please == 1)
		g->hold_until = now + 250U; /* what was asked for is not forgotten */
	return MOULT_UNSETTLED;
}

static void moult__child_look(void);

int moult_changed(void)
{
	struct moult__state *g = &moult__g;
	int err;
	if (!g->inited || !g->ready)
		return MOULT_SAME;
	moult_watchdog();
	if (g->secure || g->exe == NULL)
		return MOULT_SAME;
	uint64_t now = moult__now();
	if (g->boot_watch && now >= g->boot_until)
		moult__boot_good(0);
	if (g->child > 0)
		moult__child_look();
	if (g->replaced)
		return MOULT_REPLACED;
	if (g->child > 0)
		return MOULT_UNSETTLED;
	int asked = g->asked;
	if (asked) {
		g->asked = 0;
		g->asked_now = 1;
		g->hold_until = g->holds = 0;
		memset(g->failed, 0, sizeof g->failed); /* it may have been the machine: it costs little to try */
		if (g->t.step == MOULT__BAD)
			moult__try_stop();
	}
	if (!asked && g->t.step != MOULT__READING && g->t.step != MOULT__RUNNING && now - g->last_look < MOULT__LOOK_MS)
		return g->last_flags;
	g->last_look = now;
	g->last_flags = moult__advance(g->asked_now, &err);
	return g->last_flags;
}

int moult_preflight(void)
{
	struct moult__state *g = &moult__g;
	int err = 0, flags;
	if (!g->inited || g->secure)
		return -EPERM;
	if (!g->ready)
		return -EBUSY;
	if (g->exe == NULL)
		return -ENOENT;
	for (;;) {
		flags = moult__advance(2, &err);
		if (err != -EAGAIN)
			break;
		if (g->t.step == MOULT__RUNNING) {
			struct pollfd p;
			p.fd = g->t.pipe_fd;
			p.events = POLLIN;
			if (poll(&p, 1, 5) > 0)
				poll(NULL, 0, 1); /* it is about to end */
		}
	}
	(void)flags;
	return err;
}

typedef struct moult__undo {
	sigset_t mask;
	uint64_t ignored;
	struct sigaction acts[65];
	struct itimerval timer[3];
	mode_t files;
	int cwd, moved;
	int *open_fds; /* that had no FD_CLOEXEC */
	size_t nopen;
} moult__undo;

/* moult__flags_set makes every descriptor but those that are handed over
 * close-on-exec, and remembers what had to be changed. */
static int moult__flags_set(moult__undo *u, int mem)
{
	struct moult__state *g = &moult__g;
	int dir = g->proc_fd >= 0 ? openat(g->proc_fd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	DIR *d = dir >= 0 ? fdopendir(dir) : NULL;
	struct dirent *e;
	size_t cap = 0;
	int max = 0, fd = 0;
	if (d == NULL) {
		struct rlimit lim;
		moult__close(&dir);
		max = getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < 65536 ? (int)lim.rlim_cur : 65536;
	}
	for (;;) {
		if (d == NULL) {
			if (++fd >= max)
				break;
		} else {
			if ((e = readdir(d)) == NULL)
				break;
			fd = (int)moult__number(e->d_name);
		}
		int flags = fd > 2 ? fcntl(fd, F_GETFD) : -1;
		if (flags < 0 || (flags & FD_CLOEXEC) != 0 || moult__is_listen_fd(fd))
			continue;
		if (u->nopen == cap) {
			cap = cap * 2 + 64;
			int *p = (int *)realloc(u->open_fds, cap * sizeof *p);
			if (p == NULL) {
				if (d != NULL)
					closedir(d);
				return -ENOMEM;
			}
			u->open_fds = p;
		}
		u->open_fds[u->nopen++] = fd;
		moult__cloexec(fd, 1);
	}
	if (d != NULL)
		closedir(d);
#ifdef SYS_close_range
	/* What another thread opened meanwhile. */
	syscall(SYS_close_range, 3U, ~0U, MOULT__CLOSE_RANGE_CLOEXEC);
#endif
	for (size_t i = 0; i < g->nkept; i++)
		if (g->kept[i].name != NULL)
			moult__cloexec(g->kept[i].fd, 0);
	for (fd = 3; fd < 3 + g->listen_n; fd++)
		moult__cloexec(fd, 0);
	if (g->img_fd >= 0)
		moult__cloexec(g->img_fd, 0);
	if (g->cwd_fd >= 0)
		moult__cloexec(g->cwd_fd, 0);
	return moult__cloexec(mem, 0) != 0 ? -errno : 0;
}

static void moult__flags_undo(moult__undo *u)
{
	struct moult__state *g = &moult__g;
	for (size_t i = 0; i < g->nkept; i++)
		if (g->kept[i].name != NULL && !g->kept[i].was_cloexec)
			moult__cloexec(g->kept[i].fd, 0);
		else if (g->kept[i].name != NULL)
			moult__cloexec(g->kept[i].fd, 1);
	for (int fd = 3; fd < 3 + g->listen_n; fd++)
		moult__cloexec(fd, 1);
	if (g->img_fd >= 0)
		moult__cloexec(g->img_fd, 1);
	if (g->cwd_fd >= 0)
		moult__cloexec(g->cwd_fd, 1);
	for (size_t i = 0; i < u->nopen; i++)
		moult__cloexec(u->open_fds[i], 0);
	free(u->open_fds);
}

/* moult__caught is the set of signals that have a handler. */
static uint64_t moult__caught(void)
{
	uint64_t set = 0;
	struct sigaction sa;
	for (int s = 1; s < 65; s++)
		if (moult__ours_to_catch(s) && sigaction(s, NULL, &sa) == 0 && sa.sa_handler != SIG_DFL && sa.sa_handler != SIG_IGN)
			set |= moult__bit(s);
	return set;
}

/* moult__quiet makes signals survive the exec: blocked and pending for C, ignored
 * for a program that would never unblock them. */
static void moult__quiet(moult__undo *u, uint64_t blocked, uint64_t *ignored)
{
	struct moult__state *g = &moult__g;
	sigset_t mask = g->mask;
	for (int s = 1; s < 65; s++)
		if ((blocked & moult__bit(s)) != 0)
			sigaddset(&mask, s);
	sigprocmask(SIG_SETMASK, &mask, &u->mask);
	*ignored = 0;
	if (g->t.has_note)
		return;
	uint64_t set = moult__bit(SIGHUP) | moult__bit(SIGUSR1) | moult__bit(SIGUSR2);
	if (g->o.signal > 0)
		set |= moult__bit(g->o.signal);
	for (int s = 1; s < 65; s++) {
		struct sigaction sa;
		if ((set & moult__bit(s)) == 0 || sigaction(s, NULL, &u->acts[s]) != 0 || u->acts[s].sa_handler == SIG_IGN)
			continue;
		memset(&sa, 0, sizeof sa);
		sa.sa_handler = SIG_IGN;
		sigaction(s, &sa, NULL);
		*ignored |= moult__bit(s);
	}
	u->ignored = *ignored;
}

int moult_exec(void)
{
	struct moult__state *g = &moult__g;
	static moult__undo u;
	const struct itimerval none = {{0, 0}, {0, 0}};
	char text[80];
	struct timespec ts;
	int err = moult_preflight(), mem;
	if (err != 0)
		return err;
	if (g->child > 0)
		return -EALREADY;
	struct stat st;
	if (stat("/", &st) != 0 || st.st_dev != g->root_dev || st.st_ino != g->root_ino)
		moult__close(&g->cwd_fd);
	memset(&u, 0, sizeof u);
	u.cwd = -1;
	if (g->state_dir != NULL && (g->t.seen.flags & MOULT_EXE) != 0)
		moult__boot_good(1);
	clock_gettime(CLOCK_MONOTONIC, &ts);
	snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%llu",
	         (unsigned long long)ts.tv_sec * 1000000ULL + (unsigned long long)ts.tv_nsec / 1000ULL);
	moult__send(text, -1);

	uint64_t ignored = 0, blocked = g->t.has_note ? moult__caught() : 0;
	moult__quiet(&u, blocked, &ignored);
	for (size_t i = 0; i < g->nkept; i++)
		if (g->kept[i].name != NULL)
			g->kept[i].was_cloexec = (fcntl(g->kept[i].fd, F_GETFD) & FD_CLOEXEC) != 0;
	mem = moult__hand(-1, blocked, ignored);
	err = mem < 0 ? mem : moult__flags_set(&u, mem);
	setitimer(ITIMER_REAL, &none, &u.timer[0]); /* they outlive an exec */
	setitimer(ITIMER_VIRTUAL, &none, &u.timer[1]);
	setitimer(ITIMER_PROF, &none, &u.timer[2]);
	u.files = umask(g->mask_files);
	if (err == 0 && g->cwd_fd >= 0) {
		u.cwd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (u.cwd >= 0 && fchdir(g->cwd_fd) == 0)
			u.moved = 1; /* or else it starts where we are */
	}
	if (err == 0) {
		moult__seen *seen = &g->t.seen;
		if (stat(seen->at, &st) != 0) {
			err = -errno;
		} else {
			moult__file now = moult__file_of(&st);
			if (!moult__same_file(&now, &seen->exe))
				err = -EAGAIN; /* replaced once more since its preflight */
		}
		if (err == 0) {
			moult__env_number(mem);
			execve(seen->at, g->argv, g->envp);
			err = -errno;
		}
	}

	/* It failed. Everything back, the last first. */
	if (u.moved && fchdir(u.cwd) != 0)
		moult__say(3, "the working directory cannot be restored: %s", strerror(errno));
	moult__close(&u.cwd);
	umask(u.files);
	setitimer(ITIMER_REAL, &u.timer[0], NULL);
	setitimer(ITIMER_VIRTUAL, &u.timer[1], NULL);
	setitimer(ITIMER_PROF, &u.timer[2], NULL);
	moult__flags_undo(&u);
	moult__close(&mem);
	for (int s = 1; s < 65; s++)
		if ((u.ignored & moult__bit(s)) != 0)
			sigaction(s, &u.acts[s], NULL);
	sigprocmask(SIG_SETMASK, &u.mask, NULL);
	moult__try_stop();
	if (err == -ENOEXEC || err == -ELIBBAD || err == -EINVAL) {
		moult__try_bad(strerror(-err), 1);
		moult__turn_down();
	} else if (err == -EAGAIN) {
		moult__say(6, "%s: replaced again since it was tried", g->exe);
	} else {
		g->hold_until = moult__now() + (1000ULL << (g->holds < 6 ? g->holds : 6));
		g->holds++;
		moult__say(3, "%s: execve: %s", g->exe, strerror(-err));
	}
	g->last_flags = MOULT_UNSETTLED;
	snprintf(text, sizeof text, "READY=1\nSTATUS=the new version cannot be executed");
	moult__send(text, -1);
	return err;
}

/* ---- spawn ---- */

static void moult__on_drained(int sig)
{
	(void)sig;
	if ((pid_t)syscall(SYS_getpid) == moult__g.pid)
		_exit(0);
}

static void moult__child_look(void)
{
	struct moult__state *g = &moult__g;
	char want[32];
	ssize_t n = read(g->child_fd, g->child_out + g->child_len, sizeof g->child_out - 1 - g->child_len);
	int err = errno, late = moult__now() >= g->child_deadline;
	if (n > 0) {
		g->child_len += (size_t)n;
		g->child_out[g->child_len] = 0;
	}
	snprintf(want, sizeof want, "ready %ld\n", (long)g->child);
	/* In a PID namespace of its own the child knows another number. */
	if (g->child_len > 6 && strncmp(g->child_out, "ready ", 6) == 0 && strchr(g->child_out, '\n') != NULL) {
		moult__say(6, "%s: generation %d is ready as process %ld", g->exe, g->generation + 1, (long)g->child);
		moult__close(&g->child_fd);
		g->replaced = 1;
		g->child = 0;
		if (g->drain_ms != 0)
			moult__timer_start(g->drain_ms, moult__on_drained);
		return;
	}
	if (n > 0 || (n < 0 && (err == EAGAIN || err == EINTR) && !late))
		return;
	siginfo_t info;
	/* If the program has waited for it, its number may be somebody else's by now. */
	if (waitid(P_PID, (id_t)g->child, &info, WEXITED | WNOHANG | WNOWAIT) == 0) {
		kill(g->child, SIGKILL);
		while (waitpid(g->child, NULL, 0) < 0 && errno == EINTR)
			;
	}
	g->child = 0;
	moult__close(&g->child_fd);
	moult__try_bad(late ? "started, but was not ready in time" : "started, but ended before it was ready", 1);
	g->last_flags = MOULT_REJECTED;
}

int moult_fork_exec(uint32_t drain_ms)
{
	struct moult__state *g = &moult__g;
	int err, p[2];
	moult__child c;
	char hand[32], *more[5] = {hand, NULL, NULL, NULL, NULL};
	if (g->child > 0 || g->replaced)
		return -EALREADY;
	err = moult_preflight();
	if (err != 0)
		return err;
	memset(&c, 0, sizeof c);
	c.out = -1;
	if (pipe2(p, O_CLOEXEC | O_NONBLOCK) != 0)
		return -errno;
	p[0] = moult__high(p[0]);
	c.ready = p[1] = moult__high(p[1]);
	c.mem = moult__hand(p[1], 0, 0);
	if (c.mem >= 0) {
		snprintf(hand, sizeof hand, "MOULT_FD=%d", c.mem);
		c.path = g->t.seen.at;
		c.keep = 1;
		c.envp = moult__env(more, 0);
		err = c.envp != NULL ? moult__start(&c, SIGCHLD) : -ENOMEM;
		free(c.envp);
	} else
		err = c.mem;
	close(p[1]);
	moult__close(&c.mem);
	if (err > 0 && c.err != 0) {
		while (waitpid(err, NULL, 0) < 0 && errno == EINTR)
			;
		err = -c.err;
	}
	if (err < 0) {
		close(p[0]);
		moult__say(3, "%s: %s", g->exe, strerror(-err));
		return err;
	}
	g->asked_now = 0;
	g->child = err;
	g->child_fd = p[0];
	g->child_len = 0;
	g->child_deadline = moult__now() + g->o.ready_ms;
	g->drain_ms = drain_ms;
	return err;
}

#ifdef __cplusplus
}
#endif
#endif /* MOULT_IMPLEMENTATION */
