package reexec_test

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"moult.example/internal/testneed"
	"moult.example/reexec"
)

// place puts a file at a path in one step.
func place(t *testing.T, path string, data []byte, mode os.FileMode) {
	t.Helper()
	temp := path + ".place"
	syscall.ForkLock.RLock() // as in program
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(temp, data, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(temp, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(temp, path); err != nil {
		t.Fatal(err)
	}
}

// TestBroken: a successor that cannot run. The old code answers as soon as the
// failure is known, in the same PID, and the file is not tried again. How soon, the
// bench measures.
func TestBroken(t *testing.T) {
	t.Parallel()
	edit := func(f func(b []byte) []byte, mode os.FileMode) func(*testing.T, *server) {
		return func(t *testing.T, s *server) {
			b, err := os.ReadFile(s.exe)
			if err != nil {
				t.Fatal(err)
			}
			place(t, s.exe, f(b), mode)
		}
	}
	fails := func(how string) func(*testing.T, *server) {
		return func(t *testing.T, s *server) { program(t, s.exe, trailer{Version: 2, Fails: how}) }
	}
	const load, trial, rolledBack = "load", "trial", "rolled back"
	for _, test := range []struct {
		name, how string
		put       func(*testing.T, *server)
		want      string // in the reason
	}{
		{"not executable", load, edit(func(b []byte) []byte { return append(b, ' ') }, 0o644), "not executable"},
		{"another architecture", load, edit(func(b []byte) []byte { b[18] ^= 0x55; return b }, 0o755), "another machine"},
		{"truncated", load, edit(func(b []byte) []byte { return b[:len(b)/3] }, 0o755), ""},
		{"half of the header", load, edit(func(b []byte) []byte { return b[:30] }, 0o755), "damaged"},
		{"empty", load, edit(func([]byte) []byte { return nil }, 0o755), "empty"},
		{"a script", load, edit(func([]byte) []byte { return []byte("#!/bin/sh\nexit 0\n") }, 0o755), "not an ELF file"},
		{"set-user-id", load, edit(func(b []byte) []byte { return append(b, ' ') }, 0o755|os.ModeSetuid), "set-user-id"},
		{"without the library", load, edit(func([]byte) []byte {
			b, _ := os.ReadFile("/bin/true")
			return b
		}, 0o755), "does not contain"},
		{"exits before Start", load, fails("exit-early"), "exit status 3"},
		{"hangs before Start", load, fails("hang-early"), "no answer after"},
		{"exits", trial, fails("exit"), "exit status 3"},
		{"panics", trial, fails("panic"), "it panics"},
		{"segmentation fault", trial, fails("segv"), "SIGSEGV"},
		{"aborts", trial, fails("abort"), "signal: killed"},
		{"hangs", trial, fails("hang"), "no answer after"},
		{"hangs, without a trial", rolledBack, fails("hang"), "not ready after"},
		{"panics in main, without a trial", rolledBack, fails("guarded-panic"), "it panics"},
		{"ends, without a trial", rolledBack, fails("return"), "ended before it was ready"},
		{"cannot read the state", rolledBack, fails("state"), "cannot read the saved state"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := config{}
			// Where it hangs in a preflight the limit is for all versions, so it is long
			// enough for the one that comes after it, on a busy machine; that of a
			// trial is the sum of both.
			switch test.name {
			case "hangs before Start":
				c.Options.PreflightTimeout = 15 * time.Second
			case "hangs":
				c.Options.PreflightTimeout, c.Options.ReadyTimeout = time.Second, 15*time.Second
			}
			known := "event rejected "
			switch test.how {
			case trial:
				c.Options.Preflight = reexec.Trial
			case rolledBack:
				known = "event rolled-back "
			}
			s := startServer(t, c)
			pid := s.status().PID
			l := s.load()
			test.put(t, s)
			if line := s.wait(known); !strings.Contains(line, test.want) {
				t.Errorf("it says %q, want %q", line, test.want)
			}
			if got := s.status(); got.Version != 1 || got.PID != pid {
				t.Errorf("version %d in PID %d, want 1 in %d", got.Version, got.PID, pid)
			}
			if comm, err := os.ReadFile("/proc/" + itoa(pid) + "/comm"); err != nil || string(comm) != "server\n" {
				t.Errorf("the process is named %q (%v), want server", comm, err)
			}
			runs := func() int { return strings.Count(s.said(), " err=preflight: ") + len(s.lines("event rolled-back ")) }
			before := runs()
			// The same bytes once more, under another inode.
			changes := len(s.lines("event changed "))
			if b, err := os.ReadFile(s.exe); err == nil {
				st, _ := os.Stat(s.exe)
				place(t, s.exe, b, st.Mode())
			}
			s.waitN("event changed ", changes+1)
			// When the next version runs, what came before is dealt with.
			program(t, s.exe, trailer{Version: 3})
			if got := s.waitVersion(3); got.PID != pid {
				t.Errorf("PID %d, want %d", got.PID, pid)
			}
			if again := runs(); again != before {
				t.Errorf("the file was run %d times, and then %d times more, want none", before, again-before)
			}
			l.end(t)
		})
	}
}

// TestModeMended: chmod makes a file fit that was not.
func TestModeMended(t *testing.T) {
	t.Parallel()
	s := startServer(t, config{})
	program(t, s.exe+".new", trailer{Version: 2})
	os.Chmod(s.exe+".new", 0o644)
	os.Rename(s.exe+".new", s.exe)
	s.wait("event rejected ")
	os.Chmod(s.exe, 0o755)
	s.waitVersion(2)
}

// TestNoExec: the new file is on a file system from which nothing may be
// executed.
func TestNoExec(t *testing.T) {
	t.Parallel()
	testneed.Root(t)
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		os.Mkdir(filepath.Join(dir, name), 0o755)
	}
	if err := unix.Mount("tmpfs", filepath.Join(dir, "b"), "tmpfs", unix.MS_NOEXEC, ""); err != nil {
		testneed.Skip(t, "mount: "+err.Error())
	}
	t.Cleanup(func() { unix.Unmount(filepath.Join(dir, "b"), unix.MNT_DETACH) })
	program(t, filepath.Join(dir, "a/server"), trailer{Version: 1})
	program(t, filepath.Join(dir, "b/server"), trailer{Version: 2})
	link := filepath.Join(dir, "live")
	os.Symlink("a", link)
	s, c := newServer(t, config{})
	s.run(c, filepath.Join(link, "server"))
	os.Symlink("b", link+".new")
	os.Rename(link+".new", link)
	if line := s.wait("event rejected "); !strings.Contains(line, "not executable") && !strings.Contains(line, "noexec") {
		t.Errorf("it says %q, want noexec", line)
	}
	if got := s.status(); got.Generation != 0 {
		t.Errorf("generation %d, want 0", got.Generation)
	}
}

