/* The program of the set ends with 0 if it and its three libraries are of one
   release, and with 3 if they are mixed. */
int liba_version(void), libb_version(void), libc_version(void);

int main(void)
{
	return liba_version() == VERSION && libb_version() == VERSION
	       && libc_version() == VERSION ? 0 : 3;
}
