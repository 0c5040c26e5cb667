package reexecload

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// What an answer may have at most; more is a wrong answer.
const (
	maxHeader = 64
	maxBody   = 1 << 20
)

// client speaks HTTP/1.1 over one connection after the other.
type client struct {
	addr string
	conn net.Conn
	r    *bufio.Reader
}

func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// post sends a request and reads its answer, once.
func (c *client) post(path string, body []byte, keep bool) (Answer, error) {
	connection := "keep-alive"
	if !keep {
		c.close()
		connection = "close"
	}
	if path == "" {
		path = "/"
	}
	request := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: %s\r\nContent-Length: %d\r\n\r\n%s",
		path, connection, len(body), body)
	a, err := c.roundTrip(request)
	if err != nil || !keep || strings.EqualFold(a.Header["connection"], "close") {
		c.close()
	}
	return a, err
}

// closed says that the server has closed the connection already, as a client that
// looks before it sends would see.
func (c *client) closed() bool {
	raw, isRaw := c.conn.(syscall.Conn)
	if !isRaw {
		return false
	}
	control, err := raw.SyscallConn()
	if err != nil {
		return false
	}
	n, readErr := -1, error(nil)
	control.Control(func(fd uintptr) {
		n, _, readErr = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return n == 0 && readErr == nil || errors.Is(readErr, syscall.ECONNRESET)
}

func (c *client) roundTrip(request []byte) (Answer, error) {
	end := time.Now().Add(silence)
	if c.conn == nil {
		network := "tcp"
		if strings.HasPrefix(c.addr, "/") {
			network = "unix"
		}
		conn, err := net.DialTimeout(network, c.addr, silence)
		if err != nil {
			return Answer{}, err
		}
		c.conn, c.r = conn, bufio.NewReader(conn)
	}
	if err := c.conn.SetDeadline(end); err != nil {
		return Answer{}, err
	}
	if _, err := c.conn.Write(request); err != nil {
		return Answer{}, err
	}
	a, err := readAnswer(c.r)
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("the connection ended: %w", io.ErrUnexpectedEOF)
	}
	return a, err
}

// readAnswer reads an answer whose length is said. Answers in chunks are none
// that a server of a test gives.
func readAnswer(r *bufio.Reader) (Answer, error) {
	a := Answer{Header: map[string]string{}}
	status, err := line(r)
	if err != nil {
		return a, err
	}
	if _, err := fmt.Sscanf(status, "HTTP/1.1 %d", &a.Status); err != nil {
		return a, fmt.Errorf("status line %.60q", status)
	}
	for n := 0; ; n++ {
		text, err := line(r)
		if err != nil {
			return a, err
		}
		if text == "" {
			break
		}
		name, value, ok := strings.Cut(text, ":")
		if !ok || n == maxHeader {
			return a, fmt.Errorf("header %.60q", text)
		}
		a.Header[strings.ToLower(name)] = strings.TrimSpace(value)
	}
	size, err := strconv.Atoi(a.Header["content-length"])
	if err != nil || size < 0 || size > maxBody {
		return a, fmt.Errorf("content-length %.20q", a.Header["content-length"])
	}
	a.Body = make([]byte, size)
	_, err = io.ReadFull(r, a.Body)
	return a, err
}

// line reads a line without its end.
func line(r *bufio.Reader) (string, error) {
	text, err := r.ReadSlice('\n') // as long as the buffer at most
	return strings.TrimRight(string(text), "\r\n"), err
}
