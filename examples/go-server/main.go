// Command go-server is an HTTP server that replaces itself: build it anew over
// the running one, or send SIGUSR2, and no request is lost.
//
//	go build -o /tmp/go-server ./examples/go-server && /tmp/go-server -addr 127.0.0.1:8080 &
//	curl -d hello http://127.0.0.1:8080/
//	go build -ldflags '-X main.version=2' -o /tmp/new ./examples/go-server && mv /tmp/new /tmp/go-server
//	curl -d hello http://127.0.0.1:8080/
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"moult.example/reexec"
	"moult.example/reexec/reexechttp"
)

// version is set when the program is built: -ldflags '-X main.version=2'.
var version = "1"

var (
	addr      = flag.String("addr", "127.0.0.1:8080", "address to listen on")
	poll      = flag.Duration("poll", 0, "time between two looks at the executable (0: 2s, negative: never)")
	settle    = flag.Duration("settle", 0, "how long a new executable has to be unchanged (0: 500ms)")
	preflight = flag.String("preflight", "load", "how a new executable is tried: load, trial or none")
	spawn     = flag.Bool("spawn", false, "start the new executable as another process")
	state     = flag.String("state", "", "directory of the boot counter")
	work      = flag.Duration("work", 0, "how long each request takes")
	quiet     = flag.Bool("quiet", false, "do not log events")
)

func main() {
	flag.Parse()
	p, err := reexec.Start(reexec.Options{
		Poll: *poll, Settle: *settle, StateDir: *state, Mode: mode(), Preflight: trial(), OnEvent: report,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer p.Guard()
	ln, err := p.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(p.Fail(err))
	}

	// What the program counts is handed over as well.
	var served atomic.Int64
	if n, err := strconv.ParseInt(string(p.Load("served")), 10, 64); err == nil {
		served.Store(n)
	}
	p.BeforeExec(func(context.Context) error {
		p.Save("served", strconv.AppendInt(nil, served.Load(), 10))
		return nil
	})

	mux := http.NewServeMux()
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err != nil {
			return // the client is gone
		}
		time.Sleep(*work)
		served.Add(1)
		fmt.Fprintf(w, "version=%s pid=%d generation=%d body=%s\n", version, os.Getpid(), p.Generation(), body)
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { status(w, p, served.Load()) })
	go reexechttp.Serve(p, &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}, ln)

	if err := p.Ready(); err != nil {
		log.Print(err)
	}
	fmt.Printf("ready version=%s pid=%d generation=%d addr=%s\n", version, os.Getpid(), p.Generation(), ln.Addr())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log.Print(p.Run(ctx))
}

// status tells a test what it wants to know.
func status(w io.Writer, p *reexec.Process, served int64) {
	fds, _ := os.ReadDir("/proc/self/fd")
	var gap time.Duration
	if g := lastGap.Load(); g != nil {
		gap = *g
	}
	json.NewEncoder(w).Encode(map[string]any{
		"version": version, "pid": os.Getpid(), "generation": p.Generation(), "fds": len(fds), "served": served,
		"gap_us": gap.Microseconds(),
	})
}

var lastGap atomic.Pointer[time.Duration]

func report(e reexec.Event) {
	if e.Kind == reexec.Readied {
		lastGap.Store(&e.Gap)
	}
	if *quiet {
		return
	}
	log.Printf("reexec: %s generation=%d path=%s gap=%v err=%v", e.Kind, e.Generation, e.Path, e.Gap, e.Err)
}

func mode() reexec.Mode {
	if *spawn {
		return reexec.Spawn
	}
	return reexec.InPlace
}

func trial() reexec.Preflight {
	return map[string]reexec.Preflight{"load": reexec.Load, "trial": reexec.Trial, "none": reexec.None}[*preflight]
}
