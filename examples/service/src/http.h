// An HTTP/1.1 server, as small as it gets: GET only, no bodies, threads.
#pragma once
#include <functional>
#include <string>

namespace http {

struct Reply {
	int status;
	std::string body;
};

using Handler = std::function<Reply(const std::string &path)>;

// listen_on binds 127.0.0.1 and returns the socket; port 0 is set to the one
// that the kernel chose. It throws std::system_error.
int listen_on(unsigned short &port);

// serve answers with a few threads until stop_fd can be read, finishes what
// it has begun, and returns.
void serve(int listener, int stop_fd, const Handler &handler);

} // namespace http
