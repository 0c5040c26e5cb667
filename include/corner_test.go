package include_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"moult.example/internal/testneed"
)

// A storm of signals, one in a millisecond, during fifty upgrades.
func TestStorm(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "server")
	place(t, server(t, version("1")), path)
	p := start(t, path)
	stop, done := make(chan bool), make(chan bool)
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				syscall.Kill(p.cmd.Process.Pid, syscall.SIGHUP)
			}
		}
	}()
	for i := 1; i <= 50; i++ {
		syscall.Kill(p.cmd.Process.Pid, syscall.SIGUSR2)
		p.wait("a generation", func() bool { a, err := get(p.port); return err == nil && a.generation >= i })
	}
	close(stop)
	<-done
	p.serves("1")
}

// A second replacement while the first one waits for a slow request.
func TestTwiceDuringDrain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "server")
	slow := compile(t, "g++", cppServer, filepath.Join(dir, "slow"), "-std=c++11", "-O0", version("1"))
	place(t, slow, path)
	p := start(t, path, "-d", "600")
	c, err := dial(p.port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	done := make(chan answer, 1)
	go func() { a, _ := c.post("slow"); done <- a }()
	time.Sleep(100 * time.Millisecond)
	place(t, compile(t, "g++", cppServer, filepath.Join(dir, "two"), "-std=c++11", "-O0", version("2")), path)
	syscall.Kill(p.cmd.Process.Pid, syscall.SIGUSR2)
	place(t, compile(t, "g++", cppServer, filepath.Join(dir, "three"), "-std=c++11", "-O0", version("3")), path)
	syscall.Kill(p.cmd.Process.Pid, syscall.SIGUSR2)
	p.serves("3")
	if a := <-done; a.body != "slow" {
		t.Errorf("the request under way: got %+v, want its body", a)
	}
	if a, err := c.post("again"); err != nil || a.version != "3" {
		t.Errorf("on the old connection: got %+v, %v, want version 3", a, err)
	}
}

// As PID 1 of a container, which no signal ends by default.
func TestFirstProcess(t *testing.T) {
	t.Parallel()
	testneed.Root(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "server")
	bad := compile(t, "gcc", cServer, filepath.Join(dir, "bad"), "-std=gnu99", "-w", "-DBROKEN=abort()")
	place(t, server(t, version("1")), path)
	port := testneed.Port(t)
	cmd := exec.Command("/bin/sh", "-c", `mount -t proc proc /proc && exec "$0" -p "$1"`, path, itoa(port))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS}
	p := runCommand(t, cmd)
	serves := func(version string) {
		t.Helper()
		p.wait("version "+version+" as process 1", func() bool {
			a, err := get(port)
			return err == nil && a.version == version && a.pid == 1
		})
	}
	serves("1")
	place(t, server(t, version("2")), path)
	serves("2")
	place(t, bad, path)
	p.says("taken back: aborted")
	serves("2")
}

// In a chroot without /proc, /dev and a shell.
func TestChroot(t *testing.T) {
	t.Parallel()
	testneed.Root(t)
	dir := t.TempDir()
	flags := []string{"-std=gnu99", "-w", "-static"}
	place(t, compile(t, "gcc", cServer, filepath.Join(dir, "one"), append(flags, version("1"))...), filepath.Join(dir, "server"))
	two := compile(t, "gcc", cServer, filepath.Join(dir, "two"), append(flags, version("2"))...)
	bad := compile(t, "gcc", cServer, filepath.Join(dir, "bad"), append(flags, "-DBROKEN=abort()")...)
	port := testneed.Port(t)
	cmd := exec.Command("/server", "-p", itoa(port))
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: dir}
	c := runIn(t, cmd, "/")
	c.port = port
	c.serves("1")
	place(t, bad, filepath.Join(dir, "server"))
	c.says("taken back: aborted")
	c.serves("1")
	place(t, two, filepath.Join(dir, "server"))
	c.serves("2")
}