// TestMissingSymbol: a C program with the marker, whose library lacks what it
// calls: the loader finds that out in the preflight, not after the exec.
func TestMissingSymbol(t *testing.T) {
	t.Parallel()
	cc := testneed.Tool(t, "cc")
	dir := t.TempDir()
	write := func(name, text string) { os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644) }
	write("old.c", "int f(void) { return 1; }\n")
	write("new.c", "int g(void) { return 1; }\n")
	write("main.c", "int f(void);\nconst char mark[] = \"moult-reexec protocol 1 5b8f0d2c71e94a36\";\n"+
		"int main(int argc, char **argv) { return argc > 100 ? f() + mark[argc] : 0; }\n")
	lib := filepath.Join(dir, "libf.so")
	build := func(args ...string) {
		cmd := exec.Command(cc, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("cc: %v\n%s", err, out)
		}
	}
	build("-shared", "-fPIC", "-o", lib, "old.c")
	build("-o", "main", "main.c", lib)
	build("-shared", "-fPIC", "-o", lib, "new.c")
	s := startServer(t, config{})
	b, err := os.ReadFile(filepath.Join(dir, "main"))
	if err != nil || !bytes.Contains(b, []byte("protocol 1")) {
		t.Fatalf("main: %v", err)
	}
	place(t, s.exe, b, 0o755)
	if line := s.wait("event rejected "); !strings.Contains(line, "symbol") {
		t.Errorf("it says %q, want the missing symbol", line)
	}
	if got := s.status(); got.Generation != 0 {
		t.Errorf("generation %d, want 0", got.Generation)
	}
}

