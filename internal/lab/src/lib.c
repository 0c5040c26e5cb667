/* One library of the lab: cc -DNAME=a -DVERSION=1 -DPAGES=256. */
#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)
#define MEND PASTE(NAME, _mend)
#include "pages.h"

int PASTE(NAME, _pages)(void) { return PAGES; }
int PASTE(NAME, _call)(int i) { return table[i](); }
