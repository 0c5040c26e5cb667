// Command twin is the servers in C and C++ of examples/, in Go: the same
// arguments, answers and names of descriptors, so that each can take the place of
// another.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"moult.example/reexec"
	"moult.example/reexec/reexechttp"
)

var version = "go"

func main() {
	port := flag.String("p", "8080", "port on 127.0.0.1")
	flag.StringVar(port, "port", "8080", "the same")
	flag.Parse()
	p, err := reexec.Start(reexec.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer p.Guard()
	ln, err := p.ListenAs("tcp!:"+*port, "tcp", "127.0.0.1:"+*port)
	if err != nil {
		log.Fatal(p.Fail(err))
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err != nil {
			return
		}
		w.Header().Set("X-Version", version)
		w.Header().Set("X-Pid", strconv.Itoa(os.Getpid()))
		w.Header().Set("X-Generation", strconv.Itoa(p.Generation()))
		fmt.Fprintf(w, "%s %s", version, body)
	})}
	go reexechttp.Serve(p, srv, ln)
	if err := p.Ready(); err != nil {
		log.Print(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log.Print(p.Run(ctx))
}
