package disktest_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"moult.example/internal/disk"
	"moult.example/internal/disk/disktest"
)

func open(t testing.TB, dir string) disk.FS {
	t.Helper()
	root, err := disk.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// Whatever is done, the model and the real file system hold the same at the
// end, and each kill is what the real one held at that moment.
func TestModelIsLikeTheRealOne(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			dir := disktest.TempDir(t)
			for name, text := range map[string]string{"a": "1", "b": "two", "d/c": "3", "d/e/f": "four"} {
				must(t, os.MkdirAll(filepath.Join(dir, path.Dir(name)), 0o755))
				must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
			}
			must(t, os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "d/a2")))
			rec := disktest.Record(t, dir, open(t, dir))
			var want []*disktest.Tree
			var at []int
			j := &juggler{fs: rec, rng: rand.New(rand.NewPCG(seed, 7))}
			for range 60 {
				j.step(t)
				tree, err := disktest.Capture(dir)
				must(t, err)
				want, at = append(want, tree), append(at, len(rec.Log()))
			}
			kills := slices.Collect(disktest.Kills(rec.Initial(), rec.Log()))
			for i, n := range at {
				if d := want[i].Diff(kills[n].Tree()); d != "" {
					t.Fatalf("%s:\n%s", kills[n], d)
				}
			}
			again := disktest.TempDir(t)
			must(t, kills[at[len(at)-1]].Materialize(again))
			tree, err := disktest.Capture(again)
			must(t, err)
			if d := want[len(want)-1].Diff(tree); d != "" {
				t.Fatalf("made again:\n%s", d)
			}
		})
	}
}

// juggler does random things to a disk; many of them fail, as they should.
type juggler struct {
	fs  disk.FS
	rng *rand.Rand
}

var jugglerNames = []string{"a", "b", "c", "d", "d/a2", "d/c", "d/e", "d/e/f", "d/e/g", "h", "h/i", "h/j"}

func (j *juggler) name() string { return jugglerNames[j.rng.IntN(len(jugglerNames))] }

func (j *juggler) step(t testing.TB) {
	meta := disk.Meta{UID: -1, GID: -1, Mode: []uint32{0o744, 0o755, 0o700, 0o4755}[j.rng.IntN(4)], MTime: time.Unix(int64(j.rng.IntN(1e9)), 5)}
	if os.Geteuid() == 0 && j.rng.IntN(2) == 0 {
		meta.UID, meta.GID, meta.KeepMode = j.rng.IntN(3)-1, j.rng.IntN(3)-1, j.rng.IntN(2) == 0
	}
	if j.rng.IntN(4) == 0 {
		meta.Xattrs = map[string]string{"user.number": fmt.Sprint(j.rng.IntN(9))}
	}
	switch j.rng.IntN(14) {
	case 0, 1:
		f, err := j.fs.Create(j.name())
		if err != nil {
			return
		}
		fmt.Fprintf(f, "number %d", j.rng.IntN(1000))
		f.WriteAt([]byte("xyz"), int64(j.rng.IntN(20)))
		if j.rng.IntN(2) == 0 {
			f.Truncate(int64(j.rng.IntN(30)))
		}
		f.SetMeta(meta)
		f.Sync()
		f.Close()
	case 2:
		src, err := os.Open("/etc/passwd")
		must(t, err)
		defer src.Close()
		if f, err := j.fs.Create(j.name()); err == nil {
			must(t, f.CopyFrom(src, 100))
			f.Close()
		}
	case 3:
		j.fs.Append(j.name(), []byte("more\n"))
	case 4:
		j.fs.Mkdir(j.name())
	case 5:
		j.fs.Symlink("to "+j.name(), j.name())
	case 6, 7:
		j.fs.Link(j.name(), j.name())
	case 8, 9:
		j.fs.Rename(j.name(), j.name())
	case 10:
		j.fs.Place(j.name(), j.name())
	case 11:
		j.fs.Exchange(j.name(), j.name())
	case 12:
		j.fs.Remove(j.name())
	case 13:
		if j.rng.IntN(2) == 0 {
			j.fs.SetMeta(j.name(), meta)
		} else {
			j.fs.SyncDir(path.Dir(j.name()))
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
