package linkcheck

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"moult.example/internal/testneed"
)

// The loader does not know the inode of what it was asked to load first: who
// needs it by another name than its SONAME loads it once more.
func TestNeedsItself(t *testing.T) {
	testneed.Tool(t, "gcc")
	w := &world{t: t, dir: t.TempDir()}
	for _, d := range []string{filepath.Dir(w.dir), w.dir} { // the loader has no privileges
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.cc("lib/itself.so", fooLib, "-shared", "-fPIC")
	w.cc("lib/linked.so", `int foo(void); int baz(void){return foo();}`, "-shared", "-fPIC", "-l:itself.so")
	if err := os.Rename(w.at("lib/linked.so"), w.at("lib/itself.so")); err != nil {
		t.Fatal(err)
	}
	dir := w.at("lib")
	real, our := real(t, dir, w.at("lib/itself.so"), dir), ours(t, w.at("lib/itself.so"), dir)
	if how := differ(real, our); how != "" {
		t.Errorf("%s; it says %s", how, real.text)
	}
	if !slices.Contains(our.loaded, w.at("lib/itself.so")) {
		t.Errorf("got %q loaded, want the library among them", our.loaded)
	}
}

// What breaks is reported however many warnings there were before.
func TestBreaksAmongWarnings(t *testing.T) {
	testneed.Tool(t, "gcc")
	w := &world{t: t, dir: t.TempDir()}
	w.lib("liblacks", `int a(void); int b(void); int c(void); int d(void){return a()+b()+c();}`)
	w.lib("libcut", fooLib)
	w.lib("libneeds", `int foo(void); int d(void){return foo();}`, "-lcut", runPathHere)
	w.patch("lib/libcut.so.1", func(b []byte) []byte { return b[:1000] })
	r := checked(t, []string{w.at("lib/liblacks.so.1"), w.at("lib/libneeds.so.1")}, Options{MaxFindings: 2})
	broken := func(f Finding) bool { return f.Severity == Break && f.Problem == BadFile }
	if len(r.Findings) != 3 || r.More != 1 || !slices.ContainsFunc(r.Findings, broken) {
		t.Errorf("got %v and %d more, want two symbols, the library that is cut short, and 1", r.Findings, r.More)
	}
}
