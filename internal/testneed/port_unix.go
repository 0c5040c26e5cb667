//go:build unix

package testneed

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Port returns a TCP port of 127.0.0.1 for a program that the test starts, and
// that has to be told where to listen. Until the test ends the kernel gives it to
// nobody else: a socket is bound to it, which does not listen, so that a program
// that sets SO_REUSEADDR, as net.Listen does, can have it.
func Port(t testing.TB) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.CloseOnExec(fd)
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return at.(*unix.SockaddrInet4).Port
}
