package disktest_test

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
	"moult.example/internal/disk/disktest"
)

func TestMeasuredOutcomesAreAmongTheStates(t *testing.T) {
	for _, m := range measured {
		t.Run(m.what, func(t *testing.T) {
			dir := disktest.TempDir(t)
			plant(t, dir, m.initial)
			rec := disktest.Record(t, dir, open(t, dir))
			m.job(job{rec, t})
			var end []disktest.State
			for _, s := range rec.States(disktest.Options{Random: -1}) { // none by luck
				if s.Last == len(rec.Log()) {
					end = append(end, s)
				}
			}
			for _, want := range m.outcomes {
				if !anyOf(end, want) {
					t.Errorf("not among the %d states at the end: %s", len(end), want)
				}
			}
			for _, s := range end {
				if m.only && !anyOutcome(s.Tree(), m.outcomes) {
					t.Errorf("%s\nleaves what was never seen:\n%s", s, s.Tree())
				}
			}
		})
	}
}

// The model is held against the real file systems: what a power cut leaves on
// each of them, the model must know.
func TestRealPowerCutsAreAmongTheStates(t *testing.T) {
	for fsType, sizeMB := range map[string]int{"ext4": 64, "xfs": 300, "btrfs": 128} {
		t.Run(fsType, func(t *testing.T) {
			loop := disktest.LoopFS(t, fsType, sizeMB)
			var cuts []realCut
			for n, m := range measured {
				name := fmt.Sprint(n)
				dir := filepath.Join(loop.Dir, name)
				must(t, os.Mkdir(dir, 0o755))
				plant(t, dir, m.initial)
				disk := open(t, dir)
				must(t, disk.SyncFS())
				rec := disktest.Record(t, dir, disk)
				m.job(job{rec, t})
				cuts = append(cuts, realCut{m.what, name, rec.States(disktest.Options{}), loop.Snapshot(t)})
			}
			for _, c := range cuts {
				c.check(t)
			}
		})
	}
}

// realCut is a snapshot and what the model says that it may hold.
type realCut struct {
	what, name string
	states     []disktest.State
	snapshot   *disktest.Loop
}

func (c realCut) check(t *testing.T) {
	t.Helper()
	c.snapshot.Mount(t)
	defer c.snapshot.Remove(t)
	tree, err := disktest.Capture(filepath.Join(c.snapshot.Dir, c.name))
	must(t, err)
	for _, s := range c.states {
		if s.Tree().Equal(tree) {
			t.Logf("%s: %s", c.what, s)
			return
		}
	}
	t.Errorf("%s: none of the %d states is what was left:\n%s", c.what, len(c.states), tree)
}

// A failed sync is not mended by one that succeeds. The recorder must see the
// failure, so the fault is under it.
func TestFailedSyncIsNotMendedByTheNext(t *testing.T) {
	dir := disktest.TempDir(t)
	in := disktest.Inject(open(t, dir), disktest.Fault{At: 1, Match: disktest.Is(disktest.OpSync, ""), Errno: unix.EIO})
	rec := disktest.Record(t, dir, in)
	f, err := rec.Create("f")
	must(t, err)
	f.Write([]byte("new"))
	if f.Sync() == nil || f.Sync() != nil {
		t.Fatal("want the first sync to fail, and no other")
	}
	f.Close()
	must(t, rec.SyncDir("."))
	rec.Mark("done")
	states := rec.States(disktest.Options{})
	for _, s := range states {
		if s.After("done") && holds(s.Tree(), "f=0") {
			return
		}
	}
	t.Errorf("the bytes of a failed sync are safe in all %d states", len(states))
}

func anyOf(states []disktest.State, outcome string) bool {
	for _, s := range states {
		if holds(s.Tree(), outcome) {
			return true
		}
	}
	return false
}

func anyOutcome(tree *disktest.Tree, outcomes []string) bool {
	for _, o := range outcomes {
		if holds(tree, o) {
			return true
		}
	}
	return false
}

// holds says whether the tree holds name=text, and so on.
func holds(tree *disktest.Tree, outcome string) bool {
	for _, want := range strings.Fields(outcome) {
		name, text, _ := strings.Cut(want, "=")
		e := tree.Entries[name]
		switch {
		case text == "-" || e == nil:
			if e != nil || text != "-" {
				return false
			}
		case text == "0":
			if len(e.Data) != 0 {
				return false
			}
		case text[0] == '%':
			if string(e.Data) != strings.Repeat("\x00", int(octal(text[1:]))) {
				return false
			}
		case text[0] == '@':
			if e.Text != text[1:] {
				return false
			}
		case text[0] == '0':
			if e.Mode&0o7777 != octal(text) {
				return false
			}
		case string(e.Data) != text:
			return false
		}
	}
	return true
}

func octal(text string) (mode uint32) {
	for _, c := range text {
		mode = mode*8 + uint32(c-'0')
	}
	return mode
}

// plant makes a tree of name=text.
func plant(t testing.TB, dir, tree string) {
	t.Helper()
	for _, want := range strings.Fields(tree) {
		name, text, _ := strings.Cut(want, "=")
		full := filepath.Join(dir, name)
		must(t, os.MkdirAll(path.Dir(full), 0o755))
		switch text[0] {
		case '@':
			must(t, os.Symlink(text[1:], full))
		case '0':
			must(t, os.WriteFile(full, []byte("x"), 0o600))
			must(t, os.Chmod(full, os.FileMode(octal(text))))
		default:
			must(t, os.WriteFile(full, []byte(text), 0o644))
		}
	}
}

// job is a disk with the steps of the table.
type job struct {
	disk.FS
	t testing.TB
}

func (j job) begin(name, text string) disk.File {
	j.t.Helper()
	f, err := j.Create(name)
	must(j.t, err)
	_, err = f.Write([]byte(text))
	must(j.t, err)
	return f
}

func (j job) write(name, text string, sync bool) {
	j.t.Helper()
	f := j.begin(name, text)
	if sync {
		must(j.t, f.Sync())
	}
	must(j.t, f.Close())
}

func (j job) rename(a, b string)       { j.t.Helper(); must(j.t, j.Rename(a, b)) }
func (j job) syncDir(name string)      { j.t.Helper(); must(j.t, j.SyncDir(name)) }
func (j job) append(name, text string) { j.t.Helper(); must(j.t, j.Append(name, []byte(text))) }

func (j job) generation(syncFiles bool) {
	must(j.t, j.Mkdir("gens/2"))
	j.write("gens/2/f", "new", syncFiles)
}

func (j job) turn() {
	must(j.t, j.Symlink("gens/2", ".live"))
	j.rename(".live", "live")
}
