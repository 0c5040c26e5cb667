/* mapfloor asks the kernel for every part of every process's memory that holds
 * code of a file (PROCMAP_QUERY, Linux 6.11), and does nothing with the answers:
 * the least that a search for stale processes can cost. It prints how many there
 * are. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct query {
	uint64_t size, flags, addr, start, end, vma_flags, page, offset, inode;
	uint32_t major, minor, name_size, id_size;
	uint64_t name_addr, id_addr;
};

#define QUERY _IOWR('f', 17, struct query)

int main(void) {
	long count = 0;
	DIR *proc = opendir("/proc");
	for (struct dirent *e; proc && (e = readdir(proc));) {
		char path[64];
		if (e->d_name[0] < '1' || e->d_name[0] > '9') continue;
		snprintf(path, sizeof path, "/proc/%s/maps", e->d_name);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0) continue;
		struct query q;
		for (uint64_t at = 0;; at = q.end) {
			memset(&q, 0, sizeof q);
			q.size = sizeof q;
			q.flags = 0x04 | 0x10 | 0x20; /* code, at or above, of a file */
			q.addr = at;
			if (ioctl(fd, QUERY, &q)) {
				if (errno == ENOTTY) return 3;
				break;
			}
			count++;
		}
		close(fd);
	}
	printf("%ld\n", count);
	return 0;
}
