package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"moult.example/internal/reexecload"
)

// The servers that people replace without a pause today, with settings that
// favour them: no log, no limit on the requests of a connection, idle
// connections kept longer than the bench takes.

const nginxConfig = `pid %[1]s/nginx.pid;
error_log %[1]s/error.log crit;
worker_processes 2;
%[3]s
events { worker_connections 1024; }
http {
	access_log off;
	keepalive_timeout 600s;
	keepalive_requests 100000000;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	server {
		listen %[2]s backlog=4096;
		location / { return 200 "ok $pid"; }
	}
}
`

const haproxyConfig = `global
	stats socket %[1]s/stats level admin expose-fd listeners
	maxconn 1024
	nbthread 2
defaults
	mode http
	timeout connect 600s
	timeout client 600s
	timeout server 600s
	timeout http-keep-alive 600s
	%[3]s
frontend bench
	bind %[2]s backlog 4096
	http-request return status 200 content-type text/plain lf-string "ok %%pid"
`

// startNginx starts nginx, which is upgraded by SIGUSR2 to the old master, which
// starts the new one, and SIGQUIT to it when the new one serves.
func (b *bench) startNginx(ctx context.Context) (*reexecload.Server, error) {
	dir, port, err := b.serverPlace("nginx")
	if err != nil {
		return nil, err
	}
	addr := "127.0.0.1:" + strconv.Itoa(port)
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // the one that the package has made may not exist
	}
	config := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, nginxConfig, dir, addr, user), 0o644); err != nil {
		return nil, err
	}
	program, err := exec.LookPath("nginx") // it executes itself by the name it was called by
	if err != nil {
		return nil, err
	}
	if text, err := b.command(ctx, program, "-p", dir, "-c", config).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("start nginx: %w\n%s", err, text)
	}
	pidFile := filepath.Join(dir, "nginx.pid")
	s := &reexecload.Server{Name: "nginx, USR2 and QUIT", Addr: addr, Check: wantOK}
	s.Stop = func() {
		if pid := readPID(pidFile); pid > 0 {
			syscall.Kill(pid, syscall.SIGTERM)
			until(func() bool { return !alive(pid) })
		}
	}
	s.Upgrade = func(int) error {
		old := readPID(pidFile)
		if old <= 0 {
			return errors.New("nginx has no PID file")
		}
		if err := syscall.Kill(old, syscall.SIGUSR2); err != nil {
			return err
		}
		// Until a worker of the new master has answered; the old ones still do.
		served := func() bool {
			a, err := s.Ask()
			if err != nil {
				return false
			}
			worker, _ := strconv.Atoi(strings.TrimPrefix(string(a.Body), "ok "))
			_, master := stat(worker)
			return master != old && master == readPID(pidFile)
		}
		if !until(served) {
			return errors.New("the new nginx does not come up")
		}
		if err := syscall.Kill(old, syscall.SIGQUIT); err != nil {
			return err
		}
		if !until(func() bool { return !alive(old) }) {
			return errors.New("the old nginx does not end")
		}
		return nil
	}
	return s, s.Await(ctx)
}

// startHAProxy starts HAProxy with a master, which SIGUSR2 makes execute itself
// and start a new worker.
func (b *bench) startHAProxy(ctx context.Context, name, option string) (*reexecload.Server, error) {
	dir, port, err := b.serverPlace("haproxy")
	if err != nil {
		return nil, err
	}
	addr := "127.0.0.1:" + strconv.Itoa(port)
	config := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(config, fmt.Appendf(nil, haproxyConfig, dir, addr, option), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.Command("haproxy", "-W", "-q", "-f", config)
	cmd.Env, cmd.Dir = b.env, dir
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start haproxy: %w", err)
	}
	s := &reexecload.Server{Name: name, Addr: addr, Check: wantOK}
	s.Stop = func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	}
	// A worker that has served an answer is known by its PID. A signal that comes
	// while the master still executes itself is forgotten: it is sent again.
	var mu sync.Mutex
	var sent time.Time
	known := map[string]bool{}
	reload := func() error {
		sent = time.Now()
		return cmd.Process.Signal(syscall.SIGUSR2)
	}
	s.Upgrade = func(int) error {
		mu.Lock()
		defer mu.Unlock()
		return reload()
	}
	s.Upgraded = func(n int, a reexecload.Answer) bool {
		mu.Lock()
		defer mu.Unlock()
		fresh := !known[string(a.Body)] && len(known) >= n
		known[string(a.Body)] = true
		if !fresh && time.Since(sent) > time.Second {
			reload()
		}
		return fresh
	}
	if err := s.Await(ctx); err != nil {
		s.Stop()
		return nil, err
	}
	a, err := s.Ask()
	known[string(a.Body)] = true
	return s, err
}

// serverPlace is a directory, and a port of 127.0.0.1 where nobody listens.
func (b *bench) serverPlace(name string) (dir string, port int, err error) {
	if dir, err = os.MkdirTemp(b.dir, name+"-"); err != nil {
		return "", 0, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", 0, err
	}
	return dir, ln.Addr().(*net.TCPAddr).Port, ln.Close()
}

// wantOK wants "ok" and the PID of the worker that answers.
func wantOK(_ []byte, a reexecload.Answer) error {
	if a.Status != 200 || !strings.HasPrefix(string(a.Body), "ok ") {
		return fmt.Errorf("status %d, body %.40q, want ok", a.Status, a.Body)
	}
	return nil
}

func readPID(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return pid
}

// stat reads the state and the parent of a process; "" if it is gone. One that
// has ended, and that nobody has waited for, is in state Z.
func stat(pid int) (state string, parent int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0
	}
	_, after, _ := strings.Cut(string(text), ") ")
	fmt.Sscan(after, &state, &parent)
	return state, parent
}

func alive(pid int) bool {
	state, _ := stat(pid)
	return state != "" && state != "Z"
}

// until waits up to ten seconds for a condition.
func until(holds func() bool) bool {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if holds() {
			return true
		}
	}
	return false
}
