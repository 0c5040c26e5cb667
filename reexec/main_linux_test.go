package reexec_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"moult.example/reexec"
	"moult.example/reexec/reexechttp"
)

// The tests run real programs: copies of this test binary, which are servers.
// What a copy is appended with says which version it is, and how it fails.

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "serve" {
		serve(os.Args[2])
		return
	}
	os.Exit(m.Run())
}

const trailerMark = "\nMOULT-TEST-TRAILER "

// trailer is at the end of an executable.
type trailer struct {
	Version int
	Fails   string // how; "" is not
}

const mostOpen = 11000 // the limit of files for a server with config.Open

// config is what all versions of a server are started with.
type config struct {
	Options reexec.Options
	Dir     string // starts of servers are noted here
	Addr    string
	Work    time.Duration
	Open    int  // descriptors to open beside
	User    int  // to change to after Listen
	Packets bool // a UDP socket that echoes, too
	Manager bool // LISTEN_FDS
	TLS     bool
	H2C     bool   // HTTP/2 without TLS
	Child   string // a program to start in the first generation, whose end nobody waits for
}

func self() (t trailer) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		f, err = os.Open(os.Args[0])
	}
	if err != nil {
		panic(err)
	}
	defer f.Close()
	st, _ := f.Stat()
	end := make([]byte, 300)
	f.ReadAt(end, st.Size()-int64(len(end)))
	if _, text, ok := strings.Cut(string(end), trailerMark); ok {
		if err := json.Unmarshal([]byte(text), &t); err != nil {
			panic(err)
		}
	}
	return t
}

func note(c config, what string, args ...any) {
	fmt.Fprintf(os.Stderr, what+"\n", args...)
}

func serve(text string) {
	var c config
	if err := gob.NewDecoder(hex.NewDecoder(strings.NewReader(text))).Decode(&c); err != nil {
		panic(err)
	}
	me := self()
	note(c, "start version=%d", me.Version)
	switch me.Fails {
	case "exit-early":
		os.Exit(3)
	case "hang-early":
		time.Sleep(time.Hour)
	case "hang":
		if c.Options.ReadyTimeout == 0 {
			c.Options.ReadyTimeout = 2 * time.Second // its own alone
		}
	case "crash-later":
		c.Options.Probation = time.Hour // however long it takes until it crashes
	case "needs":
		if !needed() {
			os.Exit(3)
		}
	}
	c.Options.OnEvent = func(e reexec.Event) {
		note(c, "event %s version=%d generation=%d err=%v path=%s", strings.ReplaceAll(string(e.Kind), " ", "-"), me.Version, e.Generation, e.Err, e.Path)
	}
	p, err := reexec.Start(c.Options)
	if err != nil {
		note(c, "fatal %v", err)
		os.Exit(4)
	}
	if me.Fails != "panic" {
		defer p.Guard()
	}
	fail(p, me.Fails)
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, unix.SIGHUP)
	ln, err := p.Listen("tcp", c.Addr)
	if err != nil {
		note(c, "fatal %v", p.Fail(err))
		os.Exit(4)
	}
	if c.Packets {
		u, err := p.ListenPacket("udp", c.Addr)
		if err != nil {
			panic(err)
		}
		go func() {
			buf := make([]byte, 2000)
			for {
				n, from, err := u.ReadFrom(buf)
				if err != nil {
					return
				}
				u.WriteTo(fmt.Appendf(nil, "%d %s", me.Version, buf[:n]), from)
			}
		}()
	}
	if f := p.File("note"); f == nil && p.Generation() == 0 {
		f, err := os.CreateTemp("", "moult-")
		if err != nil {
			panic(err)
		}
		os.Remove(f.Name())
		if err := p.Keep("note", f); err != nil {
			panic(err)
		}
		f.Close()
	} else if f != nil {
		fmt.Fprintf(f, "%d ", p.Generation())
		f.Close()
	}
	if c.Open > 0 {
		unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: mostOpen, Max: mostOpen})
	}
	for range c.Open {
		if _, err := unix.Eventfd(0, 0); err != nil { // no FD_CLOEXEC: it would leak
			panic(err)
		}
	}
	if c.User != 0 && p.Generation() == 0 {
		if err := syscall.Setuid(c.User); err != nil {
			panic(err)
		}
	}
	if c.Child != "" && p.Generation() == 0 {
		child := exec.Command("/bin/sh", "-c", c.Child)
		if err := child.Start(); err != nil {
			panic(err)
		}
		note(c, "child pid=%d", child.Process.Pid)
	}
	p.BeforeExec(func(context.Context) error {
		p.Save("trace", fmt.Appendf(nil, "%s%d,", p.Load("trace"), me.Version))
		return nil
	})
	srv := &http.Server{Handler: handler(p, c, me)}
	if c.H2C {
		srv.Protocols = new(http.Protocols)
		srv.Protocols.SetHTTP1(true)
		srv.Protocols.SetUnencryptedHTTP2(true)
	}
	if c.TLS {
		srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate(p)}}
		go reexechttp.ServeTLS(p, srv, ln, "", "")
	} else {
		go reexechttp.Serve(p, srv, ln)
	}
	if err := p.Ready(); err != nil {
		note(c, "ready %v", err)
	}
	note(c, "serving version=%d addr=%s pid=%d", me.Version, ln.Addr(), os.Getpid())
	if me.Fails == "crash-later" {
		time.Sleep(20 * time.Millisecond)
		os.Exit(5)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	note(c, "end %v", p.Run(ctx))
}

// needed says that there is what the test has named.
func needed() bool {
	_, err := os.Stat(os.Getenv("MOULT_TEST_NEEDS"))
	return err == nil
}

// fail fails between Start and Ready.
func fail(p *reexec.Process, how string) {
	switch how {
	case "exit":
		os.Exit(3)
	case "panic", "guarded-panic":
		panic("it panics")
	case "segv":
		signal.Reset()
		unix.Kill(os.Getpid(), unix.SIGSEGV)
		time.Sleep(time.Hour)
	case "abort":
		unix.Kill(os.Getpid(), unix.SIGKILL)
		time.Sleep(time.Hour)
	case "hang":
		time.Sleep(time.Hour)
	case "descriptors":
		for {
			if _, err := unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
				p.Fail(err)
				os.Exit(4)
			}
		}
	case "state":
		p.Fail(fmt.Errorf("cannot read the saved state %q", p.Load("trace")))
		os.Exit(4)
	case "awaits":
		for !needed() {
			time.Sleep(2 * time.Millisecond)
		}
		p.Fail(errors.New("it has waited"))
		os.Exit(4)
	case "return":
		func() { defer p.Guard() }()
	}
}

// certificate is one that all generations have: the first makes it.
func certificate(p *reexec.Process) tls.Certificate {
	key, der := p.Load("key"), p.Load("certificate")
	if key == nil {
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			panic(err)
		}
		what := &x509.Certificate{
			SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		}
		if der, err = x509.CreateCertificate(rand.Reader, what, what, private.Public(), private); err != nil {
			panic(err)
		}
		if key, err = x509.MarshalPKCS8PrivateKey(private); err != nil {
			panic(err)
		}
		p.Save("key", key)
		p.Save("certificate", der)
	}
	private, err := x509.ParsePKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
}