// A process that dropped root: replaced as what it is now.
func TestDroppedRoot(t *testing.T) {
	t.Parallel()
	testneed.Root(t)
	dir := t.TempDir()
	drop := `-DBROKEN=if (geteuid() == 0) { if (moult_generation() > 0 || setgid(65534) || setuid(65534)) return 9; }`
	path := filepath.Join(dir, "server")
	place(t, compile(t, "gcc", cServer, filepath.Join(dir, "one"), "-std=gnu99", "-w", drop, version("1")), path)
	two := compile(t, "gcc", cServer, filepath.Join(dir, "two"), "-std=gnu99", "-w", drop, version("2"))
	openUp(t, dir)
	p := start(t, path)
	place(t, two, path)
	p.serves("2")
	var st syscall.Stat_t
	if err := syscall.Stat(fmt.Sprintf("/proc/%d", p.cmd.Process.Pid), &st); err != nil || st.Uid != 65534 {
		t.Errorf("it runs as %d, %v, want 65534", st.Uid, err)
	}
	place(t, compile(t, "gcc", cServer, filepath.Join(dir, "bad"), "-std=gnu99", "-w", "-DBROKEN=abort()"), path)
	p.says("taken back")
	p.serves("2")
}

// openUp lets others through to a directory of the tests.
func openUp(t testing.TB, dir string) {
	t.Helper()
	for d := dir; d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		os.Chmod(d, 0o755)
	}
}

// A set-user-id program: it serves, believes no variable, and is not replaced.
func TestSetuid(t *testing.T) {
	t.Parallel()
	testneed.Root(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "server")
	place(t, server(t, version("1")), path)
	os.Chmod(path, 0o755|os.ModeSetuid)
	openUp(t, dir)
	port := testneed.Port(t)
	cmd := exec.Command(path, "-p", itoa(port))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	cmd.Env = append(os.Environ(), "MOULT_PREFLIGHT=0123456789abcdef", "MOULT_FD=3")
	p := runCommand(t, cmd)
	p.port = port
	p.says("cannot be replaced")
	p.serves("1")
	place(t, server(t, version("2")), path)
	time.Sleep(300 * time.Millisecond)
	if a := p.serves("1"); a.generation != 0 {
		t.Errorf("generation %d, want 0", a.generation)
	}
}

// A trial finds what fails on the way to ready, and nothing is let go.
func TestTrial(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "server")
	bad := compile(t, "gcc", cServer, filepath.Join(dir, "bad"), "-std=gnu99", "-w", `-DBROKEN=if (moult_trial()) abort()`, version("bad"))
	place(t, server(t, version("1")), path)
	p := start(t, path, "-t")
	place(t, bad, path)
	p.says("its preflight ended by signal 6")
	if a := p.serves("1"); a.generation != 0 {
		t.Errorf("generation %d, want 0", a.generation)
	}
	place(t, server(t, version("2")), path)
	p.serves("2")
}

// What a trial has started ends with it, before the new code runs.
func TestTrialForks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "server")
	two := compile(t, "gcc", cServer, filepath.Join(dir, "two"), "-std=gnu99", "-w",
		`-DBROKEN=if (moult_trial() && fork() == 0) for (;;) pause()`, version("2"))
	place(t, server(t, version("1")), path)
	p := start(t, path, "-t")
	place(t, two, path)
	p.serves("2")
	p.wait("end of what the trial has started", func() bool {
		others := 0
		links, _ := filepath.Glob("/proc/[0-9]*/exe")
		for _, link := range links {
			if exe, err := os.Readlink(link); err == nil && strings.HasPrefix(exe, path) && link != fmt.Sprintf("/proc/%d/exe", p.cmd.Process.Pid) {
				others++
			}
		}
		return others == 0
	})
}

