package deploy

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"moult.example/internal/release"
)

// benchTarget is a target and the directory of 5,000 files that it is made of, on
// a host without processes. once opens both and applies.
func benchTarget(b *testing.B) (src string, once func() Result) {
	src, dir := b.TempDir(), filepath.Join(b.TempDir(), "app")
	proc := b.TempDir()
	must(b, os.Mkdir(proc+"/1", 0o755))
	files := tree{}
	for i := range 5000 {
		files[fmt.Sprintf("d%d/sub/file%d", i%100, i)] = fmt.Sprint(i)
	}
	files.write(b, src)
	return src, func() Result {
		t, err := Open(dir, Options{StateDir: filepath.Join(filepath.Dir(dir), "state"), Command: "bench", Grace: 1, Proc: proc})
		must(b, err)
		defer t.Close()
		o := ApplyOptions{SourceCache: t.SourceCache(), Retention: Retention{Unreadable: true}}
		rel, err := release.Open(context.Background(), src, release.Options{Cache: o.SourceCache})
		must(b, err)
		defer rel.Close()
		res, err := t.Apply(context.Background(), rel, o)
		must(b, err)
		return res
	}
}

// BenchmarkUnchanged applies a release of 5,000 files that is live already.
func BenchmarkUnchanged(b *testing.B) {
	_, once := benchTarget(b)
	once()
	time.Sleep(50 * time.Millisecond) // the source's change times settle
	once()
	for b.Loop() {
		if !once().Unchanged {
			b.Fatal("got a new generation, want none")
		}
	}
}

// BenchmarkUpdate applies a release of 5,000 files of which 10 have changed, and
// makes it of an old generation.
func BenchmarkUpdate(b *testing.B) {
	src, once := benchTarget(b)
	n := 0
	change := func() {
		n++
		for i := range 10 {
			must(b, os.WriteFile(fmt.Sprintf("%s/d%d/sub/file%d", src, i, i), fmt.Append(nil, "version ", n), 0o644))
		}
		time.Sleep(20 * time.Millisecond)
	}
	for range 5 {
		change()
		once()
	}
	for b.Loop() {
		b.StopTimer()
		change()
		b.StartTimer()
		if res := once(); len(res.Collected) != 1 {
			b.Fatalf("got %d collected, want the one that the new is made of", len(res.Collected))
		}
	}
}
