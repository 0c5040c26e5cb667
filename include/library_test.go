package include_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// library compiles a library that says a version, and needs another one to do so.
func library(t testing.TB, dir, version string) {
	t.Helper()
	one, two := filepath.Join(dir, "one.c"), filepath.Join(dir, "two.c")
	os.MkdirAll(dir, 0o755)
	os.WriteFile(one, []byte(fmt.Sprintf("extern const char *two_%[1]s(void);\nconst char *lib_version(void) { return two_%[1]s(); }\n", version)), 0o644)
	os.WriteFile(two, []byte(fmt.Sprintf("const char *two_%[1]s(void) { return \"%[1]s\"; }\n", version)), 0o644)
	compile(t, "gcc", two, filepath.Join(dir, "libtwo.so"), "-shared", "-fPIC", "-Wl,--build-id", "-Wl,-soname,libtwo.so")
	compile(t, "gcc", one, filepath.Join(dir, "libone.so"), "-shared", "-fPIC", "-Wl,--build-id", "-Wl,-soname,libone.so")
}

func librarian(t testing.TB, dir, lib string) string {
	t.Helper()
	return compile(t, "gcc", cServer, filepath.Join(dir, "librarian"), "-std=gnu99", "-w",
		`-DBROKEN=extern const char *lib_version(void); version = lib_version()`,
		filepath.Join(lib, "libone.so"), filepath.Join(lib, "libtwo.so"), "-Wl,-rpath,$ORIGIN/../lib")
}

// mark is what the program shows of itself.
func (p *process) mark() string {
	all, _ := filepath.Glob("/proc/" + itoa(p.cmd.Process.Pid) + "/fd/*")
	for _, fd := range all {
		if to, err := os.Readlink(fd); err == nil && to == "/memfd:moult-reexec (deleted)" {
			text, _ := os.ReadFile(fd)
			return string(text)
		}
	}
	return ""
}

// Half of the libraries replaced: not executed; the other half too: executed. One
// that was overwritten in place: not executed, until it is replaced by a good file.
func TestLibraries(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	app := filepath.Join(dir, "app")
	lib := filepath.Join(app, "lib")
	os.MkdirAll(filepath.Join(app, "bin"), 0o755)
	library(t, filepath.Join(dir, "v1"), "v1")
	library(t, filepath.Join(dir, "v2"), "v2")
	library(t, filepath.Join(dir, "v3"), "v3")
	os.Mkdir(lib, 0o755)
	both := []string{"libone.so", "libtwo.so"}
	for _, name := range both {
		place(t, filepath.Join(dir, "v1", name), filepath.Join(lib, name))
	}
	path := filepath.Join(app, "bin", "server")
	place(t, librarian(t, dir, filepath.Join(dir, "v1")), path)
	p := start(t, path)
	p.serves("v1")

	place(t, filepath.Join(dir, "v2", "libone.so"), filepath.Join(lib, "libone.so"))
	p.says("rejected")
	p.says("two_v2") // the loader's own words
	if a := p.serves("v1"); a.generation != 0 {
		t.Errorf("half of the libraries: generation %d, want 0", a.generation)
	}
	if text := p.mark(); !strings.Contains(text, "\nrejected 0\n") {
		t.Errorf("it shows %q, want that it was never asked", text)
	}
	p.cmd.Process.Signal(syscall.SIGUSR2)
	p.wait("that it has rejected what it was asked for", func() bool { return strings.Contains(p.mark(), "\nrejected 1\n") })
	place(t, filepath.Join(dir, "v2", "libtwo.so"), filepath.Join(lib, "libtwo.so"))
	p.serves("v2")

	// The same bytes again, and a touch, are nothing new.
	place(t, filepath.Join(dir, "v2", "libtwo.so"), filepath.Join(lib, "libtwo.so"))
	now := time.Now()
	os.Chtimes(filepath.Join(lib, "libone.so"), now, now)
	time.Sleep(400 * time.Millisecond)
	if a := p.serves("v2"); a.generation != 1 {
		t.Errorf("the same libraries again: generation %d, want 1", a.generation)
	}

	f, err := os.OpenFile(filepath.Join(lib, "libtwo.so"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Write([]byte("x"))
	f.Close()
	p.says("written to in place")
	place(t, filepath.Join(dir, "v3", "libone.so"), filepath.Join(lib, "libone.so"))
	time.Sleep(400 * time.Millisecond)
	if a := p.serves("v2"); a.generation != 1 {
		t.Errorf("overwritten: generation %d, want 1", a.generation)
	}
	place(t, filepath.Join(dir, "v3", "libtwo.so"), filepath.Join(lib, "libtwo.so"))
	p.serves("v3")
}

// Generations behind a link: the program is one inode in both, the libraries are
// not. And a library that crashes: back to the old program with the old libraries.
func TestGenerations(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad")
	library(t, bad, "bad")
	os.WriteFile(filepath.Join(bad, "one.c"), []byte("extern const char *two_bad(void);\nconst char *lib_version(void) { *(volatile int *)16L = 1; return two_bad(); }\n"), 0o644)
	compile(t, "gcc", filepath.Join(bad, "one.c"), filepath.Join(bad, "libone.so"), "-shared", "-fPIC", "-Wl,-soname,libone.so")
	library(t, filepath.Join(dir, "v1"), "v1")
	library(t, filepath.Join(dir, "v2"), "v2")
	library(t, filepath.Join(dir, "v4"), "v4")
	exe := librarian(t, dir, filepath.Join(dir, "v1"))
	for _, v := range []string{"v1", "v2", "bad", "v4"} {
		gen := filepath.Join(dir, "app", "generations", v)
		os.MkdirAll(filepath.Join(gen, "bin"), 0o755)
		os.MkdirAll(filepath.Join(gen, "lib"), 0o755)
		if err := os.Link(exe, filepath.Join(gen, "bin", "server")); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"libone.so", "libtwo.so"} {
			place(t, filepath.Join(dir, v, name), filepath.Join(gen, "lib", name))
		}
	}
	live := filepath.Join(dir, "app", "live")
	flip := func(v string) {
		os.Symlink("generations/"+v, live+".new")
		os.Rename(live+".new", live)
	}
	flip("v1")
	p := start(t, filepath.Join(live, "bin", "server"))
	p.serves("v1")
	flip("v2")
	p.serves("v2")
	flip("bad")
	p.says("taken back: segmentation fault")
	a := p.serves("v2")
	time.Sleep(400 * time.Millisecond)
	if b := p.serves("v2"); b.generation != a.generation || strings.Count(p.out.String(), "taken back") != 1 {
		t.Errorf("generation %d, want %d: tried again\n%s", b.generation, a.generation, p.out.String())
	}
	flip("v4")
	p.serves("v4")
	flip("v1")
	p.serves("v1")
}

// A whole directory that is renamed, with another in its place.
func TestRenamedDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, v := range []string{"1", "2"} {
		os.Mkdir(filepath.Join(dir, "app"+v), 0o755)
		place(t, server(t, version(v)), filepath.Join(dir, "app"+v, "server"))
	}
	app := filepath.Join(dir, "app")
	os.Rename(app+"1", app)
	p := start(t, filepath.Join(app, "server"))
	os.Rename(app, app+".old")
	time.Sleep(150 * time.Millisecond) // in between there is nothing
	os.Rename(app+"2", app)
	p.serves("2")
}
