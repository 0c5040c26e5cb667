// A program with three libraries and nothing else, not even the C library, so
// that it starts and ends as fast as can be: 0 if all is of one version, 99 if
// not.
int a_version(void);
int b_version(void);
int c_version(void);

static const volatile unsigned char mark[] = "MOULT-VERSION:\001";

void _start(void) {
	int v = mark[sizeof mark - 2];
	long status = v == a_version() && v == b_version() && v == c_version() ? 0 : 99;
#if defined(__x86_64__)
	__asm__ volatile("syscall" : : "a"(231), "D"(status) : "rcx", "r11", "memory");
#elif defined(__aarch64__)
	register long number __asm__("x8") = 94;
	register long first __asm__("x0") = status;
	__asm__ volatile("svc 0" : : "r"(number), "r"(first) : "memory");
#else
#error "exit_group(2) of this machine is missing here"
#endif
	__builtin_unreachable();
}
