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
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
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
	case "needs":
		if _, err := os.Stat(os.Getenv("MOULT_TEST_NEEDS")); err != nil {
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

// status is what GET / answers.
type status struct {
	Version, PID, Generation, FDs int
	Trace                         string // versions, by their saved state
	Note                          string // generations, by what they wrote to a kept file
	UID                           int
	Limit                         uint64
	Ignored                       string // of /proc/self/status
	Blocked                       string
	Dir                           string
	Listens                       string
}

func handler(p *reexec.Process, c config, me trailer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		s := status{Version: me.Version, PID: os.Getpid(), Generation: p.Generation(), Trace: string(p.Load("trace")), UID: os.Geteuid()}
		fds, _ := os.ReadDir("/proc/self/fd")
		s.FDs = len(fds)
		if f := p.File("note"); f != nil {
			text := make([]byte, 10000)
			n, _ := f.ReadAt(text, 0)
			s.Note = string(text[:n])
			f.Close()
		}
		var l unix.Rlimit
		unix.Getrlimit(unix.RLIMIT_NOFILE, &l)
		s.Limit = l.Cur
		text, _ := os.ReadFile("/proc/self/status")
		for line := range strings.Lines(string(text)) {
			if v, ok := strings.CutPrefix(line, "SigIgn:"); ok {
				s.Ignored = strings.TrimSpace(v)
			}
		}
		s.Blocked = blocked()
		s.Dir, _ = os.Getwd()
		json.NewEncoder(w).Encode(s)
	})
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		time.Sleep(c.Work)
		fmt.Fprintf(w, "%d %s", me.Version, body)
	})
	mux.HandleFunc("POST /stream", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		for range 10 {
			fmt.Fprintf(w, "%d", me.Version)
			w.(http.Flusher).Flush()
			time.Sleep(30 * time.Millisecond)
		}
		fmt.Fprintf(w, " %s", body)
	})
	mux.HandleFunc("POST /upgrade", func(w http.ResponseWriter, r *http.Request) {
		// In the background: the upgrade waits for this request.
		done := make(chan error, 1)
		go func() { done <- p.Upgrade(context.Background()) }()
		select {
		case err := <-done:
			fmt.Fprint(w, err)
		case <-time.After(10 * time.Second):
			fmt.Fprint(w, "it waits")
		}
	})
	return mux
}

// blocked is the signal mask that most threads have.
func blocked() (most string) {
	masks := map[string]int{}
	tasks, _ := filepath.Glob("/proc/self/task/*/status")
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		for line := range strings.Lines(string(text)) {
			if v, ok := strings.CutPrefix(line, "SigBlk:"); ok {
				v = strings.TrimSpace(v)
				if masks[v]++; masks[v] > masks[most] {
					most = v
				}
			}
		}
	}
	return most
}

// server is a running one.
type server struct {
	t    *testing.T
	cmd  *exec.Cmd
	exe  string // where a new version is put
	addr string
	log  string // its standard error
	env  []string
	end  chan struct{}
}

