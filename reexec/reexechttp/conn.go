package reexechttp

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"
)

// inner is what the connections of TCP and Unix sockets have in common.
type inner interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

// conn is a connection that can be held while it is idle. The server must not
// notice: its reads wait, its deadlines are kept for later.
type conn struct {
	inner
	l *listener

	mu      sync.Mutex
	let     sync.Cond // the reader goes on
	state   http.ConnState
	bound   bool // TLS or HTTP/2: what the server knows of it cannot be carried
	http2   bool
	told    bool // to leave, by GOAWAY
	leaving bool // it is about to be ended: nothing is read any more
	read    bool // something was, since the connection became idle
	full    int  // the size of the server's buffer: of its first read
	waits   bool // idle, the server has said how long
	left    bool // idle, the server waits for the rest of a few bytes of the next request
	early   bool // a byte of a next request was, before the response was finished
	reading bool // the reader is in the kernel
	parked  bool // the reader waits here: the server has used up all that it had read
	held    bool // the reader must not go there if the connection is quiet
	frozen  bool // its descriptor is being handed over: it must not be closed
	ended   bool // the server has closed it meanwhile
	closed  bool

	top      net.Conn  // what the server has: this, or the TLS connection above
	settled  time.Time // when it became idle last
	deadline time.Time // of reads, as the server has set it

	// What was carried over was idle for some time already. The server takes it
	// for new, and would give it ReadHeaderTimeout to begin its first request.
	inherited time.Time // when it was; zero once the first byte has come
	idle      time.Time // when it has been idle for too long; zero is never
	shift     time.Duration
}

func newConn(l *listener, c net.Conn) *conn {
	in, is := c.(inner)
	if !is {
		in = plain{c}
	}
	n := &conn{inner: in, l: l}
	n.let.L = &n.mu
	return n
}

// plain is a connection of a kind that cannot be handed over.
type plain struct{ net.Conn }

func (plain) SyscallConn() (syscall.RawConn, error) { return nil, errors.ErrUnsupported }
func (p plain) CloseWrite() error                   { return p.Close() }

// carriedOver marks what a predecessor has handed over.
func (c *conn) carriedOver(idle time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inherited = time.Now()
	if idle > 0 {
		c.idle = c.inherited.Add(idle)
	}
	c.inner.SetReadDeadline(c.effective())
}

// quiet says that the connection is idle and that nothing of the next request
// was read: whoever reads next, here or in the new code, gets it whole.
func (c *conn) quiet() bool {
	return !c.read && (c.state == http.StateNew || c.state == http.StateIdle && !c.bound)
}

// Read is the server's, which must not be told that we hold it.
func (c *conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	first := c.full == 0
	if first {
		c.full = len(p)
	}
	if c.state == http.StateIdle && !c.bound && len(p) < c.full {
		// net/http waits for four bytes of the next request. The room that it
		// has left in its buffer tells that it holds one to three of them.
		c.left = true
		c.begun()
		c.changed()
	}
	for {
		for c.held && c.quiet() && !c.closed && !c.ended {
			if !c.parked {
				c.parked = true
				c.changed()
				continue
			}
			c.let.Wait()
		}
		c.parked = false
		c.reading = true
		c.mu.Unlock()
		n, err := c.inner.Read(p)
		c.mu.Lock()
		c.reading = false
		if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && !c.overdue() {
			c.changed()
			continue
		}
		if c.leaving && n > 0 {
			n, err = 0, net.ErrClosed
		}
		if first && bytes.HasPrefix(p[:n], preface) {
			c.bound, c.http2 = true, true
		}
		c.took(n, len(p))
		c.changed()
		c.mu.Unlock()
		return n, err
	}
}

// preface is what only an HTTP/2 client begins with, without TLS.
var preface = []byte("PRI ")

// begun notes that the server holds bytes of a next request, which it had read
// together with the one before.
func (c *conn) begun() {
	c.read = true
	c.inner.SetReadDeadline(c.effective()) // which interrupt may have set
}

// changed tells who waits for us to come to rest. The caller holds mu.
func (c *conn) changed() {
	if !c.held {
		return
	}
	c.mu.Unlock()
	c.l.change()
	c.mu.Lock()
}

// overdue says that the deadline of a read is the server's own, and over.
func (c *conn) overdue() bool {
	d := c.effective()
	return !d.IsZero() && !time.Now().Before(d)
}

