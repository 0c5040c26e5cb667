package include_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// answer is what a server said, as far as the tests look at it.
type answer struct {
	version, body   string
	pid, generation int
	last            bool
}

// conn is a raw HTTP/1.1 connection: no retry hides a lost request.
type conn struct {
	net.Conn
	r *bufio.Reader
}

func dial(port int) (*conn, error) {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), limit)
	if err != nil {
		return nil, err
	}
	return &conn{c, bufio.NewReader(c)}, nil
}

func (c *conn) post(body string) (answer, error) {
	var a answer
	c.SetDeadline(time.Now().Add(limit))
	if _, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
		return a, err
	}
	return c.read()
}

func (c *conn) read() (answer, error) {
	var a answer
	tp := textproto.NewReader(c.r)
	line, err := tp.ReadLine()
	if err != nil {
		return a, err
	}
	if !strings.HasPrefix(line, "HTTP/1.1 200") {
		return a, fmt.Errorf("status %q", line)
	}
	head, err := tp.ReadMIMEHeader()
	if err != nil {
		return a, err
	}
	n, err := strconv.Atoi(head.Get("Content-Length"))
	if err != nil {
		return a, err
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c.r, body); err != nil {
		return a, err
	}
	a.version, a.body, _ = strings.Cut(string(body), " ")
	a.pid, _ = strconv.Atoi(head.Get("X-Pid"))
	a.generation, _ = strconv.Atoi(head.Get("X-Generation"))
	a.last = head.Get("Connection") == "close"
	return a, nil
}

func get(port int) (answer, error) {
	c, err := dial(port)
	if err != nil {
		return answer{}, err
	}
	defer c.Close()
	return c.post("")
}

// load sends POSTs until it is stopped, from workers with a connection that lives
// for ever, and from some with one for each request.
type load struct {
	stop       chan struct{}
	wg         sync.WaitGroup
	ok, lost   atomic.Int64
	pids, vers sync.Map
	why        atomic.Value
}

func startLoad(t testing.TB, port, keepAlive, each int) *load {
	t.Helper()
	l := &load{stop: make(chan struct{})}
	for i := 0; i < keepAlive+each; i++ {
		l.wg.Add(1)
		go l.work(port, i, i < keepAlive)
	}
	t.Cleanup(l.end)
	return l
}

func (l *load) work(port, id int, keep bool) {
	defer l.wg.Done()
	var c *conn
	for n := 0; ; n++ {
		select {
		case <-l.stop:
			if c != nil {
				c.Close()
			}
			return
		case <-time.After(2 * time.Millisecond):
		}
		var err error
		if c == nil {
			if c, err = dial(port); err != nil {
				l.lose(err)
				c = nil
				continue
			}
		}
		want := fmt.Sprintf("%d/%d", id, n)
		a, err := c.post(want)
		switch {
		case err != nil:
			l.lose(err)
		case a.body != want:
			l.lose(fmt.Errorf("body %q, want %q", a.body, want))
		default:
			l.ok.Add(1)
			l.pids.Store(a.pid, true)
			l.vers.Store(a.version, true)
		}
		if err != nil || !keep || a.last {
			c.Close()
			c = nil
		}
	}
}

func (l *load) lose(err error) {
	l.lost.Add(1)
	l.why.Store(err.Error())
}

func (l *load) end() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.wg.Wait()
}

// none ends the load and wants nothing lost.
func (l *load) none(t testing.TB) {
	t.Helper()
	l.end()
	if l.lost.Load() != 0 || l.ok.Load() == 0 {
		t.Errorf("%d requests lost of %d, want 0; the last: %v", l.lost.Load(), l.lost.Load()+l.ok.Load(), l.why.Load())
	}
}

func itoa(n int) string { return strconv.Itoa(n) }
