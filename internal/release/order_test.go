package release

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestScanOrder: the entries of a tree come by path, whatever its names are. The
// slash counts as a letter then, so what is below "a" is not next to "a".
func TestScanOrder(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	letters := []string{"a", "b", "-", ".", "/", "0", " ", "\xff", "\x01", "~"}
	for range 20 {
		root := t.TempDir()
		var want []string
		for range 60 {
			path := "a"
			for range 1 + rnd.IntN(7) {
				path += letters[rnd.IntN(len(letters))]
			}
			path = filepath.Clean(path)
			if os.MkdirAll(filepath.Join(root, path), 0o755) == nil && rnd.IntN(2) == 0 {
				write(t, root, path+"/x", "x", 0o644)
			}
		}
		write(t, root, "z", "z", 0o644)
		try(t, filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
			if path != root {
				want = append(want, path[len(root)+1:])
			}
			return err
		}))
		slices.Sort(want)
		r, err := Open(context.Background(), root, Options{})
		try(t, err)
		var got []string
		for i := range r.Manifest.Entries {
			got = append(got, r.Manifest.Entries[i].Path)
		}
		r.Close()
		if !slices.Equal(got, want) {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

// TestCacheFind: a path is found wherever the last one was found, and what is not
// there is not.
func TestCacheFind(t *testing.T) {
	for n := range 12 {
		made := NewCache()
		name := func(i int) string { return fmt.Sprintf("d/%02d", i) }
		for i := n - 1; i >= 0; i-- { // not in order, as a parallel reader stores them
			made.Store(name(2*i+1), Stat{Ino: uint64(2*i + 1), CTime: 1}, digestOf(1), time.Now())
		}
		c, err := LoadCache(made.Encode())
		try(t, err)
		if c.index != nil || c.Len() != n {
			t.Fatalf("%d entries: read %d, in a map %v", n, c.Len(), c.index != nil)
		}
		for from := range 2*n + 1 {
			for to := range 2*n + 1 {
				c.Known(name(from))
				st, _, ok := c.Known(name(to))
				if want := to%2 == 1; ok != want || ok && st.Ino != uint64(to) {
					t.Fatalf("of %d, %d after %d: got %v %v", n, to, from, st.Ino, ok)
				}
			}
		}
		// What was forgotten and stored is found as ever, and what was swept is not.
		for i := range n {
			c.Forget(name(2*i + 1))
			c.Store(name(2*i), Stat{CTime: 1}, digestOf(2), time.Now())
		}
		for i := range 2*n + 1 {
			if _, _, ok := c.Known(name(i)); ok != (i%2 == 0 && i < 2*n) {
				t.Fatalf("of %d, %d: got %v", n, i, ok)
			}
		}
		c.Sweep()
		c.Sweep()
		if c.Len() != 0 {
			t.Fatalf("of %d, swept: %d left", n, c.Len())
		}
	}
}
