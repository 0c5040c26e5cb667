/* hold does what its arguments say, prints "ready", and waits to be killed.
 *
 *   dlopen FILE   load a library        map FILE      map a file, close it
 *   open FILE     keep it open          chdir DIR     stand there
 *   chroot DIR    have another root     many FILE     map it five times
 *   split FILE    map it, protect its middle page otherwise
 *   quit          end the first thread, a second one goes on
 *   thread DIR    a thread with a working directory of its own stands there
 *   files FILE    a thread with descriptors of its own has it open
 *   await FILE    say "waiting" and go on when the file is there
 *   exec FILE     execute it, with what follows as its arguments
 *   fexec FILE    the same by descriptor
 *   dlmopen FILE  load a library into a namespace of its own
 *   code KIND     map memory as code: memfd, shm, sysv, zero, or a file's path
 *   temp FILE     load a library and unlink it
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_barrier_t both;

static _Noreturn void rest(void) {
	for (;;) pause();
}

static void check(int bad, const char *what) {
	if (bad) { perror(what); exit(1); }
}

static char *mapped(const char *file, size_t *size) {
	struct stat st;
	int fd = open(file, O_RDONLY);
	check(fd < 0 || fstat(fd, &st), file);
	*size = st.st_size;
	char *at = mmap(0, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	check(at == MAP_FAILED, "mmap");
	close(fd);
	return at;
}

static void *stand(void *dir) {
	check(unshare(CLONE_FS) || chdir(dir), "thread");
	pthread_barrier_wait(&both);
	rest();
}

static void *keep(void *file) {
	check(unshare(CLONE_FILES) || open(file, O_RDONLY) < 0, "files");
	pthread_barrier_wait(&both);
	rest();
}

static pthread_t first;

static void *outlive(void *unused) {
	pthread_join(first, 0);
	puts("ready"); fflush(stdout);
	rest();
}

static void start(void *(*run)(void *), char *arg) {
	pthread_t t;
	pthread_barrier_init(&both, 0, 2);
	check(pthread_create(&t, 0, run, arg) != 0, "pthread_create");
	pthread_barrier_wait(&both);
}

/* code maps one page as just-in-time compilers do, and unlinks its file unless
 * that is a cache for the next start. */
static void code(const char *kind) {
	int fd, flags = MAP_SHARED;
	if (!strcmp(kind, "sysv")) {
		int id = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0700);
		check(id < 0 || shmat(id, 0, SHM_EXEC) == (void *)-1, "shmat");
		shmctl(id, IPC_RMID, 0);
		return;
	}
	if (!strcmp(kind, "memfd")) fd = memfd_create("jit", 0);
	else if (!strcmp(kind, "zero")) fd = open("/dev/zero", O_RDWR);
	else if (!strcmp(kind, "shm")) {
		char name[64];
		sprintf(name, "/dev/shm/moult-hold-%d", getpid());
		fd = open(name, O_RDWR | O_CREAT | O_EXCL, 0700);
		unlink(name);
	} else {
		fd = open(kind, O_RDWR | O_CREAT, 0700);
		if (!strstr(kind, ".cache")) unlink(kind);
	}
	check(fd < 0 || strcmp(kind, "zero") && ftruncate(fd, 4096), kind);
	check(mmap(0, 4096, PROT_READ | PROT_EXEC, flags, fd, 0) == MAP_FAILED, "mmap code");
	close(fd);
}

int main(int argc, char **argv) {
	size_t n;
	for (int i = 1; i < argc; i++) {
		char *job = argv[i], *arg = argv[i + 1];
		if (!strcmp(job, "quit")) {
			pthread_t t;
			first = pthread_self();
			check(pthread_create(&t, 0, outlive, 0) != 0, "pthread_create");
			pthread_exit(0);
		}
		i++;
		if (!strcmp(job, "dlopen")) {
			if (!dlopen(arg, RTLD_NOW)) { fprintf(stderr, "%s\n", dlerror()); return 1; }
		} else if (!strcmp(job, "temp")) {
			if (!dlopen(arg, RTLD_NOW)) { fprintf(stderr, "%s\n", dlerror()); return 1; }
			unlink(arg);
		} else if (!strcmp(job, "dlmopen")) {
			if (!dlmopen(LM_ID_NEWLM, arg, RTLD_NOW)) { fprintf(stderr, "%s\n", dlerror()); return 1; }
		} else if (!strcmp(job, "map")) mapped(arg, &n);
		else if (!strcmp(job, "many")) for (int k = 0; k < 5; k++) mapped(arg, &n);
		else if (!strcmp(job, "split")) {
			char *at = mapped(arg, &n);
			check(mprotect(at + 4096, 4096, PROT_READ | PROT_WRITE), "mprotect");
		} else if (!strcmp(job, "open")) check(open(arg, O_RDONLY) < 0, arg);
		else if (!strcmp(job, "chdir")) check(chdir(arg), arg);
		else if (!strcmp(job, "chroot")) check(chroot(arg), arg);
		else if (!strcmp(job, "await")) {
			puts("waiting"); fflush(stdout);
			while (access(arg, F_OK)) usleep(1000);
		} else if (!strcmp(job, "exec")) check(execv(arg, argv + i), arg);
		else if (!strcmp(job, "fexec")) check(fexecve(open(arg, O_PATH), argv + i, (char *[]){0}), arg);
		else if (!strcmp(job, "code")) code(arg);
		else if (!strcmp(job, "thread")) start(stand, arg);
		else if (!strcmp(job, "files")) start(keep, arg);
		else { fprintf(stderr, "what is %s?\n", job); return 2; }
	}
	puts("ready"); fflush(stdout);
	rest();
}
