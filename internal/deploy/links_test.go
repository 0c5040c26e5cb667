package deploy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"moult.example/internal/linkcheck"
	"moult.example/internal/release"
	"moult.example/internal/testneed"
)

// cc compiles C source to dir/name, with -shared for a library.
func cc(t testing.TB, dir, name, source string, flags ...string) {
	t.Helper()
	tool := testneed.Tool(t, "cc")
	out := filepath.Join(dir, name)
	must(t, os.MkdirAll(filepath.Dir(out), 0o755))
	cmd := exec.Command(tool, append([]string{"-o", out, "-x", "c", "-", "-x", "none"}, flags...)...)
	cmd.Stdin = strings.NewReader(source)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cc %s: %v\n%s", name, err, text)
	}
}

// linked makes a release: bin/app needs lib/libx.so.1, which has these
// functions, and calls one and two. More files may be added.
func linked(t testing.TB, functions ...string) string {
	t.Helper()
	dir := t.TempDir()
	if linkedApp == nil {
		all := t.TempDir()
		library(t, all, "libx.so.1", "one", "two", "three")
		cc(t, all, "app", "int one(void), two(void); int main(void) { return one() + two() - 3; }",
			filepath.Join(all, "libx.so.1"), "-Wl,-rpath,$ORIGIN/../lib")
		var err error
		linkedApp, err = os.ReadFile(all + "/app")
		must(t, err)
	}
	must(t, os.MkdirAll(dir+"/bin", 0o755))
	must(t, os.WriteFile(dir+"/bin/app", linkedApp, 0o755))
	library(t, dir, "lib/libx.so.1", functions...)
	return dir
}

// linkedApp is bin/app, and libraries are all libraries, compiled once.
var (
	linkedApp []byte
	libraries = map[string][]byte{}
)

func library(t testing.TB, dir, name string, functions ...string) {
	t.Helper()
	key := filepath.Base(name) + " " + strings.Join(functions, " ")
	if libraries[key] == nil {
		var source strings.Builder
		for i, f := range functions {
			source.WriteString("int " + f + "(void) { return " + string(rune('1'+i)) + "; }\n")
		}
		all := t.TempDir()
		cc(t, all, "lib", source.String(), "-shared", "-fPIC", "-Wl,-soname,"+filepath.Base(name))
		var err error
		libraries[key], err = os.ReadFile(all + "/lib")
		must(t, err)
	}
	must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, name), libraries[key], 0o755))
}

// deliverDir applies a directory, or a pack of it.
func deliverDir(t testing.TB, target *Target, dir string, packed bool, o ApplyOptions) (Result, error) {
	t.Helper()
	rel := openRelease(t, dir)
	if packed {
		var b bytes.Buffer
		must(t, release.Pack(context.Background(), rel, &b, release.PackOptions{}))
		file := filepath.Join(t.TempDir(), "release.moult")
		must(t, os.WriteFile(file, b.Bytes(), 0o644))
		rel = openRelease(t, file)
	}
	return target.Apply(context.Background(), rel, o)
}

func wantRefused(t testing.TB, err error, what ...string) {
	t.Helper()
	var refused *RefusedError
	if !errors.As(err, &refused) {
		t.Fatalf("got %v, want it refused", err)
	}
	for _, w := range what {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("got %q, want %q in it", err, w)
		}
	}
}

// What a release breaks refuses it, from a directory and packed, in each
// layout, before anything has changed; what was broken before does not.
func TestLinksRefuse(t *testing.T) {
	for _, layout := range []Layout{Owned, Shared} {
		for _, packed := range []bool{false, true} {
			name := string(layout)
			if packed {
				name += " packed"
			}
			t.Run(name, func(t *testing.T) {
				o := ApplyOptions{Layout: layout}
				target := open(t, filepath.Join(t.TempDir(), "app"))
				_, err := deliverDir(t, target, linked(t, "one"), packed, o)
				wantRefused(t, err, "bin/app", "two", "nothing has changed")
				if exists(target.path) || registered(target.opts.StateDir, target.path) {
					t.Error("after a first release that was refused there is a directory, or a registry entry, want none")
				}
				if _, err = deliverDir(t, target, linked(t, "one", "two"), packed, o); err != nil {
					t.Fatal(err)
				}
				before := read(t, target.path, "bin/app", "lib/libx.so.1")

				// The program is the same, its library has lost a function.
				_, err = deliverDir(t, target, linked(t, "one", "three"), packed, o)
				wantRefused(t, err, "bin/app", "two")
				gone := linked(t, "one", "two")
				must(t, os.Remove(gone+"/lib/libx.so.1"))
				must(t, os.WriteFile(gone+"/lib/readme", nil, 0o644))
				_, err = deliverDir(t, target, gone, packed, o)
				wantRefused(t, err, "bin/app", "libx.so.1")
				after := read(t, target.path, "bin/app", "lib/libx.so.1")
				if !equal(before, after) {
					t.Error("the files have changed after a refusal")
				}
				all, err := target.Status("")
				must(t, err)
				if st := all[0]; st.CutShort || slices.ContainsFunc(st.Generations, func(g Generation) bool { return g.State == "staged" }) {
					t.Errorf("got %+v, want nothing staged and nothing cut short", st)
				}

				o.Links = LinksWarn
				res, err := deliverDir(t, target, linked(t, "one", "three"), packed, o)
				must(t, err)
				if res.Links == nil || len(res.Links.Added) != 1 || res.Links.Added[0].Kind != string(linkcheck.MissingSymbol) ||
					!slices.ContainsFunc(res.Warnings, func(w string) bool { return strings.Contains(w, "two") }) {
					t.Errorf("got %+v and %q, want the symbol told", res.Links, res.Warnings)
				}
				// From here on it is nothing new.
				o.Links = LinksRefuse
				res, err = deliverDir(t, target, linked(t, "one", "three", "four"), packed, o)
				must(t, err)
				if res.Links.Before != 1 || len(res.Links.Added) != 0 || res.Links.Checked != 2 {
					t.Errorf("got %+v, want 2 checked and one problem from before", res.Links)
				}
			})
		}
	}
}

