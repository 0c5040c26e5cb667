package disktest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
	"moult.example/internal/disk/disktest"
)

// The instruments change nothing: behind all of them a disk does what it must.
func TestInstrumentsAreNotNoticed(t *testing.T) {
	disktest.Conformance(t, disktest.TempDir(t), func(t testing.TB, dir string) disk.FS {
		never := func(disktest.Op) bool { return false }
		return disktest.Drop(disktest.Delay(disktest.Inject(disktest.Record(t, dir, open(t, dir)), disktest.Fault{}), never, never), never)
	})
}

// Power cuts on real file systems, at each operation of the set protocol, by the
// way that the engine's own test takes.
func TestProtocolStandsOnRealFileSystems(t *testing.T) {
	for fsType, sizeMB := range map[string]int{"ext4": 64, "xfs": 300, "btrfs": 128} {
		t.Run(fsType, func(t *testing.T) {
			if bad := cutAtEach(t, fsType, sizeMB, same); len(bad) > 0 {
				t.Errorf("bad after these operations: %q", bad)
			}
		})
	}
	t.Run("a mutant on btrfs", func(t *testing.T) {
		if bad := cutAtEach(t, "btrfs", 128, func(fs disk.FS) disk.FS {
			return disktest.Drop(fs, disktest.Is(disktest.OpSyncDir, "d?"))
		}); len(bad) == 0 {
			t.Error("directories that were not synced were not missed")
		}
	})
}

func cutAtEach(t *testing.T, fsType string, sizeMB int, mutate func(disk.FS) disk.FS) (bad []string) {
	t.Helper()
	loop := disktest.LoopFS(t, fsType, sizeMB)
	plant(t, loop.Dir, many.initial)
	root := open(t, loop.Dir)
	must(t, root.SyncFS())
	type cut struct {
		after    string
		snapshot *disktest.Loop
	}
	var cuts []cut
	must(t, many.do(mutate(disktest.Wrap(root, func(op *disktest.Op, do func() error) error {
		err := do()
		cuts = append(cuts, cut{op.String(), loop.Snapshot(t)})
		return err
	}))))
	for n, c := range cuts {
		c.snapshot.Mount(t)
		root, err := disk.Open(c.snapshot.Dir)
		must(t, err)
		err = recoverSet(c.snapshot.Dir, root)
		if err == nil {
			err = many.check(c.snapshot.Dir, n == len(cuts)-1)
		}
		if err != nil {
			bad = append(bad, fmt.Sprintf("%s: %v", c.after, err))
		}
		must(t, root.Close())
		c.snapshot.Remove(t)
	}
	return bad
}

// Where no blocks can be shared, a snapshot is a sparse copy.
func TestSnapshotWithoutSharing(t *testing.T) {
	image := filepath.Join(disktest.Tmpfs(t, 64<<10), "image")
	f, err := os.Create(image)
	must(t, err)
	defer f.Close()
	must(t, f.Truncate(16<<20))
	for _, at := range []int64{0, 5<<20 - 3, 16<<20 - 4} {
		_, err := f.WriteAt([]byte("text"), at)
		must(t, err)
	}
	_, err = f.WriteAt(make([]byte, 1<<20), 8<<20)
	must(t, err)
	s := (&disktest.Loop{Image: image}).Snapshot(t)
	want, err := os.ReadFile(image)
	must(t, err)
	got, err := os.ReadFile(s.Image)
	must(t, err)
	if string(got) != string(want) {
		t.Error("the copy differs")
	}
	var st unix.Stat_t
	must(t, unix.Stat(s.Image, &st))
	if st.Blocks*512 > 1<<20 {
		t.Errorf("the copy takes %d bytes", st.Blocks*512)
	}
	s.Remove(t)
	if _, err := os.Stat(s.Image); err == nil {
		t.Error("the copy is still there")
	}
}
