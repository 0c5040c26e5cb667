/* Hand-overs with bytes flipped and ends cut off: moult_init has to stand them all.
 * Each is adopted, or not, in a child of its own, under the address sanitizer. */
#define MOULT_IMPLEMENTATION
#include "moult.h"

static void rec(moult__buf *b, uint32_t type, const char *name, const void *data, size_t len)
{
	moult__record(b, type, name, strlen(name), data, len);
}

static int hand(unsigned seed)
{
	static const char id[] = "stat:1:2:3:4.000000005";
	moult__buf b = {NULL, 0, 0, 0};
	unsigned char u[8];
	moult__put(&b, MOULT__MAGIC, 8);
	moult__le(u, (uint64_t)getpid(), 8);
	rec(&b, MOULT__PID, "", u, 8);
	moult__le(u, 3, 8);
	rec(&b, MOULT__GENERATION, "", u, 8);
	moult__le(u, (uint64_t)dup(2), 8);
	rec(&b, MOULT__FD, "x", u, 8);
	rec(&b, MOULT__FD, "y", u, 8);
	rec(&b, MOULT__BLOB, "blob", "hello world", 11);
	rec(&b, MOULT__ARG, "", "a", 1);
	rec(&b, MOULT__ARG, "", "bb", 2);
	rec(&b, MOULT__ENV, "", "A=B", 3);
	rec(&b, MOULT__REJECTED, "why", id, strlen(id));
	rec(&b, MOULT__ROLLED_BACK, "why", id, strlen(id));
	rec(&b, MOULT__EXE, "/bin/true", id, strlen(id));
	rec(&b, MOULT__BLOCKED, "", u, 8);
	rec(&b, MOULT__END, "", u, 0);
	srand(seed);
	size_t len = b.n;
	for (int n = rand() % 4; n > 0; n--)
		b.p[8 + (size_t)rand() % (len - 8)] ^= (unsigned char)(rand() % 2 ? 1 << rand() % 8 : rand());
	if (rand() % 5 == 0)
		len = 8 + (size_t)rand() % (len - 8);
	int fd = moult__sealed("moult-handover", b.p, len);
	free(b.p);
	return fd;
}

static int child(unsigned seed, int argc, char **argv)
{
	char number[16];
	size_t len;
	moult_options o = MOULT_OPTIONS_INIT;
	o.flags = MOULT_NO_ROLLBACK;
	snprintf(number, sizeof number, "%d", hand(seed));
	setenv("MOULT_FD", number, 1);
	int adopted = moult_init(argc, argv, &o) == 0 && moult_generation() > 0;
	const unsigned char *p = (const unsigned char *)moult_load("blob", &len);
	unsigned sum = 0;
	for (size_t i = 0; p != NULL && i < len; i++)
		sum += p[i];
	while (moult_take("x") >= 0)
		sum++;
	moult_ready();
	moult_changed();
	return adopted ? 3 : sum == 0x7fffffff;
}

int main(int argc, char **argv)
{
	int adopted = 0;
	for (unsigned seed = 0; seed < 1000; seed++) {
		int status;
		pid_t pid = fork();
		if (pid == 0)
			_exit(child(seed, argc, argv));
		if (waitpid(pid, &status, 0) != pid || (status != 0 && status != 3 << 8)) {
			printf("seed %u: status %x\n", seed, (unsigned)status);
			return 1;
		}
		adopted += status != 0;
	}
	printf("adopted %d\n", adopted);
	return 0;
}