func equal(a, b tree) bool {
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return len(a) == len(b)
}

// Who needs a library that has changed is found without and with what the
// generation before has written down, by way of other libraries too.
func TestLinksDependants(t *testing.T) {
	dir := linked(t, "one", "two", "three")
	cc(t, dir, "lib/liby.so.1", "int one(void); int y(void) { return one(); }", "-shared", "-fPIC", "-Wl,-soname,liby.so.1", dir+"/lib/libx.so.1", "-Wl,-rpath,$ORIGIN")
	built := t.TempDir() // where liby has three itself, so that far does not need libx
	library(t, built, "liby.so.1", "y", "three")
	cc(t, dir, "bin/far", "int y(void), three(void); int main(void) { return y() + three(); }", built+"/liby.so.1", "-Wl,-rpath,$ORIGIN/../lib")
	cc(t, dir, "bin/other", "int main(void) { return 0; }")
	for _, known := range []bool{true, false} {
		target := open(t, filepath.Join(t.TempDir(), "app"))
		if _, err := deliverDir(t, target, dir, false, ApplyOptions{}); err != nil {
			t.Fatal(err)
		}
		book := target.abs(".moult/generations/1/.moult/" + linksFile)
		data, err := os.ReadFile(book)
		must(t, err)
		if all, ok := decodeLinks(data); !ok || len(all) != 5 {
			t.Fatalf("got %d programs and libraries in %s, want 5", len(all), book)
		}
		if !known {
			must(t, os.WriteFile(book, []byte("damaged"), 0o644))
		}
		next := t.TempDir()
		must(t, os.CopyFS(next, os.DirFS(dir)))
		library(t, next, "lib/libx.so.1", "one", "two")
		_, err = deliverDir(t, target, next, false, ApplyOptions{})
		wantRefused(t, err, "bin/far", "three")
		plan, err := target.Plan(context.Background(), openRelease(t, next), ApplyOptions{})
		must(t, err)
		if len(plan.Problems) == 0 || plan.Links.Checked != 4 {
			t.Errorf("got %+v with %d problems, want all but bin/other checked, and problems", plan.Links, len(plan.Problems))
		}
	}
}

// What is no fault of the release, or cannot be told from here, does not refuse
// it.
func TestLinksGoOn(t *testing.T) {
	t.Run("a script leads to the libraries", func(t *testing.T) {
		dir := linked(t, "one", "two")
		must(t, os.Rename(dir+"/lib", dir+"/private"))
		target := open(t, filepath.Join(t.TempDir(), "app"))
		if _, err := deliverDir(t, target, dir, false, ApplyOptions{}); err != nil {
			t.Errorf("got %v, want it applied", err)
		}
		// But those must fit.
		dir = linked(t, "one")
		must(t, os.Rename(dir+"/lib", dir+"/private"))
		_, err := deliverDir(t, target, dir, false, ApplyOptions{})
		wantRefused(t, err, "two")
	})
	t.Run("another machine", func(t *testing.T) {
		dir := linked(t, "one")
		for _, name := range []string{"bin/app", "lib/libx.so.1"} {
			data, err := os.ReadFile(dir + "/" + name)
			must(t, err)
			binary.LittleEndian.PutUint16(data[18:], 243) // RISC-V
			must(t, os.WriteFile(dir+"/"+name, data, 0o755))
		}
		res, err := deliverDir(t, open(t, filepath.Join(t.TempDir(), "app")), dir, false, ApplyOptions{})
		must(t, err)
		if res.Links.Foreign != 2 || res.Links.Checked != 0 || len(res.Warnings) != 1 {
			t.Errorf("got %+v and %q, want 2 of another machine, and a word about it", res.Links, res.Warnings)
		}
	})
	t.Run("no program", func(t *testing.T) {
		res := apply(t, open(t, filepath.Join(t.TempDir(), "app")), tree{"bin/script": "0755:#!/bin/sh\n", "lib/libx.so": "->gone"}, ApplyOptions{})
		if res.Links == nil || res.Links.Checked != 0 {
			t.Errorf("got %+v, want nothing checked", res.Links)
		}
	})
	t.Run("ignored", func(t *testing.T) {
		res, err := deliverDir(t, open(t, filepath.Join(t.TempDir(), "app")), linked(t, "one"), false, ApplyOptions{Links: LinksIgnore})
		must(t, err)
		if res.Links != nil {
			t.Errorf("got %+v, want no report", res.Links)
		}
	})
}

// The book is read as it was written, and nothing else is.
func FuzzLinksFile(f *testing.F) {
	f.Add(encodeLinks([]loadable{
		{path: "bin/app", info: linkcheck.Info{Kind: linkcheck.Program, Class: 2, Machine: 62, Interp: "/lib/ld", Needed: []string{"libx.so.1", "libc.so.6"}}},
		{path: "lib/libx.so.1", info: linkcheck.Info{Kind: linkcheck.Library, Soname: "libx.so.1"}},
	}))
	f.Add([]byte(linksMagic + "a\x001\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, ok := decodeLinks(data)
		if !ok {
			return
		}
		again, ok := decodeLinks(encodeLinks(all))
		if !ok || len(again) != len(all) {
			t.Errorf("got %d of %d back (%v)", len(again), len(all), ok)
		}
	})
}
