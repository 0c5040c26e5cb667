package hostfacts

import (
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"moult.example/internal/testneed"
)

// A file system of 1 MB and 100 inodes, before and after a file is written.
func TestFreeSpace(t *testing.T) {
	testneed.Root(t)
	dir := t.TempDir()
	mount(t, "none", dir, "tmpfs", 0, "size=1m,nr_inodes=100")
	before, err := FreeSpace(dir)
	if err != nil {
		t.Fatal(err)
	}
	page := uint64(os.Getpagesize())
	if before.AllBytes != 1<<20 || before.AllInodes != 100 || before.Block != page || before.Bytes != 1<<20 || before.Inodes != 99 {
		t.Errorf("got %+v, want 1 MB and 99 of 100 inodes free in pages", before)
	}
	if err := os.WriteFile(dir+"/x", make([]byte, 10*page), 0o644); err != nil {
		t.Fatal(err)
	}
	after, err := FreeSpace(dir)
	if err != nil || after.Bytes != before.Bytes-10*page || after.Inodes != 98 {
		t.Errorf("after 10 pages: got %+v, %v, want that much less than %+v", after, err, before)
	}
	mount(t, "none", dir, "tmpfs", 0, "nr_inodes=0")
	if s, err := FreeSpace(dir); err != nil || s.Inodes != math.MaxUint64 || s.AllInodes != 0 {
		t.Errorf("without a limit: got %+v, %v, want the most", s, err)
	}
}

func mountImage(t *testing.T, mkfs string, args ...string) string {
	t.Helper()
	testneed.Root(t)
	base := t.TempDir()
	image, at := filepath.Join(base, "image"), filepath.Join(base, "at")
	makeAll(t, base, "image", "at/")
	if err := os.Truncate(image, 128<<20); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{
		append(append([]string{testneed.Tool(t, mkfs)}, args...), image),
		{testneed.Tool(t, "mount"), "-o", "loop", image, at},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", command, err, out)
		}
	}
	t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
	return at
}

// ext4 keeps blocks back for who may have them, here a quarter.
func TestReserve(t *testing.T) {
	at := mountImage(t, "mkfs.ext4", "-q", "-m", "25")
	st, err := statfs(at)
	if err != nil {
		t.Fatal(err)
	}
	if st.Bfree-st.Bavail < st.Blocks/5 {
		t.Fatalf("got %d of %d blocks reserved, want a quarter", st.Bfree-st.Bavail, st.Blocks)
	}
	want := st.Bavail
	if mayUseReserve() {
		want = st.Bfree
	}
	if s, err := FreeSpace(at); err != nil || s.Bytes != want*uint64(st.Frsize) {
		t.Errorf("got %d bytes free, %v, want %d blocks of %d", s.Bytes, err, want, st.Frsize)
	}
}

func setFlags(t *testing.T, path string, flags uint32) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags)); err != nil {
		t.Fatalf("set flags of %s: %v", path, err)
	}
}

// Flags on ext4, by both ways to ask for them.
func TestFileFlags(t *testing.T) {
	at := mountImage(t, "mkfs.ext4", "-q")
	makeAll(t, at, "immutable", "append", "dir/", "plain")
	if err := os.Symlink("immutable", at+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(at+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	setFlags(t, at+"/immutable", immutableFlag)
	setFlags(t, at+"/append", appendFlag)
	setFlags(t, at+"/dir", immutableFlag|appendFlag)
	for name, want := range map[string]Flags{
		"immutable": {Immutable: true}, "append": {AppendOnly: true}, "dir": {true, true},
		"plain": {}, "link": {}, "fifo": {},
	} {
		if got, err := FileFlags(filepath.Join(at, name)); err != nil || got != want {
			t.Errorf("FileFlags(%s) = %+v, %v, want %+v", name, got, err, want)
		}
		if name == "link" || name == "fifo" {
			continue
		}
		if got, err := flagsByDescriptor(filepath.Join(at, name)); err != nil || got != want {
			t.Errorf("flagsByDescriptor(%s) = %+v, %v, want %+v", name, got, err, want)
		}
	}
}

// File systems without flags have none, and say so without an error.
func TestNoFlags(t *testing.T) {
	for _, path := range []string{"/proc/self/stat", "/proc/self", "/dev/null", "/sys/kernel"} {
		if got, err := FileFlags(path); err != nil || got != (Flags{}) {
			t.Errorf("FileFlags(%s) = %+v, %v, want none", path, got, err)
		}
	}
	if got, err := flagsByDescriptor("/proc/self/stat"); err != nil || got != (Flags{}) {
		t.Errorf("without the ioctl: got %+v, %v, want none", got, err)
	}
}
