// Package reexechttp is net/http in a program that replaces itself: idle
// keep-alive connections pass from the old code to the new, and no request is
// lost.
//
// An HTTP/1.1 connection is carried over when it is idle: the last response is
// finished, and not one byte of the next request was read. Its reader is held,
// not told: if the upgrade does not happen, the server goes on with it as if
// nothing had been. What is busy is waited for.
//
// TLS connections cannot be carried (their keys are in memory), nor can HTTP/2.
// For a second before the program drains, and while it does, responses on them say
// "Connection: close", which an HTTP/2 server makes into GOAWAY, and HTTP/2 clients
// that stay idle get a GOAWAY as well: they leave in good order. What is idle for
// all of that second is ended, with TLS's own word for it. A new TLS connection
// that has not sent a byte is carried like any other.
//
// The rule of this room: a byte that was read belongs to this code, which
// answers it; a byte that was not read belongs to the kernel, which keeps it for
// whoever reads next.
package reexechttp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"moult.example/reexec"
)

// Serve is srv.Serve(ln) for a listener of p, with the connections that a
// predecessor has carried over. It sets srv.ConnState and srv.Handler, and calls
// those that were there. One server may serve several listeners.
func Serve(p *reexec.Process, srv *http.Server, ln *reexec.Listener) error {
	l := newListener(p, srv, ln)
	return srv.Serve(l)
}

// ServeTLS is srv.ServeTLS(ln, certFile, keyFile), as Serve is srv.Serve.
func ServeTLS(p *reexec.Process, srv *http.Server, ln *reexec.Listener, certFile, keyFile string) error {
	l := newListener(p, srv, ln)
	return srv.ServeTLS(l, certFile, keyFile)
}

// listener is what net/http accepts from, and the Drainer of its connections.
type listener struct {
	*reexec.Listener
	idle time.Duration // IdleTimeout of the server

	mu        sync.Mutex
	conns     map[*conn]struct{}
	announced bool
	draining  bool
	retiring  bool
	moved     chan struct{} // closed when a connection changes
}

func newListener(p *reexec.Process, srv *http.Server, ln *reexec.Listener) *listener {
	l := &listener{Listener: ln, idle: srv.IdleTimeout, conns: map[*conn]struct{}{}, moved: make(chan struct{})}
	if l.idle == 0 {
		l.idle = srv.ReadTimeout // as net/http does
	}
	hook(srv)
	p.Drain(l)
	return l
}

// Accept returns a connection for the server. It is in the set of connections
// before the Listener can be paused: none is forgotten.
func (l *listener) Accept() (net.Conn, error) {
	var c *conn
	err := l.AcceptTo(func(inner net.Conn, carried bool) {
		c = newConn(l, inner)
		if carried {
			c.carriedOver(l.idle)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.conns[c] = struct{}{}
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// hooked are the servers that know us already.
var hooked sync.Map // *http.Server to struct{}

// hook has the server tell us when a connection is idle, and has responses on
// connections that cannot be carried end them while we drain.
func hook(srv *http.Server) {
	if _, known := hooked.LoadOrStore(srv, struct{}{}); known {
		return
	}
	theirs := srv.ConnState
	srv.ConnState = func(nc net.Conn, state http.ConnState) {
		if c := connOf(nc); c != nil {
			c.setState(state, nc)
		}
		if theirs != nil {
			theirs(nc, state)
		}
	}
	inContext := srv.ConnContext
	srv.ConnContext = func(ctx context.Context, nc net.Conn) context.Context {
		if inContext != nil {
			ctx = inContext(ctx, nc)
		}
		return context.WithValue(ctx, connKey{}, connOf(nc))
	}
	handler := srv.Handler
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, _ := r.Context().Value(connKey{}).(*conn); c != nil && c.l.sendsAway(r) {
			w.Header().Set("Connection", "close")
		}
		if handler == nil {
			http.DefaultServeMux.ServeHTTP(w, r)
		} else {
			handler.ServeHTTP(w, r)
		}
	})
}

// connOf finds our connection behind what the server has.
func connOf(nc net.Conn) *conn {
	switch nc := nc.(type) {
	case *conn:
		return nc
	case *tls.Conn:
		c, _ := nc.NetConn().(*conn)
		return c
	}
	return nil
}

type connKey struct{}

// sendsAway says that the connection of a request is to end with its response.
func (l *listener) sendsAway(r *http.Request) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.retiring || (l.announced || l.draining) && (r.TLS != nil || r.ProtoMajor > 1)
}

// announceTime is how long clients of connections that cannot be carried have
// to make a request, and to be told with its answer to leave.
const announceTime = time.Second

// Announce has TLS and HTTP/2 connections end with their next response, and idle
// ones of HTTP/2 at once, while the server goes on accepting. It waits a second at
// most until all have, and then ends what is idle.
func (l *listener) Announce(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, announceTime)
	defer cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.announced = true
	for ctx.Err() == nil && l.anyBound() {
		l.dismiss()
		moved := l.moved
		l.mu.Unlock()
		select {
		case <-moved:
		case <-time.After(tick): // one has settled
		case <-ctx.Done():
		}
		l.mu.Lock()
	}
	l.endIdle()
}

