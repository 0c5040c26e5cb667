package reexec_test

import (
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

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

// limit is how long a test waits for what must come.
const limit = 5 * time.Minute

// until waits for a condition.
func (s *server) until(what string, is func() bool) {
	s.t.Helper()
	for end := time.Now().Add(limit); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("waited in vain for %s", what)
		}
	}
}

var once = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: limit}

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