// program writes a version to path, in one step.
func program(t *testing.T, path string, tr trailer) {
	t.Helper()
	own, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	// Who forks meanwhile would hold the file open for writing: ETXTBSY.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	temp, err := os.CreateTemp(filepath.Dir(path), "new-")
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(tr)
	if _, err = io.Copy(temp, own); err == nil {
		_, err = temp.WriteString(trailerMark + string(text))
	}
	if err == nil {
		err = temp.Chmod(0o755)
	}
	if err == nil {
		err = temp.Close()
	}
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (c config) text() string {
	var b strings.Builder
	if err := gob.NewEncoder(hex.NewEncoder(&b)).Encode(c); err != nil { // json refuses OnEvent
		panic(err)
	}
	return b.String()
}

func (c config) quick() config {
	o := &c.Options
	for d, v := range map[*time.Duration]time.Duration{&o.Poll: 10 * time.Millisecond, &o.Settle: 30 * time.Millisecond} {
		if *d == 0 {
			*d = v
		}
	}
	if c.Addr == "" {
		c.Addr = "127.0.0.1:0"
	}
	return c
}

// newServer makes the first version, which is not started.
func newServer(t *testing.T, c config) (*server, config) {
	t.Helper()
	dir := t.TempDir()
	s := &server{t: t, exe: filepath.Join(dir, "server"), log: filepath.Join(dir, "log"), end: make(chan struct{})}
	program(t, s.exe, trailer{Version: 1})
	return s, c.quick()
}

// startServer starts the first version and waits until it serves.
func startServer(t *testing.T, c config) *server {
	t.Helper()
	s, c := newServer(t, c)
	s.run(c, s.exe)
	return s
}

func (s *server) run(c config, path string) {
	s.t.Helper()
	s.runCommand(exec.Command(path, "serve", c.text()))
}

func (s *server) runCommand(cmd *exec.Cmd) {
	s.t.Helper()
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.cmd = cmd
	before := len(s.lines("serving "))
	cmd.Stderr, cmd.Stdout = log, log
	// The race detector sleeps a second at each exit.
	cmd.Env = append(cmd.Environ(), append([]string{"GORACE=atexit_sleep_ms=0"}, s.env...)...)
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	end := make(chan struct{})
	s.end = end
	go func() { cmd.Wait(); close(end) }()
	s.t.Cleanup(func() {
		cmd.Process.Kill()
		<-end
		if said := s.said(); strings.Contains(said, "DATA RACE") {
			s.t.Errorf("the server says:\n%s", said[strings.Index(said, "WARNING"):])
		}
		if s.t.Failed() {
			said := s.said()
			s.t.Logf("the server says, at the end:\n%s", said[max(0, len(said)-3000):])
		}
	})
	s.addr = field(s.waitN("serving ", before+1), "addr")
}

func (s *server) said() string {
	text, _ := os.ReadFile(s.log)
	return string(text)
}

// field is the value of name=value in a line.
func field(line, name string) string {
	_, rest, _ := strings.Cut(line, " "+name+"=")
	value, _, _ := strings.Cut(rest, " ")
	return value
}

// lines are the lines of the log that begin with a text.
func (s *server) lines(begin string) (lines []string) {
	for line := range strings.Lines(s.said()) {
		if strings.HasPrefix(line, begin) {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	return lines
}

// wait waits for a line of the log.
func (s *server) wait(begin string) string {
	s.t.Helper()
	return s.waitN(begin, 1)
}

func (s *server) waitN(begin string, n int) string {
	s.t.Helper()
	var line string
	s.until("a line "+strconv.Quote(begin), func() bool {
		lines := s.lines(begin)
		if len(lines) >= n {
			line = lines[n-1]
		}
		return len(lines) >= n
	})
	return line
}

// until waits for a condition.
func (s *server) until(what string, is func() bool) {
	s.t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("waited in vain for %s", what)
		}
	}
}

var once = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}

func (s *server) status() (st status) {
	s.t.Helper()
	r, err := once.Get("http://" + s.addr + "/")
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Body.Close()
	if err := json.NewDecoder(r.Body).Decode(&st); err != nil {
		s.t.Fatal(err)
	}
	return st
}

// waitVersion waits until a version answers.
func (s *server) waitVersion(version int) status {
	s.t.Helper()
	var st status
	s.until("version "+strconv.Itoa(version), func() bool { st = s.status(); return st.Version == version })
	return st
}

// waitGeneration waits until a generation answers.
func (s *server) waitGeneration(generation int) status {
	s.t.Helper()
	var st status
	s.until("generation "+strconv.Itoa(generation), func() bool { st = s.status(); return st.Generation >= generation })
	return st
}

func (s *server) post(path, body string) (string, error) {
	r, err := once.Post("http://"+s.addr+path, "text/plain", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	return string(text), err
}

// load sends requests until it is stopped, over kept and over new connections,
// without ever trying one again.
type load struct {
	wg   sync.WaitGroup
	stop chan struct{}
	mu   sync.Mutex
	sent int
	lost []error
}

func (s *server) load() *load {
	l := &load{stop: make(chan struct{})}
	for n := range 4 {
		l.wg.Go(func() {
			var c net.Conn
			for i := 0; ; i++ {
				select {
				case <-l.stop:
					if c != nil {
						c.Close()
					}
					return
				case <-time.After(time.Millisecond):
				}
				var err error
				var last bool
				if c == nil {
					if c, err = net.Dial("tcp", s.addr); err == nil {
						err = c.SetDeadline(time.Now().Add(30 * time.Second))
					}
				}
				if err == nil {
					last, err = roundTrip(c, fmt.Sprintf("%d-%d", n, i))
				}
				l.mu.Lock()
				l.sent++
				if err != nil {
					l.lost = append(l.lost, err)
				}
				l.mu.Unlock()
				if c != nil && (err != nil || last || n%2 == 0) {
					c.Close()
					c = nil
				}
			}
		})
	}
	return l
}

// roundTrip sends a request, and says whether the server closes the connection.
func roundTrip(c net.Conn, body string) (last bool, err error) {
	if _, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
		return false, err
	}
	var got []byte
	buf := make([]byte, 4096)
	for !strings.HasSuffix(string(got), " "+body) {
		n, err := c.Read(buf)
		if err != nil {
			return false, fmt.Errorf("after %q: %w", got, err)
		}
		got = append(got, buf[:n]...)
	}
	return strings.Contains(string(got), "\r\nConnection: close\r\n"), nil
}

// end stops the load and wants nothing lost.
func (l *load) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.wg.Wait()
	if len(l.lost) > 0 || l.sent == 0 {
		t.Errorf("%d of %d requests lost, want none of some: %v", len(l.lost), l.sent, l.lost[:min(len(l.lost), 5)])
	}
}
