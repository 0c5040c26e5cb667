package deploy

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"moult.example/internal/release"
)

// BenchmarkUnchanged applies a release of 5,000 files that is live already.
func BenchmarkUnchanged(b *testing.B) {
	src, dir := b.TempDir(), filepath.Join(b.TempDir(), "app")
	files := tree{}
	for i := range 5000 {
		files[fmt.Sprintf("d%d/sub/file%d", i%100, i)] = fmt.Sprint(i)
	}
	files.write(b, src)
	once := func(want bool) {
		t, err := Open(dir, Options{StateDir: filepath.Join(filepath.Dir(dir), "state"), Command: "bench"})
		must(b, err)
		defer t.Close()
		o := ApplyOptions{SourceCache: t.SourceCache()}
		rel, err := release.Open(context.Background(), src, release.Options{Cache: o.SourceCache})
		must(b, err)
		defer rel.Close()
		res, err := t.Apply(context.Background(), rel, o)
		must(b, err)
		if res.Unchanged != want {
			b.Fatalf("got unchanged %v, want %v", res.Unchanged, want)
		}
	}
	once(false)
	time.Sleep(50 * time.Millisecond) // the source's change times settle
	once(true)
	once(true)
	for b.Loop() {
		once(true)
	}
}
