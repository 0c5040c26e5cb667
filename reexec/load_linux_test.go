package reexec_test

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// load sends requests until it is stopped, over kept and over new connections,
// without ever trying one again.
type load struct {
	wg   sync.WaitGroup
	stop chan struct{}
	mu   sync.Mutex
	sent int
	lost []error
}

func (s *server) load() *load {
	l := &load{stop: make(chan struct{})}
	for n := range 4 {
		l.wg.Go(func() {
			var c net.Conn
			for i := 0; ; i++ {
				select {
				case <-l.stop:
					if c != nil {
						c.Close()
					}
					return
				case <-time.After(time.Millisecond):
				}
				var err error
				var last bool
				if c == nil {
					if c, err = net.Dial("tcp", s.addr); err == nil {
						err = c.SetDeadline(time.Now().Add(limit))
					}
				}
				if err == nil {
					last, err = roundTrip(c, fmt.Sprintf("%d-%d", n, i))
				}
				l.mu.Lock()
				l.sent++
				if err != nil {
					l.lost = append(l.lost, err)
				}
				l.mu.Unlock()
				if c != nil && (err != nil || last || n%2 == 0) {
					c.Close()
					c = nil
				}
			}
		})
	}
	return l
}

// roundTrip sends a request, and says whether the server closes the connection.
func roundTrip(c net.Conn, body string) (last bool, err error) {
	if _, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
		return false, err
	}
	var got []byte
	buf := make([]byte, 4096)
	for !strings.HasSuffix(string(got), " "+body) {
		n, err := c.Read(buf)
		if err != nil {
			return false, fmt.Errorf("after %q: %w", got, err)
		}
		got = append(got, buf[:n]...)
	}
	return strings.Contains(string(got), "\r\nConnection: close\r\n"), nil
}

// end stops the load and wants nothing lost.
func (l *load) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.wg.Wait()
	if len(l.lost) > 0 || l.sent == 0 {
		t.Errorf("%d of %d requests lost, want none of some: %v", len(l.lost), l.sent, l.lost[:min(len(l.lost), 5)])
	}
}
