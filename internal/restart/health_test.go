package restart

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/testneed"
)

func probe(t *testing.T, text string) Probe {
	t.Helper()
	p, err := ParseProbe(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestParseProbe(t *testing.T) {
	for text, want := range map[string]string{
		"tcp:localhost:80": "tcp localhost:80", "tcp:[::1]:8080": "tcp [::1]:8080",
		"http://localhost/x": "http localhost:80", "https://h:8443": "https h:8443", "http://[::1]/": "http [::1]:80",
		"curl -sf localhost": "command ", "nc -z localhost:80": "command ", "tcptest": "command ", "httpcheck http://x": "command ",
	} {
		if p := probe(t, text); p.kind+" "+p.addr != want || p.String() != text {
			t.Errorf("%q: got %s %s (%s), want %s", text, p.kind, p.addr, p, want)
		}
	}
	for _, text := range []string{"", " ", "tcp:80", "tcp:localhost", "tcp:localhost:0", "tcp:localhost:http", "http:", "http://", "http://:80", "https://a b/", "a\x00b", "localhost:8080"} {
		if p, err := ParseProbe(text); err == nil {
			t.Errorf("%q: got %+v, want an error", text, p)
		}
	}
}

// TestProbes asks what is well and what is not, over each way.
func TestProbes(t *testing.T) {
	status := 200
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RequestURI() != "/health?full=1" {
			t.Errorf("asked for %s", r.URL.RequestURI())
		}
		w.WriteHeader(status)
	}))
	defer web.Close()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	addr := strings.TrimPrefix(web.URL, "http://")
	closed := fmt.Sprintf("127.0.0.1:%d", testneed.Port(t)) // nobody listens there
	talker := speaker(t, "SSH-2.0-OpenSSH\r\n")
	for _, test := range []struct {
		probe  string
		status int
		want   string // part of the error; "" is well
	}{
		{"tcp:" + addr, 200, ""},
		{"tcp:" + closed, 200, "connection refused"},
		{web.URL + "/health?full=1", 200, ""},
		{web.URL + "/health?full=1", 302, ""},
		{web.URL + "/health?full=1", 404, `"404 Not Found"`},
		{web.URL + "/health?full=1", 503, `"503 Service Unavailable"`},
		{"http://" + talker + "/", 200, "not HTTP"},
		{"http://" + speaker(t, strings.Repeat("x", 10000)) + "/", 200, "no answer"},
		{"http://" + speaker(t, "") + "/", 200, "no answer"},
		{secure.URL + "/", 200, "certificate"},
		{"true", 200, ""},
		{"echo not yet >&2; exit 3", 200, "exit status 3: not yet"},
		{"seq 1 100000; exit 1", 200, "exit status 1"}, // more than is kept
	} {
		status = test.status
		err := probe(t, test.probe).Try(t.Context())
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %v, want %q", test.probe, err, test.want)
		}
	}
}

// speaker is a server that says one thing and hangs up.
func speaker(t *testing.T, text string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, text)
			conn.Close()
		}
	}()
	return l.Addr().String()
}

// TestHealthRetries wants a service that needs some tries to be found well, one
// that hangs to be given up, and the command of a probe to be killed.
func TestHealthRetries(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "tries")
	good := probe(t, fmt.Sprintf("echo >> %s; test $(wc -l < %[1]s) -ge 3", file))
	all, healthy := CheckHealth(t.Context(), []Probe{good}, limit)
	if !healthy || all[0].Tries != 3 || all[0].Error != "" {
		t.Errorf("got %+v, want well at the third try", all)
	}
	hang, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer hang.Close()
	pidFile := filepath.Join(dir, "pid")
	all, healthy = CheckHealth(t.Context(), []Probe{
		probe(t, "http://"+hang.Addr().String()), probe(t, "sleep 1000 & echo $! > "+pidFile+"; wait"), probe(t, "true"),
	}, inVain(t))
	if healthy || all[0].Error != "no answer in time" || all[1].Error != "not done in time, killed" || !all[2].OK {
		t.Errorf("got %+v, want two that are not well in time", all)
	}
	pid, _ := os.ReadFile(pidFile)
	eventually(t, "what the probe has started to end", func() bool {
		return !alive(strings.TrimSpace(string(pid)))
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, healthy = CheckHealth(ctx, []Probe{probe(t, "sleep 100")}, time.Minute); healthy {
		t.Error("well, although nobody was asked")
	}
}

// TestCommandOutput wants a daemon that a command leaves behind to live on when
// it says something.
func TestCommandOutput(t *testing.T) {
	done := filepath.Join(t.TempDir(), "done")
	p := probe(t, "(sleep 0.2; echo late; echo late >&2; echo ok > "+done+") & true")
	if err := p.Try(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the daemon to finish", func() bool {
		text, _ := os.ReadFile(done)
		return string(text) == "ok\n"
	})
}

// alive says that a process is there, and no zombie that nobody waits for.
func alive(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// A command that was asked how things are does not outlive a moult that was
// killed.
func TestProbeEndsWithUs(t *testing.T) {
	told := filepath.Join(t.TempDir(), "pid")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "MOULT_TEST_PROBE=echo $$ > "+told+".new && mv "+told+".new "+told+" && exec sleep 600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	var pid int
	soon(t, "the probe runs", func() bool {
		text, err := os.ReadFile(told)
		pid, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil && pid > 0
	})
	held, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(held)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if soon := []unix.PollFd{{Fd: int32(held), Events: unix.POLLIN}}; !polled(soon) {
		unix.PidfdSendSignal(held, unix.SIGKILL, nil, 0)
		t.Error("the command of a probe runs on")
	}
}

// soon waits until something holds.
func soon(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in time: " + what)
		}
	}
}

// polled says that a descriptor has something to tell, within a minute.
func polled(fds []unix.PollFd) bool {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if n, err := unix.Poll(fds, 1000); n > 0 && err == nil {
			return true
		}
	}
	return false
}
