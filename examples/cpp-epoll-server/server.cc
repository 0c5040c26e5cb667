// An HTTP/1.1 server in C++11 that replaces itself: epoll(7), keep-alive,
// one thread. It answers every request with its
// version and the body that was sent, and counts requests across generations.
//
//   c++ -std=c++11 -I ../../include server.cc -o server && ./server --port 8080
//   c++ -std=c++11 -I ../../include -DVERSION='"2"' server.cc -o server.new && mv server.new server
//
// The second command replaces the running server: same process, same connections.
//
//   --port N   (8080; 127.0.0.1 alone)   --version TEXT   what it says it is
//   --delay MS before each answer        --state DIR      for the boot counter
#define MOULT_IMPLEMENTATION
#include "moult.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <strings.h>
#include <sys/epoll.h>

#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#ifndef VERSION
#define VERSION "1"
#endif

namespace {

using Clock = std::chrono::steady_clock;
const std::size_t max_request = 1 << 20;
volatile std::sig_atomic_t stop = 0;

int check(int result, const char *what)
{
	if (result < 0)
		throw std::system_error(errno, std::generic_category(), what);
	return result;
}

struct Connection {
	std::string in, out;
	Clock::time_point due; // when the answer in out may be sent
	bool last = false;
	bool idle() const { return in.empty() && out.empty(); }
};

class Server {
public:
	Server(int port, std::string version, int delay)
	    : version_(std::move(version)), delay_(delay), listen_name_("tcp!:" + std::to_string(port)),
	      // The names that package reexec uses: a server in Go can take over.
	      idle_name_("moult.http!" + listen_name_), epoll_(check(epoll_create1(EPOLL_CLOEXEC), "epoll"))
	{
		listener_ = moult_take(listen_name_.c_str());
		if (listener_ < 0)
			listener_ = listen_on(port);
		check(fcntl(listener_, F_SETFL, O_NONBLOCK), "listener");
		moult_keep(listen_name_.c_str(), listener_);
		watch(listener_, EPOLLIN);
		for (int fd; (fd = moult_take(idle_name_.c_str())) >= 0;)
			add(fd);
		std::size_t len = 0;
		const void *saved = moult_load("requests", &len);
		if (saved != nullptr && len != sizeof requests_)
			throw std::runtime_error("the saved state is not mine"); // before ready: back to the old code
		if (saved != nullptr)
			std::memcpy(&requests_, saved, sizeof requests_);
	}

	void turn(int wait_ms)
	{
		epoll_event events[256];
		int n = epoll_wait(epoll_, events, 256, wait_ms);
		for (int i = 0; i < n; i++) {
			if (events[i].data.fd == listener_)
				accept_all();
			else
				read_from(events[i].data.fd);
		}
		send_due();
	}

	// rest finishes what is under way and accepts nothing. False: it did not end in time.
	bool rest(std::chrono::milliseconds limit)
	{
		const Clock::time_point end = Clock::now() + limit;
		check(epoll_ctl(epoll_, EPOLL_CTL_DEL, listener_, nullptr), "epoll");
		resting_ = true;
		bool done;
		while (!(done = all_idle()) && Clock::now() < end) {
			turn(1);
			poll(nullptr, 0, 1);
		}
		resting_ = false;
		if (!done)
			watch(listener_, EPOLLIN);
		return done;
	}

	// upgrade executes the new code, and comes back only if that failed.
	void upgrade()
	{
		if (!rest(std::chrono::seconds(5)))
			return;
		for (std::map<int, Connection>::const_iterator c = connections_.begin(); c != connections_.end(); ++c)
			moult_keep(idle_name_.c_str(), c->first);
		moult_save("requests", &requests_, sizeof requests_);
		moult_exec();
		for (std::map<int, Connection>::const_iterator c = connections_.begin(); c != connections_.end(); ++c)
			moult_forget(c->first);
		watch(listener_, EPOLLIN);
	}

private:
	static int listen_on(int port)
	{
		int fd = check(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"), one = 1;
		sockaddr_in a = sockaddr_in();
		a.sin_family = AF_INET;
		a.sin_port = htons(static_cast<std::uint16_t>(port));
		a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		check(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one), "reuse");
		check(bind(fd, reinterpret_cast<sockaddr *>(&a), sizeof a), "bind");
		check(listen(fd, 4096), "listen");
		return fd;
	}

	void watch(int fd, std::uint32_t events)
	{
		epoll_event e = epoll_event();
		e.events = events;
		e.data.fd = fd;
		check(epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &e), "epoll");
	}

	void add(int fd)
	{
		int one = 1;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		fcntl(fd, F_SETFL, O_NONBLOCK);
		watch(fd, EPOLLIN);
		connections_[fd] = Connection();
	}

	void drop(int fd)
	{
		connections_.erase(fd);
		close(fd);
	}

