/* One library of the set: cc -DNAME=audio_version -DVERSION=1. */
int NAME(void) { return VERSION; }
