package disk_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
	"moult.example/internal/disk/disktest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErrno(t testing.TB, what string, err error, want syscall.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error is %v, want %v", what, err, want)
	}
}

// A disk that is full says so, and by the name of the call.
func TestFullDisk(t *testing.T) {
	dir := disktest.Tmpfs(t, 1024)
	fsys := open(t, dir)
	big := make([]byte, 2<<20)
	for n := range big {
		big[n] = byte(n)
	}
	f, err := fsys.Create("write")
	must(t, err)
	n, err := f.Write(big)
	wantErrno(t, "write", err, unix.ENOSPC)
	if n >= len(big) {
		t.Errorf("wrote %d bytes to a disk of half of that", n)
	}
	must(t, f.Close())
	must(t, fsys.Remove("write"))

	name := filepath.Join(t.TempDir(), "source")
	must(t, os.WriteFile(name, big, 0o600))
	src, err := os.Open(name)
	must(t, err)
	defer src.Close()
	f, err = fsys.Create("copy")
	must(t, err)
	wantErrno(t, "copy", f.CopyFrom(src, int64(len(big))), unix.ENOSPC)
	must(t, f.Close())
	wantErrno(t, "append", fsys.Append("log", big), unix.ENOSPC)
}

// Another mount inside the tree: nothing moves there, and nothing is copied in
// the stead of being moved.
func TestMountInside(t *testing.T) {
	dir := disktest.Tmpfs(t, 1024)
	fsys := open(t, dir)
	must(t, fsys.Mkdir("inside"))
	must(t, unix.Mount("tmpfs", filepath.Join(dir, "inside"), "tmpfs", 0, "size=1m"))
	defer unix.Unmount(filepath.Join(dir, "inside"), 0)
	for _, name := range []string{"a", "inside/b"} {
		f, err := fsys.Create(name)
		must(t, err)
		must(t, f.Close())
	}
	before, err := disktest.Capture(dir)
	must(t, err)
	wantErrno(t, "rename", fsys.Rename("a", "inside/a"), unix.EXDEV)
	wantErrno(t, "place", fsys.Place("a", "inside/a"), unix.EXDEV)
	wantErrno(t, "exchange", fsys.Exchange("a", "inside/b"), unix.EXDEV)
	wantErrno(t, "link", fsys.Link("a", "inside/a"), unix.EXDEV)
	wantErrno(t, "rename the mount", fsys.Rename("inside", "elsewhere"), unix.EBUSY)
	wantErrno(t, "remove the mount", fsys.Remove("inside"), unix.EBUSY)
	after, err := disktest.Capture(dir)
	must(t, err)
	if d := before.Diff(after); d != "" {
		t.Errorf("what was refused has changed something:\n%s", d)
	}
}

func TestReadOnlyDisk(t *testing.T) {
	dir := disktest.Tmpfs(t, 1024)
	must(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "g"), nil, 0o644))
	must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	fsys := open(t, dir)
	_, err := fsys.Create("new")
	wantErrno(t, "create", err, unix.EROFS)
	for what, err := range map[string]error{
		"append": fsys.Append("f", nil), "mkdir": fsys.Mkdir("d"), "symlink": fsys.Symlink("t", "l"), "link": fsys.Link("f", "h"),
		"rename": fsys.Rename("f", "g"), "place": fsys.Place("f", "h"), "exchange": fsys.Exchange("f", "g"), "remove": fsys.Remove("f"),
		"setmeta": fsys.SetMeta("f", disk.Meta{UID: -1, GID: -1, Mode: 0o600}),
	} {
		wantErrno(t, what, err, unix.EROFS)
	}
}

// Whatever is done, in success or failure, no descriptor is left open.
func TestNoDescriptorIsLeft(t *testing.T) {
	count := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(names)
	}
	dir := t.TempDir()
	before := count()
	root, err := disk.Open(dir)
	must(t, err)
	for n := range 400 { // more directories than are held
		d := fmt.Sprintf("d%d", n)
		must(t, root.Mkdir(d))
		must(t, root.Mkdir(d+"/sub"))
		must(t, root.Symlink("f", d+"/sub/link"))
		root.Symlink("f", d+"/missing/sub/link")
		f, err := root.Create(d + "/f")
		must(t, err)
		must(t, f.Close())
		root.Create(d + "/f")
		root.Create(d + "/missing/f")
		root.Create(d + "/f/below")
		must(t, root.Append(d+"/log", []byte("x")))
		must(t, root.SetMeta(d+"/f", disk.Meta{UID: -1, GID: -1, Mode: 0o644}))
		root.SetMeta(d+"/f", disk.Meta{UID: -1, GID: -1, Mode: 0o644, Xattrs: map[string]string{"nonsense.x": ""}})
		must(t, root.SyncDir(d))
		root.SyncDir(d + "/f")
		if n%3 == 0 {
			must(t, root.Rename(d, d+"x"))
		}
	}
	most := count()
	must(t, root.Close())
	if after := count(); after != before {
		t.Errorf("%d descriptors are left open", after-before)
	}
	if most > before+300 {
		t.Errorf("%d descriptors were held at once", most-before)
	}
}

// Permissions are the kernel's business; an error has the name in it.
func TestWithoutPermission(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may do everything")
	}
	dir := t.TempDir()
	fsys := open(t, dir)
	must(t, fsys.Mkdir("d"))
	must(t, fsys.SetMeta("d", disk.Meta{UID: -1, GID: -1, Mode: 0o500}))
	_, err := fsys.Create("d/f")
	wantErrno(t, "create", err, unix.EACCES)
	wantErrno(t, "chown", fsys.SetMeta("d", disk.Meta{UID: 0, GID: -1, KeepMode: true}), unix.EPERM)
}