	void accept_all()
	{
		int fd;
		while ((fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC)) >= 0)
			add(fd);
	}

	bool all_idle() const
	{
		for (std::map<int, Connection>::const_iterator c = connections_.begin(); c != connections_.end(); ++c)
			if (!c->second.idle())
				return false;
		return true;
	}

	void read_from(int fd)
	{
		char buf[16384];
		std::map<int, Connection>::iterator c = connections_.find(fd);
		if (c == connections_.end())
			return;
		if (resting_ && c->second.in.empty()) // its next request waits for the new code, in the kernel
			return;
		ssize_t n = recv(fd, buf, sizeof buf, 0);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			drop(fd);
			return;
		}
		c->second.in.append(buf, static_cast<std::size_t>(n));
		while (answer(c->second))
			;
		if (c->second.in.size() > max_request)
			drop(fd);
	}

	static std::string header(const std::string &head, const char *name)
	{
		const std::string want = std::string("\n") + name + ":";
		for (std::size_t i = 0; i + want.size() < head.size(); i++)
			if (strncasecmp(head.c_str() + i, want.c_str(), want.size()) == 0) {
				std::size_t from = head.find_first_not_of(' ', i + want.size()), to = head.find('\r', from);
				return head.substr(from, to - from);
			}
		return std::string();
	}

	// answer takes one whole request out of the buffer.
	bool answer(Connection &c)
	{
		const std::size_t end = c.in.find("\r\n\r\n");
		if (end == std::string::npos || c.last)
			return false;
		const std::string head = c.in.substr(0, end + 2), length = header(head, "Content-Length");
		const std::size_t body = length.empty() ? 0 : std::strtoul(length.c_str(), nullptr, 10);
		if (body > max_request || c.in.size() < end + 4 + body)
			return false;
		c.last = strcasecmp(header(head, "Connection").c_str(), "close") == 0;
		const std::string text = version_ + " " + c.in.substr(end + 4, body);
		c.out += "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: " + std::to_string(text.size()) +
		         "\r\nX-Version: " + version_ + "\r\nX-Pid: " + std::to_string(getpid()) +
		         "\r\nX-Generation: " + std::to_string(moult_generation()) + "\r\nX-Requests: " + std::to_string(++requests_) +
		         (c.last ? "\r\nConnection: close\r\n\r\n" : "\r\n\r\n") + text;
		c.due = Clock::now() + std::chrono::milliseconds(delay_);
		c.in.erase(0, end + 4 + body);
		return true;
	}

	void send_due()
	{
		const Clock::time_point now = Clock::now();
		std::vector<int> gone;
		for (std::map<int, Connection>::iterator i = connections_.begin(); i != connections_.end(); ++i) {
			Connection &c = i->second;
			if (c.out.empty() || c.due > now)
				continue;
			ssize_t n = send(i->first, c.out.data(), c.out.size(), MSG_NOSIGNAL);
			if (n < 0 && errno != EAGAIN && errno != EINTR) {
				gone.push_back(i->first);
				continue;
			}
			if (n > 0)
				c.out.erase(0, static_cast<std::size_t>(n));
			if (c.out.empty() && c.last)
				gone.push_back(i->first);
		}
		for (std::size_t i = 0; i < gone.size(); i++)
			drop(gone[i]);
	}

	std::string version_;
	int delay_;
	std::string listen_name_, idle_name_;
	int epoll_, listener_ = -1;
	bool resting_ = false;
	std::uint64_t requests_ = 0;
	std::map<int, Connection> connections_;

public:
	// pending says whether answers wait for their delay.
	bool pending() const { return !all_idle(); }
};

void say(int level, const char *text, void *) { std::fprintf(stderr, "server[%ld] %d: %s\n", static_cast<long>(getpid()), level, text); }

std::string option(int argc, char **argv, const std::string &longer, const std::string &shorter, const std::string &otherwise)
{
	for (int i = 1; i + 1 < argc; i++)
		if (argv[i] == longer || argv[i] == shorter)
			return argv[i + 1];
	return otherwise;
}

} // namespace

int main(int argc, char **argv)
{
	moult_options o = MOULT_OPTIONS_INIT;
	const std::string state = option(argc, argv, "--state", "-s", "");
	const std::string version = option(argc, argv, "--version", "-v", VERSION);
	o.version = version.c_str();
	o.settle_ms = 100;
	o.log = say;
	o.state_dir = state.c_str();
	if (moult_init(argc, argv, &o) < 0)
		std::fprintf(stderr, "server: %s\n", moult_error());
	std::signal(SIGTERM, [](int) { stop = 1; });
	try {
		Server server(std::stoi(option(argc, argv, "--port", "-p", "8080")), version,
		              std::stoi(option(argc, argv, "--delay", "-d", "0")));
#ifdef BROKEN
		BROKEN; // the tests put a fault in here
#endif
		moult_ready();
		std::fprintf(stderr, "server[%ld]: version %s, generation %d\n", static_cast<long>(getpid()), version.c_str(),
		             moult_generation());
		int what = 0;
		while (!stop) {
			server.turn(server.pending() ? 1 : (what & MOULT_UNSETTLED) != 0 ? 5 : 50);
			what = moult_changed();
			if ((what & MOULT_NOW) != 0)
				server.upgrade();
		}
		moult_stopping();
		server.rest(std::chrono::seconds(5));
	} catch (const std::exception &e) {
		std::fprintf(stderr, "server: %s\n", e.what());
		return 1; // before moult_ready: back to the code that ran before
	}
	return 0;
}
