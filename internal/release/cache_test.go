package release

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/testneed"
)

func lstat(t testing.TB, p string) Stat {
	t.Helper()
	var st unix.Stat_t
	try(t, unix.Lstat(p, &st))
	return StatOf(&st)
}

// TestCacheRule: an entry is believed only if the file had settled before it
// was looked at.
func TestCacheRule(t *testing.T) {
	now := time.Unix(1_700_000_000, 123_456_789)
	at := func(before time.Duration) int64 { return now.Add(-before).UnixNano() }
	for _, c := range []struct {
		what  string
		ctime int64
		want  bool
	}{
		{"an hour ago", at(time.Hour), true},
		{"a tick ago", at(time.Millisecond), true},
		{"at that moment", at(0), false},
		{"in the future", at(-time.Hour), false},
		{"whole seconds, 1.1 s ago", 1_699_999_999e9, false},
		{"whole seconds, 3.1 s ago", 1_699_999_997e9, true},
		{"not known", 0, false},
	} {
		cache := NewCache()
		st := Stat{1, 2, 3, 4, c.ctime}
		cache.Store("a", Stat{1, 2, 3, 4, at(time.Hour)}, digestOf(9), now)
		cache.Store("a", st, digestOf(7), now)
		d, ok := cache.Lookup("a", st)
		if ok != c.want || ok && d != digestOf(7) {
			t.Errorf("%s: got %v %v, want %v", c.what, d, ok, c.want)
		}
		// The entry that was there before must not come back.
		if d, ok := cache.Lookup("a", Stat{1, 2, 3, 4, at(time.Hour)}); ok && c.ctime != at(time.Hour) {
			t.Errorf("%s: got the entry before: %v", c.what, d)
		}
	}
	cache := NewCache()
	st := Stat{1, 2, 3, 4, 5}
	cache.Store("a", st, digestOf(7), now)
	for i, other := range []Stat{{0, 2, 3, 4, 5}, {1, 0, 3, 4, 5}, {1, 2, 0, 4, 5}, {1, 2, 3, 0, 5}, {1, 2, 3, 4, 0}} {
		if _, ok := cache.Lookup("a", other); ok {
			t.Errorf("another stat (%d) is taken for the same", i)
		}
	}
	if _, ok := cache.Lookup("b", st); ok {
		t.Error("another path is taken for the same")
	}
}

// TestCacheNeverMissesAChange rewrites a file at once, again and again, with
// equal size and its modification time put back. On ramfs too, whose times have
// the kernel's tick (multigrain timestamps hide the race elsewhere).
func TestCacheNeverMissesAChange(t *testing.T) {
	t.Run("here", func(t *testing.T) { neverMisses(t, t.TempDir()) })
	t.Run("ramfs", func(t *testing.T) {
		testneed.Root(t)
		root := t.TempDir()
		if err := unix.Mount("none", root, "ramfs", 0, ""); err != nil {
			testneed.Skip(t, "cannot mount a ramfs: "+err.Error())
		}
		defer unix.Unmount(root, unix.MNT_DETACH)
		neverMisses(t, root)
	})
}

func neverMisses(t *testing.T, root string) {
	p := write(t, root, "tool", "000000", 0o644)
	f, err := os.OpenFile(p, os.O_WRONLY, 0)
	try(t, err)
	defer f.Close()
	mtime := time.Unix(1_600_000_000, 1)
	cache := NewCache()
	rnd := rand.New(rand.NewPCG(3, 4))
	hits := 0
	for i := range 300 {
		content := fmt.Appendf(nil, "%06d", i)
		_, err := f.WriteAt(content, 0)
		try(t, err)
		try(t, os.Chtimes(p, mtime, mtime))
		// Now and then let a tick pass, so that some entries are believed.
		if rnd.IntN(8) == 0 {
			for end := time.Now().Add(25 * time.Millisecond); time.Now().Before(end); {
			}
		}
		for range 2 {
			r, err := Open(context.Background(), root, Options{Cache: cache})
			try(t, err)
			if _, ok := cache.Lookup("tool", lstat(t, p)); ok {
				hits++
			}
			try(t, r.Complete(context.Background()))
			if got, want := r.Manifest.Find("tool").Digest, Digest(sha256.Sum256(content)); got != want {
				t.Fatalf("rewrite %d: got the digest %v, want %v", i, got, want)
			}
			r.Close()
			if i%50 == 0 {
				cache, err = LoadCache(cache.Encode())
				try(t, err)
			}
		}
	}
	if hits == 0 {
		t.Error("the cache was never believed: the test shows nothing")
	}
}

