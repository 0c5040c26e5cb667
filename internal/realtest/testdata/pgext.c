// An extension of PostgreSQL with one function, which runs through many pages
// of code and returns VERSION. FIRST shifts the code, so that two versions have
// nothing at the same place; PAGES says how much of it there is.
#include "postgres.h"
#include "fmgr.h"

PG_MODULE_MAGIC;
PG_FUNCTION_INFO_V1(moult_version);

#define PAGE __attribute__((noinline, aligned(4096)))
#define CODE(n) PAGE static int page##n(int x) { return x < 0 ? page_zero(x) : x + n; }

PAGE static int page_zero(int x) { return -x; }

#if FIRST
CODE(70) CODE(71) CODE(72)
#endif
CODE(1) CODE(2) CODE(3) CODE(4) CODE(5) CODE(6) CODE(7) CODE(8)
#if PAGES > 8
CODE(11) CODE(12) CODE(13) CODE(14) CODE(15) CODE(16) CODE(17) CODE(18)
CODE(21) CODE(22) CODE(23) CODE(24) CODE(25) CODE(26) CODE(27) CODE(28)
CODE(31) CODE(32) CODE(33) CODE(34) CODE(35) CODE(36) CODE(37) CODE(38)
CODE(41) CODE(42) CODE(43) CODE(44) CODE(45) CODE(46) CODE(47) CODE(48)
#endif

static int (*volatile pages[])(int) = {
#if FIRST
	page70, page71, page72,
#endif
	page1, page2, page3, page4, page5, page6, page7, page8,
#if PAGES > 8
	page11, page12, page13, page14, page15, page16, page17, page18,
	page21, page22, page23, page24, page25, page26, page27, page28,
	page31, page32, page33, page34, page35, page36, page37, page38,
	page41, page42, page43, page44, page45, page46, page47, page48,
#endif
};

Datum moult_version(PG_FUNCTION_ARGS) {
	int sum = 0;
	for (int i = 0; i < lengthof(pages); i++)
		sum = pages[i](sum);
	PG_RETURN_INT32(sum > 0 ? VERSION : -1);
}
