package deploy

import (
	"context"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk/disktest"
	"moult.example/internal/stale"
	"moult.example/internal/testneed"
)

// TestInventory: what the directories of a generation tell is what stat(2) tells
// of each file, on file systems where that can be trusted and where it cannot,
// and of a file on which another is mounted.
func TestInventory(t *testing.T) {
	testneed.Root(t)
	places := map[string]func() string{
		"here":  func() string { return t.TempDir() },
		"tmpfs": func() string { return disktest.Tmpfs(t, 1<<10) },
		"xfs":   func() string { return disktest.LoopFS(t, "xfs", 300).Dir },
		"btrfs": func() string { return disktest.LoopFS(t, "btrfs", 110).Dir },
		"overlay": func() string {
			lower := disktest.TempDir(t)
			plantGeneration(t, lower+"/app")
			return disktest.Overlay(t, lower)
		},
	}
	for name, place := range places {
		t.Run(name, func(t *testing.T) {
			app := place() + "/app"
			gen := app + "/" + dotMoult + "/generations/1"
			if name != "overlay" {
				plantGeneration(t, app)
			}
			must(t, os.WriteFile(gen+"/lib/later", nil, 0o644))
			must(t, unix.Mount(gen+"/lib/later", gen+"/bin/mounted", "", unix.MS_BIND, ""))
			defer func() { must(t, unix.Unmount(gen+"/bin/mounted", 0)) }()

			target, err := Open(app, crashOptions(t.TempDir(), quiet))
			must(t, err)
			defer target.Close()
			s := &state{t: target, layout: Owned, dir: dotMoult}
			inv, err := s.inventory(context.Background(), 1)
			must(t, err)
			compareInventory(t, gen, &inv, false)
			must(t, inv.examine(context.Background(), s, func(*item) bool { return true }))
			compareInventory(t, gen, &inv, true)
			want := slices.Sorted(idsOf(inv.inodes()))
			ids, err := s.inodes(context.Background(), 1)
			must(t, err)
			if got := slices.Sorted(idsOf(ids)); !slices.Equal(got, want) {
				t.Errorf("inodes alone: got %v, want %v", got, want)
			}
		})
	}
}

func idsOf(inodes iter.Seq[stale.Inode]) iter.Seq[string] {
	return func(yield func(string) bool) {
		for id := range inodes {
			if !yield(fmt.Sprintf("%x:%d", id.Dev, id.Ino)) {
				return
			}
		}
	}
}

// plantGeneration makes what looks like a generation, with a file of each kind.
func plantGeneration(t *testing.T, app string) {
	gen := app + "/" + dotMoult + "/generations/1"
	tree{"bin/prog": "1", "bin/mounted": "2", "lib/a/b/c": "3", "lib/x\ny \xff": "4", dotMoult + "/manifest": ""}.write(t, gen)
	must(t, os.Link(gen+"/bin/prog", gen+"/lib/same"))
	must(t, os.Symlink("../../../etc", gen+"/etc"))
	must(t, unix.Mkfifo(gen+"/lib/fifo", 0o600))
}

// compareInventory compares with lstat(2); of what was not examined there is the
// type and the inode.
func compareInventory(t *testing.T, gen string, inv *inventory, examined bool) {
	t.Helper()
	found := map[string]*item{}
	for i := range inv.items {
		found[inv.items[i].path] = &inv.items[i]
	}
	must(t, filepath.WalkDir(gen, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == gen {
			return err
		}
		if d.Name() == dotMoult {
			return fs.SkipDir
		}
		name := path[len(gen)+1:]
		it := found[name]
		delete(found, name)
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		switch {
		case it == nil:
			t.Errorf("%q is not listed", name)
		case it.stat.Ino != st.Ino || it.stat.Dev != st.Dev || it.stat.Mode&unix.S_IFMT != st.Mode&unix.S_IFMT:
			t.Errorf("%q: got inode %d on %x, type %o; want %d on %x, %o", name, it.stat.Ino, it.stat.Dev, it.stat.Mode, st.Ino, st.Dev, st.Mode)
		case it.foreign != (name == "bin/mounted"):
			t.Errorf("%q: got foreign %v", name, it.foreign)
		case it.leadsBack() != (name == "etc"):
			t.Errorf("%q: leads back %v", name, it.leadsBack())
		case examined && (it.stat.Mode != st.Mode || it.stat.Nlink != uint32(st.Nlink) || it.stat.Size != st.Size || it.stat.MTime != st.Mtim.Nano()):
			t.Errorf("%q: got %+v, want %+v", name, it.stat, st)
		}
		return nil
	}))
	for name := range found {
		t.Errorf("%q is listed, and not there", name)
	}
}

// TestNextDirent: what is not a whole entry ends the list.
func TestNextDirent(t *testing.T) {
	whole := append([]byte{1, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 24, 0, unix.DT_REG}, "abc\x00\x00"...)
	if d, rest := nextDirent(append(whole, "rest"...)); d.ino != 1 || d.kind != unix.DT_REG || !d.is("abc") || string(rest) != "rest" {
		t.Errorf("got %+v and %q, want abc of inode 1, and the rest", d, rest)
	}
	for n := range whole {
		if d, rest := nextDirent(whole[:n]); !d.is(".") || rest != nil {
			t.Errorf("of %d bytes got %+v and %q, want the end", n, d, rest)
		}
	}
}
