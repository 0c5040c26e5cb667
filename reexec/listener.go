package reexec

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// gate lets calls that wait (accept, receive) through, or has them wait
// until the program goes on. SetDeadline in the past is what calls them back.
type gate struct {
	set func(time.Time) error // the deadline of what waits

	mu       sync.Mutex
	changed  sync.Cond
	shut     bool
	closed   bool
	inside   int
	deadline time.Time // that the program has set
}

func newGate(set func(time.Time) error) *gate {
	g := &gate{set: set}
	g.changed.L = &g.mu
	return g
}

// through runs a call as often as it takes until it comes back for another
// reason than that the gate was shut.
func (g *gate) through(call func() error) error {
	for {
		g.mu.Lock()
		for g.shut && !g.closed {
			g.changed.Wait()
		}
		g.inside++
		g.mu.Unlock()
		err := call()
		g.mu.Lock()
		g.inside--
		g.changed.Broadcast()
		theirs := !g.deadline.IsZero() && !time.Now().Before(g.deadline)
		g.mu.Unlock()
		if theirs || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

// close shuts the gate and waits until nobody is inside: what one of them has
// accepted by then is the program's.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
	g.set(time.Unix(1, 0))
	for g.inside > 0 {
		g.changed.Wait()
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = false
	g.set(g.deadline)
	g.changed.Broadcast()
}

// end lets everybody through, to find out that it is closed.
func (g *gate) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.changed.Broadcast()
}

func (g *gate) setDeadline(t time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.deadline = t
	if g.shut {
		return nil
	}
	return g.set(t)
}

// Listener is a net.Listener that is handed over, and that can be paused: while
// the program is replaced, connections wait in the kernel's queue.
type Listener struct {
	p     *Process
	name  string
	inner interface {
		net.Listener
		syscall.Conn
		SetDeadline(time.Time) error
	}
	gate    *gate
	open    busy      // connections that Accept has returned
	carried []*keptFD // idle connections of the predecessor, to be accepted first; guarded by p.mu
}

// carriedPrefix, before the name of a listener, names its idle connections.
const carriedPrefix = "moult.http!"

// busy counts what is not finished.
type busy struct {
	mu   sync.Mutex
	n    int
	zero chan struct{} // closed when n becomes 0; nil if nobody waits
}

func (b *busy) add(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n += n
	if b.n == 0 && b.zero != nil {
		close(b.zero)
		b.zero = nil
	}
}

func (b *busy) wait(ctx context.Context) error {
	b.mu.Lock()
	if b.n == 0 {
		b.mu.Unlock()
		return nil
	}
	if b.zero == nil {
		b.zero = make(chan struct{})
	}
	zero, n := b.zero, b.n
	b.mu.Unlock()
	select {
	case <-zero:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%d open: %w", n, context.Cause(ctx))
	}
}

// Listen is net.Listen for a socket that is handed over. It returns the one that
// was inherited: from a predecessor under the same network and address, or from
// systemd (LISTEN_FDS) if one is bound to the address; else a new one. Networks
// are tcp, tcp4, tcp6 and unix. Its name is network!address.
//
// An upgrade waits until the connections that Accept has returned are closed.
// For net/http see reexechttp, which carries idle connections over instead.
func (p *Process) Listen(network, address string) (*Listener, error) {
	return p.ListenAs(network+"!"+address, network, address)
}

// ListenAs is Listen for a socket that is handed over under that name, whatever
// its address: a program in another language, and FileDescriptorName= of systemd,
// know it by that.
func (p *Process) ListenAs(name, network, address string) (*Listener, error) {
	var inner net.Listener
	f, managed, err := p.inheritedSocket(name, network, address)
	if err == nil {
		if f != nil {
			inner, err = net.FileListener(f)
			f.Close()
		} else {
			inner, err = net.Listen(network, address)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reexec: listen %s: %w", name, err)
	}
	l := &Listener{p: p, name: name}
	switch inner := inner.(type) {
	case *net.TCPListener:
		l.inner = inner
	case *net.UnixListener:
		inner.SetUnlinkOnClose(!managed)
		l.inner = inner
	default:
		inner.Close()
		return nil, fmt.Errorf("reexec: listen %s: %w", name, net.UnknownNetworkError(network))
	}
	if f == nil {
		if err := p.Keep(name, l.inner); err != nil {
			inner.Close()
			return nil, err
		}
	}
	l.gate = newGate(l.inner.SetDeadline)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listens = append(p.listens, l)
	l.adoptCarried()
	if p.trial || p.leaving {
		l.gate.shut = true
	}
	return l, nil
}

// Accept waits for a connection. An upgrade waits until that is closed.
func (l *Listener) Accept() (net.Conn, error) {
	var counted net.Conn
	err := l.AcceptTo(func(c net.Conn, _ bool) {
		l.open.add(1)
		switch c := c.(type) {
		case *net.TCPConn:
			counted = &countedTCP{TCPConn: c, open: &l.open}
		case *net.UnixConn:
			counted = &countedUnix{UnixConn: c, open: &l.open}
		}
	})
	return counted, err
}

// AcceptTo waits for a connection and gives it to take, for those who bring
// their connections to rest themselves, with a Drainer: an upgrade waits until
// take has returned, and no longer. The idle connections that a predecessor has
// carried over come first; carried says that this is one.
func (l *Listener) AcceptTo(take func(c net.Conn, carried bool)) error {
	return l.gate.through(func() error {
		c, carried := l.nextCarried(), true
		if c == nil {
			var err error
			if c, err = l.inner.Accept(); err != nil {
				return err
			}
			carried = false
		}
		take(c, carried)
		return nil
	})
}

// nextCarried takes the next of the connections that were carried over; nil if
// there is none.
func (l *Listener) nextCarried() net.Conn {
	p := l.p
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(l.carried) > 0 {
		k := l.carried[0]
		l.carried = l.carried[1:]
		f, err := k.file()
		if p.ready {
			closeFD(k.fd)
		} else { // a rollback needs it
			k.until = true
			p.kept = append(p.kept, k)
		}
		if err != nil {
			continue
		}
		c, err := net.FileConn(f)
		f.Close()
		if err == nil {
			return c
		}
	}
	return nil
}

// adoptCarried takes the idle connections of the listener, before Ready closes
// what nobody has asked for. The caller holds p.mu.
func (l *Listener) adoptCarried() {
	l.p.kept = slices.DeleteFunc(l.p.kept, func(k *keptFD) bool {
		if k.system || k.name != carriedPrefix+l.name {
			return false
		}
		l.carried = append(l.carried, k)
		return true
	})
}

type countedTCP struct {
	*net.TCPConn
	open *busy
	once sync.Once
}

func (c *countedTCP) Close() error {
	err := c.TCPConn.Close()
	c.once.Do(func() { c.open.add(-1) })
	return err
}

type countedUnix struct {
	*net.UnixConn
	open *busy
	once sync.Once
}

func (c *countedUnix) Close() error {
	err := c.UnixConn.Close()
	c.once.Do(func() { c.open.add(-1) })
	return err
}

// Close closes the listener, which is then not handed over any more. A socket
// that came from systemd stays open.
func (l *Listener) Close() error {
	err := l.inner.Close()
	l.gate.end()
	l.p.drop(l)
	return err
}

// Addr is the address that it listens on.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }

// Name is the name under which it is handed over.
func (l *Listener) Name() string { return l.name }

// SetDeadline is that of net.TCPListener.
func (l *Listener) SetDeadline(t time.Time) error { return l.gate.setDeadline(t) }

// SyscallConn gives access to the socket.
func (l *Listener) SyscallConn() (syscall.RawConn, error) { return l.inner.SyscallConn() }
