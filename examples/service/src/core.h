// libledgercore: the entries of a ledger and their sum, in cents.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace ledger {

struct Entry {
	std::string what;
	std::int64_t cents;
};

class Book {
public:
	virtual ~Book() = default;
	virtual const std::vector<Entry> &entries() const = 0;
	virtual std::int64_t balance() const = 0;
};

// The ledger of the service; it never changes.
const Book &book();

} // namespace ledger

extern "C" int ledgercore_version();