// anyBound says that there are connections that cannot be carried. The caller
// holds mu.
func (l *listener) anyBound() bool {
	for c := range l.conns {
		if c.isBound() {
			return true
		}
	}
	return false
}

// Drain holds the readers of idle connections, waits until no connection is
// busy, and says which are to be carried.
func (l *listener) Drain(ctx context.Context) ([]reexec.Carried, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.draining = true
	for c := range l.conns {
		c.interrupt()
	}
	for {
		busy := 0
		for c := range l.conns {
			if !c.atRest() {
				busy++
			}
		}
		l.dismiss()
		if busy == 0 && !l.endIdle() {
			return l.carried(), nil
		}
		moved := l.moved
		l.mu.Unlock()
		select {
		case <-moved:
			l.mu.Lock()
		case <-time.After(tick): // an idle one that is bound ages
			l.mu.Lock()
		case <-ctx.Done():
			l.mu.Lock()
			return l.carried(), fmt.Errorf("%s: %d requests: %w", l.Name(), busy, errors.Join(context.Cause(ctx), ctx.Err()))
		}
	}
}

// carried freezes and lists the connections that pass to the new code.
func (l *listener) carried() (list []reexec.Carried) {
	for c := range l.conns {
		if fd := c.freeze(); fd >= 0 {
			list = append(list, reexec.Carried{Listener: l.Listener, FD: fd})
		}
	}
	return list
}

// Resume lets all readers go on.
func (l *listener) Resume() {
	var closed []*conn
	defer func() {
		for _, c := range closed {
			c.Close()
		}
	}()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.draining, l.announced = false, false
	for c := range l.conns {
		if c.thaw() {
			closed = append(closed, c)
		}
	}
}

// Retire ends each connection with its next response, and waits until all have
// ended. Those that stay idle for as long as ctx allows are cut off.
func (l *listener) Retire(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retiring = true
	for len(l.conns) > 0 {
		l.dismiss()
		moved := l.moved
		l.mu.Unlock()
		select {
		case <-moved:
			l.mu.Lock()
		case <-time.After(tick): // one has settled
			l.mu.Lock()
		case <-ctx.Done():
			l.mu.Lock()
			busy := 0
			for c := range l.conns {
				if !c.isIdle() {
					busy++
				}
			}
			if busy == 0 {
				l.endIdle()
				return nil
			}
			return fmt.Errorf("%s: %d requests: %w", l.Name(), busy, context.Cause(ctx))
		}
	}
	return nil
}

// waits says that somebody waits for connections to change.
func (l *listener) waits() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.draining || l.retiring
}

// change wakes up who waits for connections to change. The caller must not hold
// the lock of a connection.
func (l *listener) change() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.moved)
	l.moved = make(chan struct{})
}

func (l *listener) remove(c *conn) {
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
	l.change()
}
