// A service that does nothing but be one version. Version 9 does not start.
#include <unistd.h>

volatile const char version[] = "MOULT-VERSION:\x01";

int main(void) {
	if (version[sizeof version - 2] == 9)
		return 1;
	for (;;)
		pause();
}
