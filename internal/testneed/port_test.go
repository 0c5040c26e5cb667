//go:build unix

package testneed

import (
	"fmt"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPort: who is meant to have the port gets it, again and again, and is reached
// there; who takes any port does not.
func TestPort(t *testing.T) {
	port := Port(t)
	for range 3 {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		ln.Close()
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	// What the kernel asks itself for each port that it could give.
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != unix.EADDRINUSE {
		t.Errorf("without SO_REUSEADDR: %v, want %v", err, unix.EADDRINUSE)
	}
}
