package linkcheck

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"moult.example/internal/testneed"
)

// world is a small installation: bin and lib below a directory.
type world struct {
	t   *testing.T
	dir string
	// where libraries are that are linked with, if they are not here
	with string
}

func (w *world) at(name string) string { return filepath.Join(w.dir, name) }

// cc compiles a source text.
func (w *world) cc(name, src string, args ...string) {
	w.t.Helper()
	dirs := []string{"-L" + w.at("lib")}
	if w.with != "" {
		dirs = append(dirs, "-L"+filepath.Join(w.with, "lib"))
	}
	compiler := "gcc"
	if strings.HasPrefix(src, "//C++") {
		compiler = "g++"
	}
	source := filepath.Join(w.t.TempDir(), "source.c")
	if compiler == "g++" {
		source += "c"
	}
	w.write(source, src)
	if err := os.MkdirAll(filepath.Dir(w.at(name)), 0o755); err != nil {
		w.t.Fatal(err)
	}
	argv := append([]string{"-O0", "-w", "-o", w.at(name), source}, dirs...)
	out, err := exec.Command(compiler, append(argv, args...)...).CombinedOutput()
	if err != nil {
		w.t.Fatalf("%s %s: %v\n%s", compiler, name, err, out)
	}
}

func (w *world) write(path, text string) {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		w.t.Fatal(err)
	}
}

// lib makes lib/NAME.so.1 with a link NAME.so to it, unless args say a SONAME.
func (w *world) lib(name, src string, args ...string) {
	w.t.Helper()
	if !slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "-Wl,-soname") }) {
		args = append(args, "-Wl,-soname,"+name+".so.1")
	}
	w.cc("lib/"+name+".so.1", src, append([]string{"-shared", "-fPIC"}, args...)...)
	if w.with == "" {
		if err := os.Symlink(name+".so.1", w.at("lib/"+name+".so")); err != nil {
			w.t.Fatal(err)
		}
	}
}

const runPathHere = "-Wl,--enable-new-dtags,-rpath,$ORIGIN/../lib"

// prog makes bin/main.
func (w *world) prog(src string, args ...string) {
	w.t.Helper()
	w.cc("bin/main", src, append(args, runPathHere, "-Wl,--allow-shlib-undefined")...)
}

// script is a version script; it has to be in a file.
func (w *world) script(text string) string {
	p := filepath.Join(w.t.TempDir(), "map")
	w.write(p, text)
	return "-Wl,--version-script=" + p
}

// patch changes bytes of a file.
func (w *world) patch(name string, f func(b []byte) []byte) {
	w.t.Helper()
	b, err := os.ReadFile(w.at(name))
	if err != nil {
		w.t.Fatal(err)
	}
	w.write(w.at(name), string(f(b)))
}

// loadCase is a change, and what it adds to be found.
type loadCase struct {
	name     string
	old, new func(w *world)
	removed  []string
	check    []string            // bin/main, if there are none
	plugins  map[string][]string // plugin to hosts
	want     []string            // severity problem object symbol
	silent   bool                // the real loader says nothing, or the program is not asked
}

const (
	fooLib  = `int foo(void){return 0;} int bar(void){return 0;}`
	fooMain = `int foo(void); int main(void){return foo();}`
)

// Most cases begin with the same files: they are compiled once.
var templates = struct {
	sync.Mutex
	dirs map[string]string
}{dirs: map[string]string{}}

func (w *world) from(name string, build func(w *world)) {
	w.t.Helper()
	templates.Lock()
	defer templates.Unlock()
	dir := templates.dirs[name]
	if dir == "" {
		dir = filepath.Join(templateRoot, name)
		build(&world{t: w.t, dir: dir})
		templates.dirs[name] = dir
	}
	if out, err := exec.Command("cp", "-a", dir+"/.", w.dir).CombinedOutput(); err != nil {
		w.t.Fatalf("copy: %v: %s", err, out)
	}
}

// templateRoot is TestCases', which outlives its cases.
var templateRoot string

