// ledger PORT: a small service on 127.0.0.1 made of a program, two libraries
// and a plugin. Port 0 takes a free one; the port is printed. SIGTERM ends it.
//
//   /version   the version of each part; rate=- while the plugin is not loaded
//   /balance   the balance in euro
//   /dollars   the same in dollars, at the plugin's rate
#include <dlfcn.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <string>

#include "core.h"
#include "fmt.h"
#include "http.h"

namespace {

// Plugin is libledgerrate.so, loaded when it is first used. The loader looks
// for the bare name along the program's run path, $ORIGIN/../lib.
class Plugin {
	std::mutex mutex_;
	void *handle_ = nullptr;
	std::string error_;

	template <typename F> F *function(const char *name) { return reinterpret_cast<F *>(dlsym(handle_, name)); }

public:
	// rate loads the plugin if need be; false says that error() tells why not.
	bool rate(std::int64_t &cents)
	{
		const std::lock_guard<std::mutex> lock(mutex_);
		if (!handle_ && !(handle_ = dlopen("libledgerrate.so", RTLD_NOW))) {
			error_ = dlerror();
			return false;
		}
		auto *rate = function<std::int64_t()>("ledgerrate_rate");
		if (!rate) {
			error_ = "libledgerrate.so has no ledgerrate_rate";
			return false;
		}
		cents = rate();
		return true;
	}

	std::string version()
	{
		const std::lock_guard<std::mutex> lock(mutex_);
		auto *number = handle_ ? function<int()>("ledgerrate_version") : nullptr;
		return number ? std::to_string(number()) : "-";
	}

	std::string error()
	{
		const std::lock_guard<std::mutex> lock(mutex_);
		return error_;
	}
};

http::Reply answer(const std::string &path, Plugin &plugin)
{
	const std::int64_t balance = ledger::book().balance();
	if (path == "/version")
		return {200, "exe=" + std::to_string(VERSION) + " core=" + std::to_string(ledgercore_version()) +
			" fmt=" + std::to_string(ledgerfmt_version()) + " rate=" + plugin.version() + "\n"};
	if (path == "/balance")
		return {200, ledger::money(balance) + " EUR\n"};
	if (path == "/dollars") {
		std::int64_t rate;
		if (!plugin.rate(rate))
			return {503, plugin.error() + "\n"};
		return {200, ledger::money(balance * rate / 100) + " USD at " + ledger::money(rate) + "\n"};
	}
	return {404, "there are /version, /balance and /dollars\n"};
}

} // namespace

int main(int argc, char **argv)
{
	char *end = nullptr;
	const unsigned long wanted = argc == 2 ? std::strtoul(argv[1], &end, 10) : 65536;
	if (!end || *end || end == argv[1] || wanted > 65535) {
		std::fprintf(stderr, "usage: ledger PORT\n");
		return 2;
	}

	// Blocked before any thread starts, so that only the descriptor gets them.
	sigset_t stop;
	sigemptyset(&stop);
	sigaddset(&stop, SIGTERM);
	sigaddset(&stop, SIGINT);
	pthread_sigmask(SIG_BLOCK, &stop, nullptr);
	const int stop_fd = signalfd(-1, &stop, SFD_CLOEXEC);

	try {
		auto port = static_cast<unsigned short>(wanted);
		const int listener = http::listen_on(port);
		std::printf("ledger %d listens on 127.0.0.1:%d\n", VERSION, port);
		std::fflush(stdout);
		Plugin plugin;
		http::serve(listener, stop_fd, [&](const std::string &path) { return answer(path, plugin); });
	} catch (const std::exception &e) {
		std::fprintf(stderr, "ledger: %s\n", e.what());
		return 1;
	}
	return 0;
}
