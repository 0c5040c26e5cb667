/* hold does what its arguments say, prints "ready", and waits to be killed.
 *
 *   dlopen FILE   load a library        map FILE      map a file, close it
 *   open FILE     keep it open          chdir DIR     stand there
 *   chroot DIR    have another root     many FILE     map it five times
 *   split FILE    map it, protect its middle page otherwise
 *   quit          end the first thread, a second one goes on
 *   thread DIR    a thread with a working directory of its own stands there
 *   files FILE    a thread with descriptors of its own has it open
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
		} else if (!strcmp(job, "map")) mapped(arg, &n);
		else if (!strcmp(job, "many")) for (int k = 0; k < 5; k++) mapped(arg, &n);
		else if (!strcmp(job, "split")) {
			char *at = mapped(arg, &n);
			check(mprotect(at + 4096, 4096, PROT_READ | PROT_WRITE), "mprotect");
		} else if (!strcmp(job, "open")) check(open(arg, O_RDONLY) < 0, arg);
		else if (!strcmp(job, "chdir")) check(chdir(arg), arg);
		else if (!strcmp(job, "chroot")) check(chroot(arg), arg);
		else if (!strcmp(job, "thread")) start(stand, arg);
		else if (!strcmp(job, "files")) start(keep, arg);
		else { fprintf(stderr, "what is %s?\n", job); return 2; }
	}
	puts("ready"); fflush(stdout);
	rest();
}