// A trial ends with the process that tries: it holds the sockets, and the next
// start could not listen.
func TestTrialOrphan(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "server")
	hangs := compile(t, "gcc", cServer, filepath.Join(dir, "hangs"), "-std=gnu99", "-w", `-DBROKEN=for (;;) pause()`)
	place(t, server(t, version("1")), path)
	p := start(t, path, "-t")
	place(t, hangs, path)
	children := fmt.Sprintf("/proc/%d/task/%[1]d/children", p.cmd.Process.Pid)
	p.wait("trial", func() bool { text, _ := os.ReadFile(children); return len(text) > 0 })
	p.cmd.Process.Kill()
	p.ended()
	place(t, server(t, version("2")), path)
	for end := time.Now().Add(limit); ; time.Sleep(2 * time.Millisecond) {
		ln, err := net.Listen("tcp", "127.0.0.1:"+itoa(p.port))
		if err == nil {
			ln.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the port is not free: %v", err)
		}
	}
}

// New code that has used up all descriptors is taken back all the same.
func TestRollBackWithoutDescriptors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "server")
	place(t, server(t, version("1")), path)
	port := testneed.Port(t)
	p := runCommand(t, exec.Command("/bin/sh", "-c", `ulimit -n 100; exec "$0" -p "$1"`, path, itoa(port)))
	p.port = port
	p.serves("1")
	place(t, compile(t, "gcc", cServer, filepath.Join(dir, "bad"), "-std=gnu99", "-w", "-DBROKEN=while (dup(0) >= 0); abort()"), path)
	p.says("taken back")
	p.serves("1")
}

// Under sanitizers, with either compiler, an upgrade and a rollback say nothing.
func TestSanitizers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ compiler, source, std string }{
		{"gcc", cServer, "-std=c99"}, {"clang++", cppServer, "-std=c++20"},
	} {
		t.Run(c.compiler, func(t *testing.T) {
			dir := t.TempDir()
			flags := []string{c.std, "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"}
			one := compile(t, c.compiler, c.source, filepath.Join(dir, "one"), append(flags, version("1"))...)
			two := compile(t, c.compiler, c.source, filepath.Join(dir, "two"), append(flags, version("2"))...)
			bad := compile(t, c.compiler, c.source, filepath.Join(dir, "bad"), append(flags, "-DBROKEN=abort()", version("bad"))...)
			path := filepath.Join(dir, "server")
			place(t, one, path)
			p := start(t, path)
			l := startLoad(t, p.port, 4, 2)
			for i := 0; i < 2; i++ {
				place(t, two, path)
				p.serves("2")
				place(t, one, path)
				p.serves("1")
			}
			place(t, bad, path)
			p.says("taken back")
			p.serves("1")
			l.none(t)
			p.cmd.Process.Signal(syscall.SIGTERM)
			if err := p.ended(); err != nil {
				t.Errorf("its end: %v, want status 0", err)
			}
			if out := p.out.String(); strings.Contains(out, "runtime error") || strings.Contains(out, "Sanitizer: ") {
				t.Errorf("a sanitizer spoke:\n%s", out)
			}
		})
	}
}

// The header and the examples compile without a warning, in every language that
// is promised.
func TestCompiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	user := filepath.Join(dir, "user.c")
	os.WriteFile(user, []byte(`#include <stdio.h>
#include "moult.h"
int user(void);
int user(void) { return moult_generation(); }
`), 0o644)
	for i, c := range []struct{ compiler, std, source string }{
		{"gcc", "-std=c99", cServer}, {"clang", "-std=c99", cServer}, {"gcc", "-std=c17", cServer}, {"musl-gcc", "-std=c99", cServer},
		{"g++", "-std=c++11", cppServer}, {"g++", "-std=c++20", cppServer}, {"clang++", "-std=c++11", cppServer},
	} {
		compile(t, c.compiler, c.source, filepath.Join(dir, itoa(i)), append([]string{c.std, "-O1"}, strict...)...)
	}
	compile(t, "gcc", user, filepath.Join(dir, "c.o"), append([]string{"-std=c99", "-c"}, strict...)...)
	compile(t, "g++", user, filepath.Join(dir, "cc.o"), append([]string{"-std=c++11", "-c", "-x", "c++"}, strict...)...)
}
