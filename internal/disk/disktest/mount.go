package disktest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/testneed"
)

// Tmpfs mounts an empty tmpfs of so many kilobytes until the end of the test. It
// needs root.
func Tmpfs(t testing.TB, sizeKB int) string {
	t.Helper()
	testneed.Root(t)
	dir := filepath.Join(TempDir(t), "tmpfs")
	mount(t, dir, "tmpfs", fmt.Sprintf("size=%dk", sizeKB))
	return dir
}

// Overlay mounts an overlay of which the lower layer is the directory lower,
// which nobody may change meanwhile, until the end of the test. It needs root.
func Overlay(t testing.TB, lower string) string {
	t.Helper()
	testneed.Root(t)
	top := Tmpfs(t, 64<<10) // an overlay cannot be the upper layer of an overlay
	upper, work, dir := filepath.Join(top, "upper"), filepath.Join(top, "work"), filepath.Join(top, "mnt")
	for _, d := range []string{upper, work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mount(t, dir, "overlay", fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work))
	return dir
}

func mount(t testing.TB, dir, fsType, options string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(fsType, dir, fsType, 0, options); err != nil {
		testneed.Skip(t, fmt.Sprintf("cannot mount a %s: %v", fsType, err))
	}
	t.Cleanup(func() { unmount(t, dir) })
}
