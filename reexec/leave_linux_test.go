package reexec_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestIdleGoAway: a client of HTTP/2 that is idle is told by GOAWAY that it is to
// leave, before its connection ends.
func TestIdleGoAway(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{true, false} {
		t.Run(map[bool]string{true: "TLS", false: "plain"}[secure], func(t *testing.T) {
			t.Parallel()
			s := startServer(t, config{TLS: secure, H2C: !secure})
			c := s.dial(t)
			if secure {
				c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
			}
			io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
			c.Write(frame(4, 0, 0, nil))
			// The indexed fields are GET, http or https and /; then :authority.
			scheme := map[bool]byte{true: 0x87, false: 0x86}[secure]
			c.Write(frame(1, 0x5, 1, []byte{0x82, scheme, 0x84, 0x01, 1, 'x'}))
			f := readFrame(t, c)
			for !(f.kind <= 1 && f.stream == 1 && f.flags&1 != 0) { // the end of the answer
				f = readFrame(t, c)
			}
			s.cmd.Process.Signal(unix.SIGUSR2)
			for f.kind != 7 {
				f = readFrame(t, c)
			}
			if want := "\x7f\xff\xff\xff\x00\x00\x00\x00"; string(f.payload) != want {
				t.Errorf("GOAWAY says %q, want %q: all streams that were begun are answered", f.payload, want)
			}
			c.Close()
			s.wait("event executing ")
			s.waitN("serving ", 2)
		})
	}
}

// frame is a frame of HTTP/2.
func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	head := binary.BigEndian.AppendUint32(nil, uint32(len(payload)))[1:]
	return append(binary.BigEndian.AppendUint32(append(head, kind, flags), stream), payload...)
}

type http2Frame struct {
	kind, flags byte
	stream      uint32
	payload     []byte
}

func readFrame(t *testing.T, c net.Conn) http2Frame {
	t.Helper()
	head := make([]byte, 9)
	if _, err := io.ReadFull(c, head); err != nil {
		t.Fatalf("a frame: %v", err)
	}
	payload := make([]byte, binary.BigEndian.Uint32(append([]byte{0}, head[:3]...)))
	if _, err := io.ReadFull(c, payload); err != nil {
		t.Fatalf("the rest of a frame: %v", err)
	}
	return http2Frame{head[3], head[4], binary.BigEndian.Uint32(head[5:]), payload}
}

// TestIdleTLS: an idle connection of HTTP/1.1 over TLS is ended in good order, by
// TLS's own word for it, and not cut off by the exec.
func TestIdleTLS(t *testing.T) {
	t.Parallel()
	s := startServer(t, config{TLS: true})
	raw := &recorder{Conn: s.dial(t)}
	// Later versions hide what kind of record it is.
	c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	io.WriteString(c, aRequest)
	var got []byte
	for buf := make([]byte, 4096); !bytes.HasSuffix(got, []byte("1 x")); {
		n, err := c.Read(buf)
		if got = append(got, buf[:n]...); err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
	s.cmd.Process.Signal(unix.SIGUSR2)
	if n, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read of the idle connection: %d, %v, want its end", n, err)
	}
	const alert = 21
	if kind := raw.lastRecord(); kind != alert {
		t.Errorf("the last record is of kind %d, want an alert (%d)", kind, alert)
	}
	s.waitN("serving ", 2)
}

// dial is a connection with a limit of time.
func (s *server) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(limit))
	return c
}

// recorder keeps what was read.
type recorder struct {
	net.Conn
	read []byte
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.read = append(r.read, p[:n]...)
	return n, err
}

// lastRecord is the kind of the last TLS record that was read.
func (r *recorder) lastRecord() (kind byte) {
	for rest := r.read; len(rest) >= 5; {
		kind = rest[0]
		rest = rest[min(len(rest), 5+int(binary.BigEndian.Uint16(rest[3:]))):]
	}
	return kind
}
