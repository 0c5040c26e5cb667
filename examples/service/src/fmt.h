// libledgerfmt: amounts of money as people write them.
#pragma once
#include <cstdint>
#include <string>

namespace ledger {

// money writes cents with two decimals: 1234 is 12.34.
std::string money(std::int64_t cents);

} // namespace ledger

extern "C" int ledgerfmt_version();
