package release

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// makeTree makes n files in directories of 50, three deep.
func makeTree(t testing.TB, n int) string {
	t.Helper()
	root := t.TempDir()
	for i := range n {
		dir := filepath.Join(root, fmt.Sprintf("part%d/lib%d", i/1000, i/50))
		if i%50 == 0 {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("libexample-%d.so.1", i)), fmt.Appendf(nil, "file %d", i), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func BenchmarkScan5000(b *testing.B) {
	root := makeTree(b, 5000)
	b.ReportAllocs()
	for b.Loop() {
		r, err := Open(context.Background(), root, Options{})
		if err != nil {
			b.Fatal(err)
		}
		r.Close()
	}
}

// BenchmarkUnchanged5000 is all that a directory costs that a cache knows.
func BenchmarkUnchanged5000(b *testing.B) {
	root := makeTree(b, 5000)
	cache := NewCache()
	open := func() {
		r, err := Open(context.Background(), root, Options{Cache: cache})
		if err != nil {
			b.Fatal(err)
		}
		defer r.Close()
		if err := r.Complete(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	for deadline := time.Now().Add(time.Minute); cache.Len() < 5000 && time.Now().Before(deadline); {
		open()
	}
	b.ReportAllocs()
	for b.Loop() {
		open()
	}
}

func benchManifest(b *testing.B) *Manifest {
	r, err := Open(context.Background(), makeTree(b, 5000), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	if err := r.Complete(context.Background()); err != nil {
		b.Fatal(err)
	}
	return r.Manifest
}

func BenchmarkParse5000(b *testing.B) {
	text := benchManifest(b).Encode()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode5000(b *testing.B) {
	m := benchManifest(b)
	b.ReportAllocs()
	for b.Loop() {
		m.Encode()
	}
}

func BenchmarkID5000(b *testing.B) {
	m := benchManifest(b)
	b.ReportAllocs()
	for b.Loop() {
		m.ID()
	}
}

func BenchmarkCache5000(b *testing.B) {
	m := benchManifest(b)
	c := NewCache()
	for i := range m.Entries {
		e := &m.Entries[i]
		if e.Type == File {
			c.Store(e.Path, Stat{1, uint64(i), e.Size, e.MTime, 1}, e.Digest, time.Now())
		}
	}
	b.Run("Encode", func(b *testing.B) {
		for b.Loop() {
			c.Encode()
		}
	})
	text := c.Encode()
	b.Run("Load", func(b *testing.B) {
		for b.Loop() {
			if _, err := LoadCache(text); err != nil {
				b.Fatal(err)
			}
		}
	})
}
