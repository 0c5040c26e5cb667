package restart

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Probe is one question to what was restarted: is it well?
type Probe struct {
	text string   // as it was given
	kind string   // tcp, http, https, command
	url  *url.URL // of http and https
	addr string   // HOST:PORT
}

// String is the probe as it was given.
func (p Probe) String() string { return p.text }

// ParseProbe reads a probe: tcp:HOST:PORT (a connection is accepted), http://…
// or https://… (a GET is answered with a status from 200 to 399; redirections
// are not followed, proxies not used, certificates checked against those that
// the system trusts), or else a command, which sh -c runs and which has to end
// with status 0.
func ParseProbe(text string) (Probe, error) {
	p := Probe{text: text, kind: "command"}
	scheme, rest, _ := strings.Cut(text, ":")
	switch scheme {
	case "tcp":
		host, port, err := net.SplitHostPort(rest)
		if n, err2 := strconv.ParseUint(port, 10, 16); err != nil || err2 != nil || n == 0 {
			return p, fmt.Errorf("%q: want tcp:HOST:PORT, such as tcp:localhost:8080", text)
		}
		p.kind, p.addr = scheme, net.JoinHostPort(host, port)
	case "http", "https":
		u, err := url.Parse(text)
		if err != nil || u.Host == "" || u.Hostname() == "" {
			return p, fmt.Errorf("%q: want %s://HOST[:PORT]/PATH", text, scheme)
		}
		port := u.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443"}[scheme]
		}
		p.kind, p.url, p.addr = scheme, u, net.JoinHostPort(u.Hostname(), port)
	default:
		// A port without tcp: is what people write first, and no command.
		if _, err := strconv.ParseUint(rest, 10, 16); err == nil && !strings.ContainsAny(scheme, " \t\n/;&|") {
			return p, fmt.Errorf("%q: want tcp:%s, http://%s/ or a command", text, text, text)
		}
	}
	if strings.TrimSpace(text) == "" || strings.IndexByte(text, 0) >= 0 {
		return p, fmt.Errorf("%q is no command, port or URL", text)
	}
	return p, nil
}

// Try asks once. It takes as long as ctx allows.
func (p Probe) Try(ctx context.Context) error {
	switch p.kind {
	case "tcp":
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.addr)
		if err != nil {
			return err
		}
		return conn.Close()
	case "http", "https":
		return p.get(ctx)
	}
	// Nobody waits for the answer if we are killed. The kernel takes the end of
	// this thread for ours.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", p.text)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return runCommand(ctx, cmd)
}

// get asks for the URL and reads the status line of the answer, which is all
// that counts. Package net/http does far more, and each start of the program
// would pay for it.
func (p Probe) get(ctx context.Context) error {
	conn, err := p.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	request := "GET " + p.url.RequestURI() + " HTTP/1.1\r\nHost: " + p.url.Host +
		"\r\nUser-Agent: moult\r\nAccept: */*\r\nConnection: close\r\n\r\n"
	if _, err := conn.Write([]byte(request)); err != nil {
		return p.cut(ctx, err)
	}
	line, err := bufio.NewReaderSize(conn, 4096).ReadSlice('\n')
	if err != nil {
		return p.cut(ctx, err)
	}
	version, rest, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if err != nil || !strings.HasPrefix(version, "HTTP/1.") {
		return fmt.Errorf("it answers %.80q, which is not HTTP", line)
	}
	if status < 200 || status > 399 {
		return fmt.Errorf("it answers %.80q", rest)
	}
	return nil
}

func (p Probe) dial(ctx context.Context) (net.Conn, error) {
	if p.kind == "http" {
		return (&net.Dialer{}).DialContext(ctx, "tcp", p.addr)
	}
	return (&tls.Dialer{Config: &tls.Config{ServerName: p.url.Hostname()}}).DialContext(ctx, "tcp", p.addr)
}

// cut prefers the reason for which we hung up.
func (p Probe) cut(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("no answer in time")
	}
	return fmt.Errorf("no answer: %w", err)
}

// Health is what became of a probe.
type Health struct {
	Probe string  `json:"probe"`
	OK    bool    `json:"ok"`
	Tries int     `json:"tries"`
	Error string  `json:"error,omitempty"` // of the last try
	After float64 `json:"seconds"`         // until it was well, or given up
}

// Patience of health checks, where Options does not say otherwise.
const (
	defaultHealthLimit = time.Minute
	oneTry             = 10 * time.Second // at most; a server that hangs gets another try
	firstPause         = 50 * time.Millisecond
	longestPause       = 2 * time.Second
)

// CheckHealth asks every probe, all at once, again and again until each has
// said yes once or limit is over (0 means one minute). The answers are in the
// order of the probes; healthy says that all are good.
func CheckHealth(ctx context.Context, probes []Probe, limit time.Duration) (all []Health, healthy bool) {
	if limit <= 0 {
		limit = defaultHealthLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	all = make([]Health, len(probes))
	var wait sync.WaitGroup
	for i, p := range probes {
		wait.Go(func() { all[i] = p.until(ctx) })
	}
	wait.Wait()
	healthy = true
	for _, h := range all {
		healthy = healthy && h.OK
	}
	return all, healthy
}

// until tries until it is well or ctx is over.
func (p Probe) until(ctx context.Context) Health {
	h := Health{Probe: p.text}
	begun := time.Now()
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		try, cancel := context.WithTimeout(ctx, oneTry)
		err := p.Try(try)
		cancel()
		h.Tries++
		h.After = time.Since(begun).Seconds()
		if err == nil {
			h.OK, h.Error = true, ""
			return h
		}
		if ctx.Err() == nil || h.Error == "" {
			h.Error = err.Error() // the reason before we ran out of time says more
		}
		if !sleep(ctx, pause) {
			return h
		}
	}
}

// sleep waits, and says whether ctx is still good.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
