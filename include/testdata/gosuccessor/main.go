// Command gosuccessor takes the place of the C server, or gives it back.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	"moult.example/reexec"
	"moult.example/reexec/reexechttp"
)

func main() {
	p, err := reexec.Start(reexec.Options{Poll: 50 * time.Millisecond, Settle: 100 * time.Millisecond,
		OnEvent: func(e reexec.Event) { log.Printf("%s %v", e.Kind, e.Err) }})
	if err != nil {
		log.Fatal(err)
	}
	defer p.Guard()
	port := os.Args[2]
	ln, err := p.ListenAs("tcp!:"+port, "tcp", "127.0.0.1:"+port)
	if err != nil {
		log.Fatal(p.Fail(err))
	}
	if fault, _ := os.ReadFile("gofault"); strings.HasPrefix(string(fault), "1") {
		log.Fatal(p.Fail(errors.New("no use for it")))
	}
	handler := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Pid", fmt.Sprint(os.Getpid()))
		w.Header().Set("X-Generation", fmt.Sprint(p.Generation()))
		fmt.Fprintf(w, "go %s", body)
	}
	go reexechttp.Serve(p, &http.Server{Handler: http.HandlerFunc(handler)}, ln)
	if err := p.Ready(); err != nil {
		log.Fatal(err)
	}
	log.Fatal(p.Run(context.Background()))
}
