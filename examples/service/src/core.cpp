#include "core.h"

namespace ledger {
namespace {

class FixedBook final : public Book {
	std::vector<Entry> entries_{
		{"coffee", -320},
		{"refund", 300},
#if VERSION >= 2
		{"rounding", -1}, // the cent that version 1 forgot
		{"rounding", 1},
#endif
		{"sugar", 15},
	};

public:
	const std::vector<Entry> &entries() const override { return entries_; }

	std::int64_t balance() const override
	{
		std::int64_t sum = 0;
		for (const Entry &e : entries_)
			sum += e.cents;
		return sum;
	}
};

} // namespace

const Book &book()
{
	static const FixedBook fixed;
	return fixed;
}

} // namespace ledger

extern "C" int ledgercore_version() { return VERSION; }
