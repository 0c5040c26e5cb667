package reexechttp

import (
	"errors"
	"net"
	"net/http"
	"os"
	"testing"
	"time"
)

// pair is a connection of a listener, and its other end.
func pair(t *testing.T) (*listener, *conn, net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	l := &listener{conns: map[*conn]struct{}{}, moved: make(chan struct{})}
	c := newConn(l, accepted)
	l.conns[c] = struct{}{}
	t.Cleanup(func() { client.Close(); c.Close() })
	return l, c, client
}

// TestDrainWaitsForTheReader: a connection that says it is idle is carried only
// when the server has come back to read, because it may have more requests in
// its buffer; and when it goes on, it has noticed nothing.
func TestDrainWaitsForTheReader(t *testing.T) {
	l, c, client := pair(t)
	buf := make([]byte, 100)
	client.Write([]byte("a request, and a second one"))
	c.Read(buf)
	c.setState(http.StateActive, c)
	c.setState(http.StateIdle, c)
	drained := make(chan int)
	go func() {
		carried, err := l.Drain(t.Context())
		if err != nil {
			t.Errorf("drain: %v", err)
		}
		drained <- len(carried)
	}()
	select {
	case <-drained:
		t.Fatal("drained before the server came back to read, want it to wait")
	case <-time.After(20 * time.Millisecond):
	}
	got := make(chan string)
	go func() {
		n, err := c.Read(buf)
		if err != nil {
			t.Errorf("read: %v", err)
		}
		got <- string(buf[:n])
	}()
	if n := <-drained; n != 1 {
		t.Errorf("%d carried, want 1", n)
	}
	client.Write([]byte("x"))
	select {
	case text := <-got:
		t.Fatalf("read %q while the connection was held, want nothing", text)
	case <-time.After(20 * time.Millisecond):
	}
	l.Resume()
	if text := <-got; text != "x" {
		t.Errorf("read %q, want x", text)
	}
}

// TestCarriedDeadline: the server takes what was carried over for new. Its time
// for the first header begins with the first byte.
func TestCarriedDeadline(t *testing.T) {
	_, c, client := pair(t)
	c.carriedOver(0)
	c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	buf := make([]byte, 10)
	time.AfterFunc(120*time.Millisecond, func() { client.Write([]byte("x")) })
	if n, err := c.Read(buf); n != 1 {
		t.Fatalf("read: %v, want the byte that came after 120 ms", err)
	}
	if _, err := c.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v, want a timeout: 50 ms after the first byte", err)
	}
}

// TestCloseWhileHandedOver: the descriptor stays open until it is known whether
// the upgrade happens.
func TestCloseWhileHandedOver(t *testing.T) {
	l, c, client := pair(t)
	carried, err := l.Drain(t.Context())
	if err != nil || len(carried) != 1 {
		t.Fatalf("%d carried, %v; want 1", len(carried), err)
	}
	c.Close()
	client.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the other end: %v, want it open", err)
	}
	l.Resume()
	client.SetReadDeadline(time.Now().Add(5 * time.Minute))
	if _, err := client.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the other end: %v, want it closed", err)
	}
}
