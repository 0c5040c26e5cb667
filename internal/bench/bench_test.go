package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"moult.example/internal/testneed"
)

func TestMedian(t *testing.T) {
	self := func(v float64) float64 { return v }
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{nil, 0},
		{[]float64{3}, 3},
		{[]float64{9, 1, 2}, 2},
		{[]float64{4, 1, 9, 2}, 3},
	} {
		if got := median(c.values, self); got != c.want {
			t.Errorf("median of %v: got %v, want %v", c.values, got, c.want)
		}
	}
}

// Equal shapes are equal trees, of the size that was asked for, and a change
// changes ten files and no size.
func TestTree(t *testing.T) {
	s := shape{files: 300, dirs: 20, bytes: 3e6, spread: 2, seed: 1}
	var trees [2]*tree
	for i := range trees {
		var err error
		if trees[i], err = makeTree(filepath.Join(t.TempDir(), "tree"), s); err != nil {
			t.Fatal(err)
		}
	}
	a, b := trees[0], trees[1]
	if len(a.files) != s.files || a.dirs != s.dirs || a.bytes < s.bytes*7/10 || a.bytes > s.bytes*11/10 {
		t.Errorf("got %d files, %d directories, %d bytes, want %+v", len(a.files), a.dirs, a.bytes, s)
	}
	if got := different(t, a, b); len(got) != 0 {
		t.Errorf("two trees of one shape differ in %v", got)
	}
	changed, err := a.change()
	if err != nil {
		t.Fatal(err)
	}
	got := different(t, a, b)
	if len(changed) != changedFiles || len(got) != changedFiles {
		t.Errorf("got %d files changed and %v differing, want %d", len(changed), got, changedFiles)
	}
	for _, f := range a.files {
		if st, err := os.Stat(filepath.Join(a.dir, f.path)); err != nil || st.Size() != f.size {
			t.Errorf("%s: got %v, %v, want %d bytes", f.path, st, err, f.size)
		}
	}
}

func different(t *testing.T, a, b *tree) (names []string) {
	t.Helper()
	for _, f := range a.files {
		same, err := equal(filepath.Join(a.dir, f.path), filepath.Join(b.dir, f.path))
		if err != nil {
			t.Fatal(err)
		}
		if !same {
			names = append(names, f.path)
		}
	}
	return names
}

// The onlookers see renames and exchanges of public names, in their order, and
// no temporary.
func TestWatch(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"a", "b", "c", "new-a", "new-b", "new-c"} {
		if err := os.WriteFile(at(name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	w, err := newWatch([]string{at("a"), at("b"), at("c")})
	if err != nil {
		t.Fatal(err)
	}
	g, err := newGaze(0, at("b"), at("c"))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for _, name := range []string{"b", "a", "c"} {
		if err := os.Rename(at("new-"+name), at(name)); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(5 * time.Minute); len(g.long) == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the changes were not seen")
		}
	}
	long, most := g.end(), time.Since(began)
	if long <= 0 || long > most+time.Second {
		t.Errorf("got %v from the first to the last, want something up to %v", long, most)
	}
	if got, want := w.end(), (seen{3, at("b"), at("c")}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestRenamesOfCommit(t *testing.T) {
	log := `
12 renameat(11, "cache.new", 11, "cache") = 0
12 renameat(11, "journal.new", 11, "journal") = -1 EIO (Input/output error)
12 renameat(11, "journal.new", 11, "journal") = 0
13 renameat(11, "live.new", 11, "live" <unfinished ...>
13 <... renameat resumed>) = 0
12 renameat2(14, ".a", 14, "b", RENAME_EXCHANGE) = 0
12 unlinkat(14, "committed.new", 0) = -1 ENOENT (No such file or directory)
12 unlinkat(11, "journal", 0) = 0
12 renameat(11, "x", 11, "y") = 0
`
	if got, want := strings.Join(renamesOfCommit(log), " "), "live b"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// All of it runs, small and once, with every peer that is here.
func TestRun(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds")
	}
	testneed.Tool(t, "go")
	testneed.Tool(t, "cc")
	var stdout, stderr bytes.Buffer
	args := []string{"--scale", "0.002", "--rounds", "1", "--json", "--dir", t.TempDir(), "--only", "start,install,first,update,due,nothing"}
	if status := run(args, &stdout, &stderr); status != 0 {
		t.Fatalf("status %d\n%s", status, &stderr)
	}
	var r Report
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	for _, s := range r.Sections {
		if len(s.Checks) == 0 {
			t.Errorf("%s: no target was held, skipped %+v", s.Name, s.Skipped)
		}
		for _, skip := range s.Skipped {
			testneed.Skip(t, s.Name+": "+skip.Name+": "+skip.Why)
		}
	}
	var text bytes.Buffer
	if err := r.writeText(&text, options{seconds: true}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text.String(), "targets met") {
		t.Errorf("got %q, want a count of targets", &text)
	}
}

func TestUsage(t *testing.T) {
	for args, want := range map[string]int{
		"--only nonsense": 2, "--rounds 0": 2, "--scale 0": 2, "--unknown": 2, "operand": 2, "--help": 0,
	} {
		var stderr bytes.Buffer
		if got := run(strings.Fields(args), &stderr, &stderr); got != want || stderr.Len() == 0 {
			t.Errorf("%s: got status %d and %q, want %d", args, got, &stderr, want)
		}
	}
}
