package reexec_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"moult.example/internal/testneed"
)

// TestPackets: datagrams wait in the socket while the program is replaced.
func TestPackets(t *testing.T) {
	t.Parallel()
	s := startServer(t, config{Packets: true, Addr: "127.0.0.1:" + itoa(testneed.Port(t))})
	c, err := net.Dial("udp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(limit))
	buf := make([]byte, 100)
	next := 2
	for i := 0; next < 6; i++ {
		if i%50 == 25 {
			program(t, s.exe, trailer{Version: next})
		}
		fmt.Fprintf(c, "%d", i)
		n, err := c.Read(buf)
		if err != nil {
			t.Fatalf("datagram %d: %v", i, err)
		}
		version, echo, _ := strings.Cut(string(buf[:n]), " ")
		if echo != itoa(i) {
			t.Fatalf("datagram %d: answer %q", i, buf[:n])
		}
		if version == itoa(next) {
			next++
			i -= i % 50
		}
		if i%50 == 49 {
			i -= 10 // until the new version answers
		}
		time.Sleep(time.Millisecond)
	}
}

// TestIdleConnection: one connection sees all versions; a request that is half
// there when the upgrade begins is answered by the old code.
func TestIdleConnection(t *testing.T) {
	t.Parallel()
	s := startServer(t, config{})
	idle, half := s.talk(t), s.talk(t)
	ask := func(c *talk, want string) {
		t.Helper()
		c.SetDeadline(time.Now().Add(limit))
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
		c.read(want + " x")
	}
	ask(idle, "1")
	io.WriteString(half, "POST / HTTP/1.1\r\nHost: x\r\nContent-Le")
	s.until("the half request to be read", func() bool { return unread(t, half.Conn) })
	program(t, s.exe, trailer{Version: 2})
	s.wait("event draining ")
	io.WriteString(half, "ngth: 3\r\n\r\nabc")
	half.read("1 abc")
	s.waitVersion(2)
	ask(idle, "2")
	ask(half, "2")
	program(t, s.exe, trailer{Version: 3, Fails: "state"})
	s.wait("event rolled-back ")
	s.waitVersion(2)
	ask(idle, "2")
	ask(half, "2")
}

// unread says that the other side has read all that we have sent: a request
// that was not begun is not the old code's.
func unread(t *testing.T, c net.Conn) bool {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info *unix.TCPInfo
	raw.Control(func(fd uintptr) { info, _ = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	return info != nil && info.Unacked == 0 && info.Bytes_acked > 0
}

// talk is a connection on which answers are read one after the other.
type talk struct {
	net.Conn
	t    *testing.T
	rest string // what was read, and not wanted yet
}

func (s *server) talk(t *testing.T) *talk {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(limit))
	return &talk{Conn: c, t: t}
}

// read reads until a text has come, and no further.
func (c *talk) read(want string) {
	c.t.Helper()
	if err := c.wait(want); err != nil {
		c.t.Fatal(err)
	}
}

// wait is read, for what need not come.
func (c *talk) wait(want string) error {
	buf := make([]byte, 1000)
	for !strings.Contains(c.rest, want) {
		n, err := c.Read(buf)
		if err != nil {
			return fmt.Errorf("read %q: %w, want %q", c.rest, err, want)
		}
		c.rest += string(buf[:n])
	}
	_, c.rest, _ = strings.Cut(c.rest, want)
	return nil
}
