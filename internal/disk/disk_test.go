package disk_test

import (
	"os"
	"path/filepath"
	"testing"

	"moult.example/internal/disk"
	"moult.example/internal/disk/disktest"
)

func open(t testing.TB, dir string) disk.FS {
	t.Helper()
	root, err := disk.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := root.Close(); err != nil {
			t.Error(err)
		}
	})
	return root
}

func TestConformance(t *testing.T) { disktest.Conformance(t, t.TempDir(), open) }

// What the kernel says is one thing, what each file system does another.
func TestConformanceOnRealFileSystems(t *testing.T) {
	for fsType, sizeMB := range map[string]int{"ext4": 64, "xfs": 300, "btrfs": 128} {
		t.Run(fsType, func(t *testing.T) {
			disktest.Conformance(t, disktest.LoopFS(t, fsType, sizeMB).Dir, open)
		})
	}
	t.Run("tmpfs", func(t *testing.T) { disktest.Conformance(t, disktest.Tmpfs(t, 64<<10), open) })
	t.Run("overlay", func(t *testing.T) {
		lower := t.TempDir()
		if err := os.WriteFile(filepath.Join(lower, "below"), []byte("below"), 0o644); err != nil {
			t.Fatal(err)
		}
		disktest.Conformance(t, disktest.Overlay(t, lower), open)
	})
}