// TestCacheSaves: a settled tree is not read a second time.
func TestCacheSaves(t *testing.T) {
	root := makeTree(t, 120)
	cache := NewCache()
	complete := func() *Release { return open(t, root, Options{Cache: cache}) }
	first := complete().Manifest.ID()
	for deadline := time.Now().Add(5 * time.Minute); cache.Len() < 120; complete() {
		if time.Now().After(deadline) {
			t.Fatalf("after 5 minutes the cache knows %d of 120 files", cache.Len())
		}
	}
	r, err := Open(context.Background(), root, Options{Cache: cache})
	try(t, err)
	defer r.Close()
	r.source = noSource{r.source}
	try(t, r.Complete(context.Background()))
	if got := r.Manifest.ID(); got != first {
		t.Errorf("got id %v from the cache, want %v", got, first)
	}

	// What is gone is forgotten, and another root is another cache.
	try(t, os.RemoveAll(filepath.Join(root, "part0/lib0")))
	complete()
	if cache.Len() != 70 {
		t.Errorf("got %d files, want the 70 that are left", cache.Len())
	}
	cache.Bind(root, 1, 1)
	if cache.Len() != 0 {
		t.Errorf("got %d files for another directory, want 0", cache.Len())
	}
}

// noSource opens nothing.
type noSource struct{ source }

func (noSource) open(e *Entry, _ int) (rc io.ReadCloser, err error) {
	return nil, errors.New(e.Path + " was read")
}

func someCache(n int) *Cache {
	c := NewCache()
	c.Bind("/srv/\xff", 1, 2)
	for i := range n {
		c.Store(fmt.Sprintf("dir/file\n%d", i), Stat{1, uint64(i), int64(-i), 1 << 60, int64(i) + 1}, digestOf(byte(i%200+1)), time.Now())
	}
	return c
}

func TestCacheRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 1000} {
		c := someCache(n)
		c.Forget("dir/file\n500")
		b := c.Encode()
		got, err := LoadCache(b)
		try(t, err)
		if !bytes.Equal(got.Encode(), b) || got.Len() != c.Len() || got.root != c.root {
			t.Errorf("%d entries: read %d, root %v", n, got.Len(), got.root)
		}
		for i := range n {
			p := fmt.Sprintf("dir/file\n%d", i)
			d, ok := got.Lookup(p, Stat{1, uint64(i), int64(-i), 1 << 60, int64(i) + 1})
			if want := i != 500; ok != want || ok && d != digestOf(byte(i%200+1)) {
				t.Errorf("%q: got %v %v", p, d, ok)
			}
		}
	}
}

func TestCacheDamaged(t *testing.T) {
	b := someCache(3).Encode()
	for i := range b {
		damaged := slices.Clone(b)
		damaged[i] ^= 0x20
		if c, err := LoadCache(damaged); err == nil || c == nil || c.Len() != 0 {
			t.Fatalf("byte %d changed: got %v %v, want an empty cache and an error", i, c, err)
		}
		if c, err := LoadCache(b[:i]); err == nil || c == nil || c.Len() != 0 {
			t.Fatalf("cut after %d bytes: got %v %v, want an empty cache and an error", i, c, err)
		}
	}
	newer := []byte(strings.Replace(string(b), "moult-cache 1\n", "moult-cache 2\n", 1))
	if c, err := LoadCache(newer); !errors.Is(err, ErrNewer) || c == nil {
		t.Errorf("got %v %v, want ErrNewer and an empty cache", c, err)
	}
}

func FuzzCache(f *testing.F) {
	for _, n := range []int{0, 1, 3} {
		b := someCache(n).Encode()
		f.Add(b[:len(b)-sha256.Size])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		LoadCache(b)
		sum := sha256.Sum256(b)
		c, err := LoadCache(append(slices.Clip(b), sum[:]...))
		if err != nil {
			return
		}
		again, err := LoadCache(c.Encode())
		if err != nil || again.Len() != c.Len() || again.root != c.root {
			t.Fatalf("wrote %d entries, read %d, %v", c.Len(), again.Len(), err)
		}
	})
}
