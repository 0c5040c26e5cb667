package reexec_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestStream: a response that is under way, with all of its request read and a
// part of it written, is finished by the code that began it.
func TestStream(t *testing.T) {
	t.Parallel()
	s := startServer(t, config{})
	c := s.talk(t)
	io.WriteString(c, "POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nend")
	c.read("1\r\n1\r\n") // chunks of one byte, the first two at least
	program(t, s.exe, trailer{Version: 2})
	s.wait("event draining ")
	c.read(" end\r\n0\r\n\r\n")
	s.waitVersion(2)
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
	c.read("2 x")
}

// TestPipelined: a request that comes while the one before it is answered is
// answered, too.
func TestPipelined(t *testing.T) {
	t.Parallel()
	s := startServer(t, config{Work: 200 * time.Millisecond})
	c := s.talk(t)
	io.WriteString(c, strings.Repeat("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", 2))
	time.Sleep(20 * time.Millisecond)
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\ny")
	s.cmd.Process.Signal(unix.SIGUSR2)
	c.read("1 x")
	c.read("1 x")
	c.read("1 y")
	s.waitGeneration(1)
}

// TestPipelinedMany: the server has read many requests at once, and becomes idle
// after each for a moment.
func TestPipelinedMany(t *testing.T) {
	t.Parallel()
	s := startServer(t, config{Work: 2 * time.Millisecond})
	const many = 60 // which the server reads at once
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			c, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(limit))
			io.WriteString(c, strings.Repeat("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", many))
			var got []byte
			buf := make([]byte, 4096)
			for strings.Count(string(got), "\r\n\r\n1 x") < many {
				n, err := c.Read(buf)
				got = append(got, buf[:n]...)
				if err != nil {
					t.Errorf("%d of %d answers: %v", strings.Count(string(got), "\r\n\r\n1 x"), many, err)
					return
				}
			}
		})
	}
	s.until("the requests to be there", func() bool { return len(openSockets(s.cmd.Process.Pid)) > 8 })
	s.cmd.Process.Signal(unix.SIGUSR2)
	clients.Wait()
	s.waitGeneration(1)
}

// TestPipelinedBegin: the first bytes of a request come with the end of the one
// before. The old code has them, and answers when the rest comes; if that are too
// few bytes for the server to look at, and none come, they do not hold it up.
func TestPipelinedBegin(t *testing.T) {
	t.Parallel()
	s := startServer(t, config{})
	for _, n := range []int{1, 3, len("POST / HTTP/1.1\r\n"), len("POST / HTTP/1.1\r\nHos")} {
		s.until("a machine that is fast enough", func() bool { return s.beginAndEnd(t, n) })
		if n > 3 {
			continue
		}
		generation := s.status().Generation
		c := s.talk(t)
		io.WriteString(c, aRequest+aRequest[:n])
		c.read("1 x")
		s.cmd.Process.Signal(unix.SIGUSR2)
		s.waitGeneration(generation + 1)
	}
}

const aRequest = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"

// beginAndEnd has an upgrade come after the first n bytes of a second request, and
// before the rest, and wants it answered. It says false if it was so slow that the
// server may have given the request up.
func (s *server) beginAndEnd(t *testing.T, n int) (fast bool) {
	t.Helper()
	generation := s.status().Generation
	c := s.talk(t)
	began := time.Now()
	io.WriteString(c, aRequest+aRequest[:n])
	c.read("1 x")
	drains := len(s.lines("event draining "))
	s.cmd.Process.Signal(unix.SIGUSR2)
	s.waitN("event draining ", drains+1)
	io.WriteString(c, aRequest[n:])
	fast = time.Since(began) < time.Second/2
	if err := c.wait("1 x"); err != nil && fast {
		t.Fatal(err)
	}
	s.waitGeneration(generation + 1)
	return fast
}

// TestTLS: TLS and HTTP/2, which cannot be carried over. Clients that are at work are told to leave before the program is
// replaced, by "Connection: close" and by GOAWAY.
func TestTLS(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		scheme, protocol string
	}{{"https", "HTTP/1.1"}, {"https", "HTTP/2.0"}, {"http", "HTTP/2.0"}} {
		t.Run(test.scheme+" "+test.protocol, func(t *testing.T) {
			t.Parallel()
			secure := test.scheme == "https"
			s := startServer(t, config{TLS: secure, H2C: !secure, Work: time.Millisecond})
			var sent atomic.Int64
			var newest atomic.Int64
			stop := make(chan struct{})
			var clients sync.WaitGroup
			for range 4 {
				clients.Go(func() {
					protocols := new(http.Protocols)
					protocols.SetHTTP1(test.protocol == "HTTP/1.1")
					protocols.SetHTTP2(secure && test.protocol == "HTTP/2.0")
					protocols.SetUnencryptedHTTP2(!secure)
					transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, Protocols: protocols}
					defer transport.CloseIdleConnections()
					client := &http.Client{Transport: transport, Timeout: limit}
					var before, begin time.Time // of the last request, and of this
					for i := 0; ; i++ {
						select {
						case <-stop:
							return
						case <-time.After(5 * time.Millisecond):
						}
						before, begin = begin, time.Now()
						// A body that cannot be read twice: no second try.
						r, err := client.Post(test.scheme+"://"+s.addr+"/", "text/plain", io.MultiReader(strings.NewReader("x")))
						if err != nil && time.Since(before) > time.Second/3 {
							continue // on a slow machine it was idle, for the server
						}
						if err != nil {
							t.Errorf("request %d: %v", i, err)
							return
						}
						text, err := io.ReadAll(r.Body)
						r.Body.Close()
						var version int64
						var body string
						fmt.Sscan(string(text), &version, &body)
						if err != nil || body != "x" || r.Proto != test.protocol {
							t.Errorf("request %d: %q by %s, %v; want x by %s", i, text, r.Proto, err, test.protocol)
							return
						}
						newest.Store(max(newest.Load(), version))
						sent.Add(1)
					}
				})
			}
			for version := int64(2); version <= 4; version++ {
				program(t, s.exe, trailer{Version: int(version)})
				s.until("the next version", func() bool { return t.Failed() || newest.Load() >= version })
			}
			close(stop)
			clients.Wait()
			if sent.Load() == 0 {
				t.Error("nothing was sent")
			}
		})
	}
}

// TestIdleHTTP2: a connection of HTTP/2 without TLS that is idle ends with the
// upgrade, and does not hold it up.
func TestIdleHTTP2(t *testing.T) {
	t.Parallel()
	s := startServer(t, config{H2C: true})
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: limit}
	r, err := client.Post("http://"+s.addr+"/", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, r.Body)
	r.Body.Close()
	s.cmd.Process.Signal(unix.SIGUSR2)
	s.waitGeneration(1)
	if deferred := s.lines("event deferred "); len(deferred) > 0 {
		t.Errorf("it says %q, want no delay", deferred)
	}
}
