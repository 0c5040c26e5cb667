// libledgerrate: the plugin. The service loads it when somebody asks for the
// first time, which may be long after it was started.
#include <cstdint>

extern "C" int ledgerrate_version() { return VERSION; }

// What a euro costs, in cents of a dollar.
extern "C" std::int64_t ledgerrate_rate() { return VERSION >= 2 ? 109 : 108; }
