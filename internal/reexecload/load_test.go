package reexecload

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// serve answers each request on each connection with what answer returns; it
// closes the connection, without a word, if that is "".
func serve(t *testing.T, answer func(n int, body string) string) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	var n atomic.Int64
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for r := bufio.NewReader(c); ; {
					length := 0
					for {
						text, err := r.ReadString('\n')
						if err != nil {
							return
						}
						if value, ok := strings.CutPrefix(text, "Content-Length: "); ok {
							length, _ = strconv.Atoi(strings.TrimSpace(value))
						}
						if text == "\r\n" {
							break
						}
					}
					body := make([]byte, length)
					if _, err := io.ReadFull(r, body); err != nil {
						return
					}
					text := answer(int(n.Add(1)), string(body))
					if io.WriteString(c, text); text == "" {
						return
					}
				}
			}()
		}
	}()
	return ln.Addr().String()
}

// closing answers one request on each connection, and closes that without a word.
func closing(t *testing.T) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 4096)
			n, _ := c.Read(buf)
			if _, body, whole := strings.Cut(string(buf[:n]), "\r\n\r\n"); whole {
				io.WriteString(c, ok("", body))
			}
			c.Close()
		}
	}()
	return ln.Addr().String()
}

func ok(header, body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s", header, len(body), body)
}

// TestCounts seeds a fault in the server, and wants each counted as what it is.
func TestCounts(t *testing.T) {
	for _, test := range []struct {
		name        string
		answer      func(n int, body string) string
		lost, wrong int
	}{
		{"sound", func(_ int, body string) string { return ok("", body) }, 0, 0},
		{"says that it closes", func(_ int, body string) string { return ok("Connection: close\r\n", body) }, 0, 0},
		{"closes without a word", func(n int, body string) string {
			if n%100 == 0 {
				return ""
			}
			return ok("", body)
		}, 5, 0},
		{"half an answer", func(n int, body string) string {
			if n == 100 {
				return ok("", body)[:50] + strings.Repeat("x", 1000)
			}
			return ok("", body)
		}, 0, 1},
		{"another one's answer", func(n int, body string) string {
			if n%250 == 0 {
				body = strings.ToUpper(body)
			}
			return ok("", body)
		}, 0, 2},
		{"a status", func(n int, body string) string {
			if n == 7 {
				return strings.Replace(ok("", body), "200", "503", 1)
			}
			return ok("", body)
		}, 0, 1},
		{"no HTTP", func(n int, _ string) string { return "what?\r\n" }, 500, 0},
		{"endless", func(n int, body string) string {
			if n == 7 {
				return ok("Content-Length: 99999999999999\r\n", body)
			}
			if n == 8 {
				return "HTTP/1.1 200 " + strings.Repeat("x", 1<<16)
			}
			return ok("", body)
		}, 1, 1},
	} {
		for _, keep := range []bool{true, false} {
			r := Run(t.Context(), Options{Addr: serve(t, test.answer), Requests: 500, KeepAlive: keep})
			if test.name == "half an answer" || test.name == "endless" {
				// What comes after it is read as an answer, or not at all.
				if r.Lost+r.Wrong == 0 || r.Lost+r.Wrong+r.Answered != 500 {
					t.Errorf("%s, keep-alive %v: %v, want at least one bad of 500", test.name, keep, r)
				}
				continue
			}
			if r.Lost != test.lost || r.Wrong != test.wrong || r.Answered != 500-test.lost-test.wrong {
				t.Errorf("%s, keep-alive %v: %v, want %d lost, %d wrong of 500; %v", test.name, keep, r, test.lost, test.wrong, r.Why)
			}
		}
	}
	// A server that closes as soon as it has answered: who looks knows.
	addr := serve(t, func(n int, body string) string {
		if n%2 == 0 {
			return ""
		}
		return ok("", body)
	})
	r := Run(t.Context(), Options{Addr: addr, Requests: 100, Workers: 1, KeepAlive: true})
	if r.Lost != 50 || r.Closed != 0 {
		t.Errorf("closed after the request came: %v, want 50 lost, none of them knowingly", r)
	}
	r = Run(t.Context(), Options{Addr: closing(t), Requests: 100, Workers: 1, KeepAlive: true, Think: 2 * time.Millisecond})
	if r.Lost == 0 || r.Closed == 0 {
		t.Errorf("closed after each answer: %v, want some lost on closed connections", r)
	}
	r = Run(t.Context(), Options{Addr: "127.0.0.1:1", Requests: 3})
	if r.Lost != 3 || len(r.Why) != 3 {
		t.Errorf("nobody listens: %v, want 3 lost and why", r)
	}
}

// TestQuantiles: what a Result says of the times.
func TestQuantiles(t *testing.T) {
	var r Result
	for i := range 1000 {
		r.took = append(r.took, time.Duration(1000-i)*time.Millisecond)
	}
	r = Sum(r, Result{})
	for part, want := range map[float64]time.Duration{0: 1, 0.5: 501, 0.99: 991, 0.999: 1000, 1: 1000} {
		if got := r.Took(part); got != want*time.Millisecond {
			t.Errorf("part %v took %v, want %v", part, got, want*time.Millisecond)
		}
	}
	if got := (Result{}).Took(0.5); got != 0 {
		t.Errorf("of nothing: %v, want 0", got)
	}
}

// TestNaiveServerLoses drives a server that replaces itself as many do. The load
// has to see what is lost on connections that Shutdown closes, and of the
// requests that are cut off without it; and that descriptors leak.
func TestNaiveServerLoses(t *testing.T) {
	program := filepath.Join(t.TempDir(), "naive")
	if out, err := exec.Command("go", "build", "-o", program, "./testdata/naive").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	t.Run("after Shutdown, kept connections", func(t *testing.T) { loses(t, program, "after shutdown", true) })
	t.Run("at once, new connections", func(t *testing.T) { loses(t, program, "at once", false) })
}

func loses(t *testing.T, program, mode string, keep bool) {
	cmd := exec.Command(program, "127.0.0.1:0", mode)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	addr = strings.TrimSpace(addr)
	p := &Process{PID: cmd.Process.Pid}
	before, err := p.Descriptors()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	load := make(chan Result)
	go func() { load <- Run(ctx, Options{Addr: addr, KeepAlive: keep, Think: 2 * time.Millisecond}) }()
	u, err := Drive(ctx, Options{Addr: addr}, UpgradeOptions{
		Upgrades: 30,
		Every:    30 * time.Millisecond,
		Start:    func(int) error { return syscall.Kill(cmd.Process.Pid, syscall.SIGUSR2) },
		Done:     func(n int, a Answer) bool { return a.Header["generation"] == strconv.Itoa(n) },
	})
	stop()
	r := <-load
	if err != nil || u.Done != 30 || u.Gap(1) == 0 || u.Took(1) == 0 {
		t.Errorf("%v (%v), want 30 with a gap", u, err)
	}
	if r.Lost == 0 || r.Wrong != 0 || r.Answered == 0 {
		t.Errorf("%v, want some lost and none wrong", r)
	}
	if after, err := p.Descriptors(); err != nil || len(after) < len(before)+20 {
		t.Errorf("descriptors %q, want those of 30 generations (%v)", after, err)
	}
	t.Log(r)
	t.Log(u)
}
