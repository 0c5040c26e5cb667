// A shared library whose version the test writes into the compiled file: the
// byte behind the mark.
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

static const volatile unsigned char mark[] = "MOULT-VERSION:\001";

int JOIN(NAME, _version)(void) { return mark[sizeof mark - 2]; }