func plain(w *world) {
	w.from("plain", func(w *world) {
		w.lib("libx", fooLib)
		w.prog(fooMain, "-lx")
	})
}

func versioned(w *world) {
	w.from("versioned", func(w *world) {
		w.lib("libx", fooLib, w.script("V1 { global: foo; bar; local: *; };"))
		w.prog(fooMain, "-lx")
	})
}

func newLib(src string, args ...string) func(*world) {
	return func(w *world) { w.lib("libx", src, args...) }
}

// stripHeaders makes the sections unknown, as some packers do.
func stripHeaders(b []byte) []byte {
	clear(b[40:48]) // e_shoff
	clear(b[60:64]) // e_shnum, e_shstrndx
	return b
}

func TestCases(t *testing.T) {
	testneed.Tool(t, "gcc")
	testneed.Tool(t, "g++")
	if _, err := os.Stat("/lib64/ld-linux-x86-64.so.2"); err != nil {
		testneed.Skip(t, "no loader of glibc for x86-64 here")
	}
	templateRoot = t.TempDir()
	for _, c := range slices.Concat(breaking, fine) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t)
		})
	}
}

func (c *loadCase) run(t *testing.T) {
	old := &world{t: t, dir: filepath.Join(t.TempDir(), "app")}
	staged := &world{t: t, dir: filepath.Join(t.TempDir(), "staged"), with: old.dir}
	for _, w := range []*world{old, staged} {
		if err := os.MkdirAll(w.at("lib"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c.old(old)
	c.new(staged)
	o := Options{Plugins: map[string][]string{}}
	for plugin, hosts := range c.plugins {
		for _, h := range hosts {
			o.Plugins[old.at(plugin)] = append(o.Plugins[old.at(plugin)], old.at(h))
		}
	}
	var paths []string
	for _, name := range c.check {
		paths = append(paths, old.at(name))
	}
	if len(paths) == 0 {
		paths = []string{old.at("bin/main")}
	}
	before := checked(t, paths, o)
	if n := before.Count(Break); n > 0 {
		t.Fatalf("got %d breaks before the change: %+v", n, before.Findings)
	}
	o.Overlay = c.overlay(t, old, staged)
	after := checked(t, paths, o)
	var got []string
	for _, f := range Added(before, after) {
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", f.Severity, f.Problem, filepath.Base(f.Object), f.Symbol)))
	}
	if !slices.Equal(got, c.want) {
		t.Errorf("got %q, want %q; all of it: %+v", got, c.want, after.Findings)
	}
	if !c.silent {
		c.truth(t, old, o.Overlay)
	}
}

// truth does the change and starts the program.
func (c *loadCase) truth(t *testing.T, old *world, overlay map[string]string) {
	for p, staged := range overlay {
		os.Remove(p)
		if staged == "" {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := exec.Command("cp", "-a", staged, p).Run(); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(old.at("bin/main"))
	cmd.Env = []string{"LD_BIND_NOW=1"}
	out, err := cmd.CombinedOutput()
	breaks := slices.ContainsFunc(c.want, func(w string) bool { return strings.HasPrefix(w, "break") })
	if (err != nil) != breaks {
		t.Errorf("the program really says %v, %s; want it to break: %v", err, out, breaks)
	}
}

func (c *loadCase) overlay(t *testing.T, old, staged *world) map[string]string {
	overlay := map[string]string{}
	err := filepath.WalkDir(staged.dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			overlay[old.dir+strings.TrimPrefix(p, staged.dir)] = p
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range c.removed {
		overlay[old.at(name)] = ""
	}
	return overlay
}

func reported(t *testing.T, paths []string, o Options) *Report {
	t.Helper()
	r, err := Check(context.Background(), paths, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// checked is a report without a file that could not be read.
func checked(t *testing.T, paths []string, o Options) *Report {
	t.Helper()
	r := reported(t, paths, o)
	if len(r.Unread) > 0 {
		t.Fatalf("could not read %v", r.Unread)
	}
	return r
}
