#include "http.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

namespace http {
namespace {

constexpr int threads = 4;
constexpr std::size_t longest_request = 8192;

std::string_view reason(int status)
{
	switch (status) {
	case 200: return "OK";
	case 400: return "Bad Request";
	case 404: return "Not Found";
	case 405: return "Method Not Allowed";
	case 503: return "Service Unavailable";
	}
	return "Unknown";
}

bool send_all(int fd, std::string_view data)
{
	while (!data.empty()) {
		const ssize_t n = send(fd, data.data(), data.size(), MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		data.remove_prefix(static_cast<std::size_t>(n));
	}
	return true;
}

// readable waits for fd, and gives up when the service is to stop.
bool readable(int fd, int stop_fd)
{
	pollfd fds[] = {{fd, POLLIN, 0}, {stop_fd, POLLIN, 0}};
	while (poll(fds, 2, -1) < 0)
		if (errno != EINTR)
			return false;
	return fds[0].revents != 0;
}

bool stopping(int stop_fd)
{
	pollfd stop{stop_fd, POLLIN, 0};
	return poll(&stop, 1, 0) > 0;
}

Reply answer(std::string_view head, const Handler &handler)
{
	const std::string_view line = head.substr(0, head.find("\r\n"));
	const std::size_t first = line.find(' '), second = line.rfind(' ');
	if (first == std::string_view::npos || second <= first || line.substr(second + 1, 5) != "HTTP/")
		return {400, "this is no HTTP request\n"};
	if (line.substr(0, first) != "GET")
		return {405, "only GET\n"};
	return handler(std::string(line.substr(first + 1, second - first - 1)));
}

// converse answers the requests of one connection, one after the other.
void converse(int fd, int stop_fd, const Handler &handler)
{
	std::string buffer;
	for (;;) {
		std::size_t end;
		while ((end = buffer.find("\r\n\r\n")) == std::string::npos) {
			char chunk[2048];
			if (buffer.size() > longest_request || !readable(fd, stop_fd))
				return;
			const ssize_t n = recv(fd, chunk, sizeof chunk, 0);
			if (n <= 0)
				return;
			buffer.append(chunk, static_cast<std::size_t>(n));
		}
		const std::string head = buffer.substr(0, end + 2);
		buffer.erase(0, end + 4);
		const Reply reply = answer(head, handler);
		const bool last = reply.status == 400 || reply.status == 405 || stopping(stop_fd) ||
			head.find("\r\nConnection: close\r\n") != std::string::npos;
		std::string text = "HTTP/1.1 " + std::to_string(reply.status) + " ";
		text += reason(reply.status);
		text += "\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: " + std::to_string(reply.body.size());
		text += last ? "\r\nConnection: close\r\n\r\n" : "\r\n\r\n";
		if (!send_all(fd, text + reply.body) || last)
			return;
	}
}

} // namespace

int listen_on(unsigned short &port)
{
	const auto failed = [](const char *what) { return std::system_error(errno, std::generic_category(), what); };
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		throw failed("socket");
	const int yes = 1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
	sockaddr_in address{};
	address.sin_family = AF_INET;
	address.sin_port = htons(port);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	socklen_t size = sizeof address;
	auto *generic = reinterpret_cast<sockaddr *>(&address);
	if (bind(fd, generic, size) < 0)
		throw failed("bind");
	if (listen(fd, 64) < 0)
		throw failed("listen");
	if (getsockname(fd, generic, &size) < 0)
		throw failed("getsockname");
	port = ntohs(address.sin_port);
	return fd;
}

void serve(int listener, int stop_fd, const Handler &handler)
{
	std::vector<std::thread> workers;
	for (int i = 0; i < threads; i++)
		workers.emplace_back([=, &handler] {
			// Several may wake for one connection; the listener does not
			// block, so all but one go back to waiting.
			while (readable(listener, stop_fd) && !stopping(stop_fd)) {
				const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
				if (fd < 0)
					continue;
				converse(fd, stop_fd, handler);
				close(fd);
			}
		});
	for (std::thread &w : workers)
		w.join();
	close(listener);
}

} // namespace http