// TestLibraries: a shared library of the program is replaced: by one that lacks
// a symbol, because the other half of the update is not there yet, and then by a
// whole one.
func TestLibraries(t *testing.T) {
	t.Parallel()
	lib := filepath.Join(t.TempDir(), "libf.so")
	build := func(text string) {
		t.Helper()
		library(t, lib, text)
	}
	build("int f(void) { return 1; }\n")
	s, c := newServer(t, config{})
	s.env = []string{"LD_PRELOAD=" + lib}
	s.run(c, s.exe)
	build("int g_of_the_other_half(void);\nint f(void) { return g_of_the_other_half(); }\n")
	if line := s.wait("event rejected "); !strings.Contains(line, "g_of_the_other_half") {
		t.Errorf("it says %q, want the missing symbol", line)
	}
	if got := s.status(); got.Generation != 0 {
		t.Errorf("generation %d, want 0", got.Generation)
	}
	build("int f(void) { return 2; }\n")
	s.waitGeneration(1)
	if line := s.wait("event changed "); !strings.HasSuffix(line, "path="+lib) {
		t.Errorf("it says %q, want the library", line)
	}
}

// TestLibraryOfGeneration: a link is turned to a generation with the same
// executable, as a hard link, and another library.
func TestLibraryOfGeneration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for n, name := range []string{"41", "42"} {
		os.MkdirAll(filepath.Join(dir, name, "bin"), 0o755)
		os.MkdirAll(filepath.Join(dir, name, "lib"), 0o755)
		library(t, filepath.Join(dir, name, "lib/libf.so"), "int f(void) { return "+itoa(n)+"; }\n")
	}
	program(t, filepath.Join(dir, "41/bin/server"), trailer{Version: 1})
	os.Link(filepath.Join(dir, "41/bin/server"), filepath.Join(dir, "42/bin/server"))
	live := filepath.Join(dir, "live")
	os.Symlink("41", live)
	s, c := newServer(t, config{})
	s.env = []string{"LD_PRELOAD=" + filepath.Join(live, "lib/libf.so")}
	s.run(c, filepath.Join(live, "bin/server"))
	os.Symlink("42", live+".new")
	os.Rename(live+".new", live)
	s.waitGeneration(1)
	maps, err := os.ReadFile("/proc/" + itoa(s.cmd.Process.Pid) + "/maps")
	if err != nil || !bytes.Contains(maps, []byte(dir+"/42/lib/libf.so")) || bytes.Contains(maps, []byte(dir+"/41/")) {
		t.Errorf("it maps (%v)\n%s, want the library of 42, and nothing of 41", err, maps)
	}
}

// library builds a shared library and puts it at the path in one step.
func library(t *testing.T, path, text string) {
	t.Helper()
	cc := testneed.Tool(t, "cc")
	if f, err := elf.Open("/proc/self/exe"); err != nil || f.Section(".interp") == nil {
		testneed.Skip(t, "needs cgo: a static program has no libraries")
	}
	if err := os.WriteFile(path+".c", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(cc, "-shared", "-fPIC", "-o", path+".new", path+".c")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// TestCrashesLater: a version that ends after it was ready. When it has done so
// three times, the last good version runs again.
func TestCrashesLater(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	os.Chmod(state, 0o700)
	s, c := newServer(t, config{Addr: "127.0.0.1:" + itoa(testneed.Port(t)), Options: reexec.Options{StateDir: state, Probation: 100 * time.Millisecond}})
	s.run(c, s.exe)
	s.until("the first version to be good", func() bool {
		text, _ := os.ReadFile(filepath.Join(state, "reexec.json"))
		return strings.Contains(string(text), `"good"`)
	})
	program(t, s.exe, trailer{Version: 2, Fails: "crash-later"})
	<-s.end
	// As a service manager does it.
	for n := 2; n <= 3; n++ {
		s.run(c, s.exe)
		<-s.end
	}
	s.run(c, s.exe)
	if got := s.waitVersion(1); got.PID != s.cmd.Process.Pid {
		t.Errorf("PID %d, want %d", got.PID, s.cmd.Process.Pid)
	}
	if n := len(s.lines("serving version=2")); n != 3 {
		t.Errorf("version 2 served %d times, want 3", n)
	}
	if line := s.wait("event rolled-back version=1"); !strings.Contains(line, "started 3 times") {
		t.Errorf("it says %q, want the reason", line)
	}
	// It is known from now on: also to the next start.
	s.cmd.Process.Kill()
	<-s.end
	before := len(s.lines("serving version=2"))
	s.run(c, s.exe)
	s.waitVersion(1)
	if n := len(s.lines("serving version=2")); n != before {
		t.Errorf("version 2 served %d times more, want none", n-before)
	}
	program(t, s.exe, trailer{Version: 3})
	s.waitVersion(3)
}
