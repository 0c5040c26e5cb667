package reexec_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"moult.example/reexec"
)

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
		for string(body) == "held" && !needed() && r.Context().Err() == nil {
			note(c, "held request")
			time.Sleep(2 * time.Millisecond)
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
