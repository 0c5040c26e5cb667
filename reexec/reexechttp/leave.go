package reexechttp

import (
	"crypto/tls"
	"net"
	"net/http"
	"time"
)

// leaveNow is a GOAWAY frame of HTTP/2 without an error (RFC 9113, 6.8): begin no
// more streams here; what was begun is answered.
var leaveNow = []byte{0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0}

// settleTime is how long an HTTP/2 connection has to be idle until it is told to
// leave without a response: one that is at work is told with its next one, so that
// its client cannot just be about to send. And nothing that the server has written
// can still be in its buffer.
const settleTime = announceTime / 2

// tick is how often connections are looked at again that become idle by waiting.
const tick = announceTime / 20

// goAway tells the client of an idle HTTP/2 connection to leave, once. As long as
// the reader is in the kernel no stream can begin, so that the server has nothing
// to write that the frame could get into.
func (c *conn) goAway() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != http.StateIdle || !c.reading || c.closed || time.Since(c.settled) < settleTime {
		return
	}
	if _, out, known := c.queued(); known && out == 0 { // or else it might wait for the client
		c.tell()
	}
}

// tell is goAway on a connection that is known to be idle. The caller holds mu.
func (c *conn) tell() {
	if !c.http2 || c.told {
		return
	}
	c.told = true
	if over, is := c.top.(*tls.Conn); is {
		over.Write(leaveNow)
	} else {
		c.inner.Write(leaveNow)
	}
}

// leave returns what is to be closed of a connection that cannot be carried, was
// idle for long, and has got no byte of a next request; else nil. A byte that comes
// from then on is not read: no request is begun that would be cut off. It says
// alive if there is such a byte, which the server is about to read.
func (c *conn) leave() (top net.Conn, alive bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.bound || c.state != http.StateIdle || c.closed || c.leaving || time.Since(c.settled) <= announceTime {
		return nil, false
	}
	in, out, known := c.queued()
	if !known || in > 0 || !c.reading {
		return nil, known
	}
	if out > 0 {
		return nil, false // the kernel goes on sending, whoever closes it
	}
	c.leaving = true
	c.tell()
	return c.top, false
}

// queued is how many bytes are in the kernel, to be read and to be sent.
func (c *conn) queued() (in, out int, known bool) {
	raw, err := c.inner.SyscallConn()
	if err != nil {
		return 0, 0, false
	}
	err = raw.Control(func(fd uintptr) { in, out, known = queues(fd) })
	return in, out, known && err == nil
}

// dismiss has HTTP/2 clients that are idle told to leave. The caller holds mu.
func (l *listener) dismiss() {
	for c := range l.conns {
		c.goAway()
	}
}

// endIdle ends the connections that cannot be carried and are idle: in good
// order, and before the moment in which the exec would do it. It says again if it
// has done something, or there is one that is not idle any more: then things have
// to be looked at once more. The caller holds mu, which is let go of meanwhile.
func (l *listener) endIdle() (again bool) {
	var ended []net.Conn
	for c := range l.conns {
		top, lives := c.leave()
		if top != nil {
			ended = append(ended, top)
		}
		again = again || lives
	}
	if len(ended) == 0 {
		return again
	}
	l.mu.Unlock()
	defer l.mu.Lock()
	for _, c := range ended {
		c.Close() // over TLS this says so to the client, too
	}
	return true
}
