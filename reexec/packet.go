package reexec

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

// PacketConn is a net.PacketConn that is handed over, and that can be paused:
// while the program is replaced, datagrams wait in the kernel's buffer.
type PacketConn struct {
	p     *Process
	name  string
	inner interface {
		net.PacketConn
		syscall.Conn
	}
	gate *gate

	mu       sync.Mutex
	answered sync.Cond
	pending  int // datagrams returned whose reader has not come back
}

// answerTime is how long an upgrade waits for a reader to come back for the next
// datagram. It bounds the wait for one that never will.
const answerTime = time.Second

// ListenPacket is net.ListenPacket for a socket that is handed over, as Listen
// is net.Listen. Networks are udp, udp4, udp6 and unixgram.
//
// An upgrade waits up to a second until each datagram that was read is answered:
// until its reader comes back for the next one. Programs that answer from other
// goroutines wait for those in BeforeExec.
func (p *Process) ListenPacket(network, address string) (*PacketConn, error) {
	return p.ListenPacketAs(network+"!"+address, network, address)
}

// ListenPacketAs is ListenPacket under a name, as ListenAs is Listen.
func (p *Process) ListenPacketAs(name, network, address string) (*PacketConn, error) {
	var inner net.PacketConn
	f, _, err := p.inheritedSocket(name, network, address)
	if err == nil {
		if f != nil {
			inner, err = net.FilePacketConn(f)
			f.Close()
		} else {
			inner, err = net.ListenPacket(network, address)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reexec: listen %s: %w", name, err)
	}
	c := &PacketConn{p: p, name: name}
	switch inner := inner.(type) {
	case *net.UDPConn:
		c.inner = inner
	case *net.UnixConn:
		c.inner = inner
	default:
		inner.Close()
		return nil, fmt.Errorf("reexec: listen %s: %w", name, net.UnknownNetworkError(network))
	}
	c.answered.L = &c.mu
	if f == nil {
		if err := p.Keep(name, c.inner); err != nil {
			inner.Close()
			return nil, err
		}
	}
	c.gate = newGate(c.inner.SetReadDeadline)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.packets = append(p.packets, c)
	if p.trial || p.leaving {
		c.gate.shut = true
	}
	return c, nil
}

// ReadFrom waits for a datagram.
func (c *PacketConn) ReadFrom(buf []byte) (n int, from net.Addr, err error) {
	c.count(-1)
	err = c.gate.through(func() error {
		n, from, err = c.inner.ReadFrom(buf)
		if err == nil {
			c.count(1)
		}
		return err
	})
	return n, from, err
}

func (c *PacketConn) count(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending = max(0, c.pending+n)
	c.answered.Broadcast()
}

// rest waits until all readers have come back, for a second at most.
func (c *PacketConn) rest(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.answered.Broadcast()
	})
	defer stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.pending > 0 && ctx.Err() == nil {
		c.answered.Wait()
	}
}

// WriteTo sends a datagram.
func (c *PacketConn) WriteTo(buf []byte, to net.Addr) (int, error) { return c.inner.WriteTo(buf, to) }

// Close closes the socket, which is then not handed over any more.
func (c *PacketConn) Close() error {
	err := c.inner.Close()
	c.gate.end()
	c.p.mu.Lock()
	c.p.packets = slices.DeleteFunc(c.p.packets, func(other *PacketConn) bool { return other == c })
	c.p.mu.Unlock()
	c.p.Forget(c.name)
	return err
}

// LocalAddr is the address of the socket.
func (c *PacketConn) LocalAddr() net.Addr { return c.inner.LocalAddr() }

// SetDeadline is that of net.PacketConn.
func (c *PacketConn) SetDeadline(t time.Time) error {
	if err := c.inner.SetWriteDeadline(t); err != nil {
		return err
	}
	return c.gate.setDeadline(t)
}

// SetReadDeadline is that of net.PacketConn.
func (c *PacketConn) SetReadDeadline(t time.Time) error { return c.gate.setDeadline(t) }

// SetWriteDeadline is that of net.PacketConn.
func (c *PacketConn) SetWriteDeadline(t time.Time) error { return c.inner.SetWriteDeadline(t) }

// SyscallConn gives access to the socket. What reads from it that way is not
// paused.
func (c *PacketConn) SyscallConn() (syscall.RawConn, error) { return c.inner.SyscallConn() }
