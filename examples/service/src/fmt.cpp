#include "fmt.h"

#include <cstdio>
#include <cstdlib>

namespace ledger {

std::string money(std::int64_t cents)
{
	char text[32];
#if VERSION >= 2
	const long long size = std::llabs(cents);
	std::snprintf(text, sizeof text, "%s%lld.%02lld", cents < 0 ? "-" : "", size / 100, size % 100);
#else
	// The bug that version 2 mends: 5 cents of debt become "0.-5".
	std::snprintf(text, sizeof text, "%lld.%02lld", static_cast<long long>(cents / 100), static_cast<long long>(cents % 100));
#endif
	return text;
}

} // namespace ledger

extern "C" int ledgerfmt_version() { return VERSION; }
