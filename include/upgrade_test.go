package include_test

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A new file is executed in the same process, with the same connections, and
// nothing is lost; nor does anything pile up over the generations.
func TestUpgrades(t *testing.T) {
	t.Parallel()
	for _, s := range []struct{ name, compiler, source, std string }{
		{"c", "gcc", cServer, "-std=c99"},
		{"cpp", "g++", cppServer, "-std=c++11"},
	} {
		t.Run(s.name, func(t *testing.T) {
			dir := t.TempDir()
			one := compile(t, s.compiler, s.source, filepath.Join(dir, "one"), s.std, "-O2", version("1"))
			two := compile(t, s.compiler, s.source, filepath.Join(dir, "two"), s.std, "-O2", version("2"))
			path := filepath.Join(dir, "server")
			place(t, one, path)
			p := start(t, path)
			place(t, two, path)
			p.serves("2")
			// What is open when all connections are gone, seen alike twice.
			idle := func(most int) (n int) {
				p.Helper()
				p.wait("the end of all connections", func() bool {
					sockets, open, last := 0, p.fds(), n
					for _, to := range open {
						if strings.HasPrefix(to, "socket:") {
							sockets++
						}
					}
					n = len(open)
					return sockets == 1 && n == last && (most == 0 || n <= most)
				})
				return n
			}
			before := idle(0)
			l := startLoad(t, p.port, 12, 4)
			last := p.serves("2").generation
			const upgrades = 100
			for i := 0; i < upgrades; i++ {
				p.cmd.Process.Signal(syscall.SIGUSR2)
				p.wait("the next generation", func() bool {
					a, err := get(p.port)
					return err == nil && a.generation > last
				})
				last = p.serves("2").generation
			}
			place(t, one, path)
			p.serves("1")
			l.none(t)
			idle(before) // nothing has piled up
			pids := 0
			l.pids.Range(func(any, any) bool { pids++; return true })
			if pids != 1 {
				t.Errorf("%d processes answered, want 1", pids)
			}
			t.Logf("%d requests, %d generations", l.ok.Load(), last)
			p.cmd.Process.Signal(syscall.SIGTERM)
			if err := p.ended(); err != nil {
				t.Errorf("after SIGTERM: %v, want status 0", err)
			}
		})
	}
}

// Spawn: another process, and still nothing is lost.
func TestSpawn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "server")
	place(t, server(t, version("1")), path)
	p := start(t, path, "-S")
	l := startLoad(t, p.port, 8, 4)
	p.wait("requests", func() bool { return l.ok.Load() > 50 })
	place(t, server(t, version("2")), path)
	if err := p.ended(); err != nil {
		t.Errorf("the replaced process: %v, want status 0", err)
	}
	a, err := get(p.port)
	if err != nil || a.version != "2" || a.pid == p.cmd.Process.Pid {
		t.Fatalf("got %+v, %v, want version 2 in another process", a, err)
	}
	t.Cleanup(func() { syscall.Kill(a.pid, syscall.SIGKILL) })
	more := l.ok.Load() + 50
	for end := time.Now().Add(limit); l.ok.Load() < more && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	l.none(t)
}
