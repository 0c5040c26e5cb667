package reexec

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"moult.example/internal/disk"
	"moult.example/internal/disk/disktest"
)

// small is an executable of a few bytes, with the processor of this test's own,
// and an ending.
func small(t *testing.T, ending string) []byte {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	image := make([]byte, 120, 200)
	copy(image, self[:20]) // class, byte order, type, machine
	order := binary.NativeEndian
	order.PutUint32(image[20:], 1)        // version
	order.PutUint64(image[24:], 0x400078) // entry
	order.PutUint64(image[32:], 64)       // where the program headers are
	order.PutUint16(image[52:], 64)
	order.PutUint16(image[54:], 56)
	order.PutUint16(image[56:], 1)
	order.PutUint32(image[64:], 1) // PT_LOAD
	order.PutUint64(image[64+32:], 120)
	return append(image, ending...)
}

// crashStates replaces a program on a disk that mutant spoils, and returns what
// a crash can leave at any moment.
func crashStates(t *testing.T, mutant func(disk.FS) disk.FS) (src string, states []disktest.State) {
	t.Helper()
	dir := disktest.TempDir(t)
	src = filepath.Join(t.TempDir(), "download")
	for path, text := range map[string][]byte{filepath.Join(dir, "app"): small(t, "old"), src: small(t, "new")} {
		if err := os.WriteFile(path, text, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o755); err != nil { // whatever the umask is
			t.Fatal(err)
		}
	}
	defer func(was func(string) (disk.FS, error)) { openDisk = was }(openDisk)
	var rec *disktest.Recorder
	openDisk = func(dir string) (disk.FS, error) {
		d, err := disk.Open(dir)
		if err != nil {
			return nil, err
		}
		rec = disktest.Record(t, dir, d)
		return mutant(rec.Sub(".", d)), nil
	}
	if err := ReplaceWith(src, ReplaceOptions{Path: filepath.Join(dir, "app")}); err != nil {
		t.Fatal(err)
	}
	rec.Mark("done")
	return src, rec.States(disktest.Options{})
}

// recheck wants the old program or the new one, whole, and the new one if that
// was promised; and that the next replacement leaves nothing else.
func recheck(t *testing.T, src string) func(dir string, s disktest.State) error {
	was, is := string(small(t, "old")), string(small(t, "new"))
	return func(dir string, s disktest.State) error {
		path := filepath.Join(dir, "app")
		text, err := os.ReadFile(path)
		fi, statErr := os.Stat(path)
		if err != nil || statErr != nil {
			return fmt.Errorf("no program: %w", err)
		}
		if got := string(text); got != was && got != is || s.After("done") && got != is || fi.Mode() != 0o755 {
			return fmt.Errorf("%d bytes, ending %q, mode %v (done: %v)", len(got), got[max(0, len(got)-3):], fi.Mode(), s.After("done"))
		}
		if err := ReplaceWith(src, ReplaceOptions{Path: path}); err != nil {
			return fmt.Errorf("replacing again: %w", err)
		}
		names, err := os.ReadDir(dir)
		for _, name := range names {
			if strings.HasPrefix(name.Name(), stagePrefix) {
				return fmt.Errorf("%s is left", name.Name())
			}
		}
		return err
	}
}

// TestReplaceCrash kills and cuts the power at every step.
func TestReplaceCrash(t *testing.T) {
	src, states := crashStates(t, func(under disk.FS) disk.FS { return under })
	if r := disktest.Try(t, states, recheck(t, src)); len(r.Bad) > 0 || r.States < 5 {
		t.Error(r)
	}
}

// TestReplaceMutants seeds faults that the crash test must catch.
func TestReplaceMutants(t *testing.T) {
	for name, mutant := range map[string]func(disk.FS) disk.FS{
		"the file is not synced": func(under disk.FS) disk.FS {
			return disktest.Drop(under, disktest.Is(disktest.OpSync, ""))
		},
		"the directory is not synced": func(under disk.FS) disk.FS {
			return disktest.Drop(under, disktest.Is(disktest.OpSyncDir, ""))
		},
		"mode and owner come after the sync": func(under disk.FS) disk.FS {
			return disktest.Delay(under, disktest.Is(disktest.OpFileMeta, ""), disktest.Is(disktest.OpSync, ""))
		},
	} {
		src, states := crashStates(t, mutant)
		if r := disktest.TryUntilBad(t, states, recheck(t, src)); len(r.Bad) == 0 {
			t.Errorf("%s: nothing wrong in %d states, want that found", name, r.States)
		}
	}
}
