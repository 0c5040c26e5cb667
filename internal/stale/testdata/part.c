/* part is a library with what a real one has: text, constants, addresses that
 * the loader enters and protects, and data. VERSION and EXTRA make it differ. */
#define TEXT2(x) #x
#define TEXT(x) TEXT2(x)

#ifdef EXTRA
const char *const more[64] = {"more", "and more", [63] = "last"};
int filler(int a) { return a * 31 + EXTRA; }
#endif

const char version[] = "part version " TEXT(VERSION) " patch level 0";
const char *const names[] = {version, version + 1, version + 2, "three", "four", "five"};
int value = 777;
int *where = &value;

int part(int i) { return value + VERSION + names[i % 6][0]; }