// took notes that n bytes were read into a buffer of a size.
func (c *conn) took(n, size int) {
	if n == 0 {
		return
	}
	wasQuiet := c.quiet()
	c.read, c.left = true, false
	if size == 1 && c.state == http.StateActive {
		// net/http reads one byte ahead while a handler runs, to see a client
		// that goes away. What it gets is a next request's, and is kept until
		// more is read.
		c.early = true
	} else {
		c.early = false
	}
	if !c.inherited.IsZero() {
		c.shift = time.Since(c.inherited)
		c.inherited = time.Time{}
	} else if !wasQuiet || !c.held {
		return
	}
	c.inner.SetReadDeadline(c.effective())
}

// effective is the deadline of reads.
func (c *conn) effective() time.Time {
	switch {
	case c.deadline.Equal(aborts):
		return c.deadline
	case !c.inherited.IsZero():
		return c.idle
	case c.deadline.IsZero():
		return c.deadline
	}
	return c.deadline.Add(c.shift)
}

// aborts is what net/http sets to call its own reader back.
var aborts = time.Unix(1, 0)

// SetReadDeadline is the server's. While the connection is held it is kept for
// later.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	if c.state == http.StateIdle && !c.bound {
		// One deadline is for the wait, and the next for a request that has come.
		if c.waits {
			c.begun()
		}
		c.waits = true
	}
	if c.held && c.quiet() {
		return nil
	}
	return c.inner.SetReadDeadline(c.effective())
}

// SetDeadline is both of the others.
func (c *conn) SetDeadline(t time.Time) error {
	if err := c.inner.SetWriteDeadline(t); err != nil {
		return err
	}
	return c.SetReadDeadline(t)
}

// setState is told by the server.
func (c *conn) setState(state http.ConnState, nc net.Conn) {
	c.mu.Lock()
	c.state = state
	c.top = nc
	if over, is := nc.(*tls.Conn); is {
		c.bound = true
		c.http2 = c.http2 || state == http.StateIdle && c.settled.IsZero() && over.ConnectionState().NegotiatedProtocol == "h2"
	}
	if state == http.StateIdle {
		c.read, c.left, c.waits, c.shift, c.settled = c.early, false, false, 0, time.Now()
	}
	held := c.held
	c.mu.Unlock()
	switch {
	case state == http.StateHijacked:
		c.l.remove(c) // it is the handler's now
	case held || state == http.StateIdle && c.l.waits():
		c.l.change()
	}
}

// interrupt holds the reader: at once if the connection is quiet, else as soon
// as it is.
func (c *conn) interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = true
	if c.quiet() {
		c.inner.SetReadDeadline(aborts)
	}
}

// atRest says that we have nothing to do with the connection, and will not.
func (c *conn) atRest() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bound && c.state == http.StateIdle {
		// One that is new, or was told to leave, is about to do something.
		return time.Since(c.settled) > announceTime
	}
	if c.left && c.state == http.StateIdle && time.Since(c.settled) > announceTime {
		return true // the rest does not come; it ends, as at an idle timeout
	}
	return c.untouched() || c.closed
}

// untouched says that nothing of the next request is anywhere in this process.
// The server may have read more than one request at a time: only when it comes
// back for more is what it had used up.
func (c *conn) untouched() bool {
	return c.quiet() && !c.reading && (c.parked || c.state == http.StateNew)
}

func (c *conn) isIdle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.read || c.bound && c.state == http.StateIdle
}

func (c *conn) isBound() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bound && c.state != http.StateNew
}

// freeze returns the descriptor of a connection that can be carried, which then
// stays open until thaw; -1 if it cannot.
func (c *conn) freeze() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.untouched() || c.closed {
		return -1
	}
	raw, err := c.inner.SyscallConn()
	if err != nil {
		return -1
	}
	fd := -1
	raw.Control(func(n uintptr) { fd = int(n) })
	c.frozen = fd >= 0
	return fd
}

// thaw lets the reader go on, and says whether the connection was to be closed
// meanwhile.
func (c *conn) thaw() (wasEnded bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held, c.frozen = false, false
	c.inner.SetReadDeadline(c.effective())
	c.let.Broadcast()
	return c.ended
}

// Close closes the connection; later, if it is being handed over.
func (c *conn) Close() error {
	c.mu.Lock()
	if c.frozen {
		c.ended = true
		c.mu.Unlock()
		return nil
	}
	done := c.closed
	c.closed = true
	c.let.Broadcast()
	c.mu.Unlock()
	err := c.inner.Close()
	if !done {
		c.l.remove(c)
	}
	return err
}

// ReadFrom has the kernel copy files, as net/http wants it to.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	if to, is := c.inner.(io.ReaderFrom); is {
		return to.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{c.inner}, r)
}

// NetConn returns the connection below.
func (c *conn) NetConn() net.Conn { return c.inner }
