// Command naive is a server that replaces itself as many do: execve(2) with the
// listener, after Shutdown, or at once if its second argument says so. It is here
// to be seen losing requests.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	generation, _ := strconv.Atoi(os.Getenv("NAIVE_GENERATION"))
	var ln net.Listener
	var err error
	if fd, isSet := os.LookupEnv("NAIVE_FD"); isSet {
		n, _ := strconv.Atoi(fd)
		ln, err = net.FileListener(os.NewFile(uintptr(n), "listener"))
	} else {
		ln, err = net.Listen("tcp", os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	atOnce := os.Args[2] == "at once"
	upgrade := make(chan os.Signal, 1)
	signal.Notify(upgrade, syscall.SIGUSR2)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if atOnce {
			time.Sleep(3 * time.Millisecond) // or hardly any would be under way
		}
		w.Header().Set("Generation", strconv.Itoa(generation))
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Write(body)
	})}
	fmt.Println(ln.Addr())
	go srv.Serve(ln)
	<-upgrade
	if !atOnce {
		srv.Shutdown(context.Background())
	}
	fd := int(f.Fd())
	if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_SETFD, 0); errno != 0 {
		os.Exit(1)
	}
	os.Setenv("NAIVE_FD", strconv.Itoa(fd))
	os.Setenv("NAIVE_GENERATION", strconv.Itoa(generation+1))
	syscall.Exec("/proc/self/exe", os.Args, os.Environ())
}
