/* Code that fills many pages: one function in each, reached by a table of
   pointers, as C++ reaches virtual functions. The loader writes the table's
   addresses into private pages when it maps the file; the code itself stays
   shared with the file. Functions 0x00 to 0x0f are there in any case, with
   -DPAGES=64 or 256 also the others. */
#ifndef PAGES
#define PAGES 16
#endif

#define ROW(M, h)                                                              \
	M(0x##h##0) M(0x##h##1) M(0x##h##2) M(0x##h##3)                        \
	M(0x##h##4) M(0x##h##5) M(0x##h##6) M(0x##h##7)                        \
	M(0x##h##8) M(0x##h##9) M(0x##h##a) M(0x##h##b)                        \
	M(0x##h##c) M(0x##h##d) M(0x##h##e) M(0x##h##f)

#if PAGES == 256
#define EACH(M)                                                                \
	ROW(M, 0) ROW(M, 1) ROW(M, 2) ROW(M, 3) ROW(M, 4) ROW(M, 5) ROW(M, 6)  \
	ROW(M, 7) ROW(M, 8) ROW(M, 9) ROW(M, a) ROW(M, b) ROW(M, c) ROW(M, d)  \
	ROW(M, e) ROW(M, f)
#elif PAGES == 64
#define EACH(M) ROW(M, 0) ROW(M, 1) ROW(M, 2) ROW(M, 3)
#elif PAGES == 16
#define EACH(M) ROW(M, 0)
#else
#error PAGES must be 16, 64 or 256
#endif

#define OWN_PAGE __attribute__((noinline, aligned(4096)))

/* What version 2 has and version 1 has not: a page of code in front, so that
   all that follows lies elsewhere, as after any real change. */
#if VERSION >= 2 && !defined SAME_LAYOUT
OWN_PAGE int MEND(int r) { return r + 1; }
#endif

#define DEFINE(i) OWN_PAGE static int page##i(void) { return VERSION * 1000 + i; }
EACH(DEFINE)

#define ENTRY(i) page##i,
static int (*const volatile table[PAGES])(void) = { EACH(ENTRY) };
