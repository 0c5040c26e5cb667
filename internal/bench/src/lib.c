/* One library of the set: cc -DNAME=liba_version -DVERSION=1. */
int NAME(void) { return VERSION; }
