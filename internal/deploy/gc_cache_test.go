package deploy

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
	"moult.example/internal/disk/disktest"
	"moult.example/internal/release"
)

// TestWriteDuringGC: who writes into a live file while gc removes others, and puts
// its time back, is not taken for gc, which moves change times too.
func TestWriteDuringGC(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "app")
	var during func()
	target := open(t, dir, func(o *Options) {
		o.Disk = func(path string) (disk.FS, error) {
			root, err := disk.Open(path)
			if err != nil {
				return nil, err
			}
			return disktest.Wrap(root, func(op *disktest.Op, do func() error) error {
				if op.Kind == disktest.OpRemove && strings.Contains(op.Name, "/.trash-") && during != nil {
					during()
					during = nil
				}
				return do()
			}), nil
		}
	})
	for _, version := range []string{"1", "2", "3"} {
		apply(t, target, tree{"bin/tool": "0755:tool " + version, "bin/same": "same"}, ApplyOptions{})
	}
	s, err := target.state("")
	must(t, err)
	stat := func(name string) (u unix.Stat_t) {
		must(t, unix.Stat(dir+"/"+name, &u))
		return u
	}
	knows := func(name string) bool {
		u := stat(name)
		_, ok := s.loadCache().lookup(name, statOf(&u))
		return ok
	}
	for deadline := time.Now().Add(time.Minute); !knows("bin/tool"); {
		if time.Now().After(deadline) {
			t.Fatal("nothing is learned of a file that stays as it is")
		}
		apply(t, target, tree{"bin/tool": "0755:tool 3", "bin/same": "same"}, ApplyOptions{})
	}
	was := stat("bin/tool")
	during = func() {
		must(t, os.WriteFile(dir+"/bin/tool", []byte("toll 3"), 0o755))
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, dir+"/bin/tool", []unix.Timespec{was.Atim, was.Mtim}, 0))
		for u := stat("bin/tool"); !statOf(&u).Settled(release.Now()); {
			time.Sleep(time.Millisecond)
		}
	}
	c, err := target.GC(context.Background(), GCOptions{Retention: Retention{Generations: 1, Unreadable: true}})
	must(t, err)
	if len(c.Collected) == 0 || during != nil {
		t.Fatalf("it collected %v and kept %+v", c.Collected, c.Kept)
	}
	if knows("bin/tool") {
		t.Error("the cache has the digest of what was there before for a file that was written to")
	}
	res := apply(t, target, tree{"bin/tool": "0755:tool 3", "bin/same": "same"}, ApplyOptions{})
	if len(res.Mended) != 1 {
		t.Errorf("mended %v, want bin/tool", res.Mended)
	}
}
