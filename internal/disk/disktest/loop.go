package disktest

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/testneed"
)

// Loop is a real file system in an image file.
type Loop struct {
	Dir   string // where it is, or will be, mounted
	Image string // the file that holds it
	Type  string // ext4, xfs, btrfs

	mounted bool
	copies  atomic.Int32
}

// LoopFS makes a file system (ext4, xfs or btrfs) of so many megabytes in an
// image and mounts it until the end of the test. XFS needs 300, btrfs 110. It
// needs root, the mkfs of that type and a loop device.
func LoopFS(t testing.TB, fsType string, sizeMB int) *Loop {
	t.Helper()
	testneed.Root(t)
	mkfs := testneed.Tool(t, "mkfs."+fsType)
	top := imageDir(t)
	l := &Loop{Image: filepath.Join(top, "image"), Type: fsType, Dir: filepath.Join(top, "mnt")}
	makeImage(t, mkfs, l.Image, sizeMB)
	l.Mount(t)
	return l
}

func makeImage(t testing.TB, mkfs, image string, sizeMB int) {
	t.Helper()
	f, err := os.Create(image)
	if err == nil {
		err = f.Truncate(int64(sizeMB) << 20)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs, "-q", image).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", mkfs, err, out)
	}
}

// imageDir is a directory for images in which a copy of one costs nothing and is
// of one moment: on an XFS of its own, which shares blocks. Without XFS it is an
// ordinary one.
func imageDir(t testing.TB) string {
	t.Helper()
	dir := TempDir(t)
	mkfs, err := exec.LookPath("mkfs.xfs")
	if err != nil {
		return dir
	}
	bed := &Loop{Image: filepath.Join(dir, "bed"), Type: "xfs", Dir: filepath.Join(dir, "bed.mnt")}
	makeImage(t, mkfs, bed.Image, 8<<10)
	bed.Mount(t)
	return bed.Dir
}

// Mount mounts the file system until Unmount or the end of the test. Some
// snapshots of one btrfs cannot be mounted together before Linux 6.7: there the
// others have to be unmounted first.
func (l *Loop) Mount(t testing.TB) {
	t.Helper()
	if err := os.MkdirAll(l.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	options := "loop"
	if l.Type == "xfs" {
		options += ",nouuid" // a snapshot has the same
	}
	out, err := exec.Command(testneed.Tool(t, "mount"), "-t", l.Type, "-o", options, l.Image, l.Dir).CombinedOutput()
	if err != nil {
		if bytes.Contains(out, []byte("loop device")) || bytes.Contains(out, []byte("unknown filesystem")) {
			testneed.Skip(t, "cannot mount an image: "+strings.TrimSpace(string(out)))
		}
		t.Fatalf("mount %s: %v\n%s", l.Image, err, out)
	}
	l.mounted = true
	t.Cleanup(func() { l.Unmount(t) })
}

// Unmount unmounts the file system, if it is mounted.
func (l *Loop) Unmount(t testing.TB) {
	t.Helper()
	if !l.mounted {
		return
	}
	l.mounted = false
	unmount(t, l.Dir)
}

// unmount waits a little for what is busy: a loop device lets go of its image
// only after whoever else looks at it (udev) has closed it. It does not insist: a
// program of this package that has got a mount namespace of its own meanwhile has
// a copy of the mount, and keeps what is below it busy for as long as it runs.
func unmount(t testing.TB, dir string) {
	t.Helper()
	err := unix.Unmount(dir, 0)
	for deadline := time.Now().Add(30 * time.Second); err == unix.EBUSY && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
		err = unix.Unmount(dir, 0)
	}
	if err == unix.EBUSY {
		err = unix.Unmount(dir, unix.MNT_DETACH)
	}
	if err != nil {
		t.Errorf("unmount %s: %v", dir, err)
	}
}

// Snapshot copies the image as it is now, while the original is mounted and
// worked on: what a power cut at this moment would leave on a disk that keeps
// all that it was sent. The copy is not mounted; Remove gives its space back.
//
// Where the image lies on a file system that can share blocks the copy is of one
// moment (FICLONE). Where not, the copy is only right while nothing is written;
// the kernel may write on its own.
func (l *Loop) Snapshot(t testing.TB) *Loop {
	t.Helper()
	n := l.copies.Add(1)
	s := &Loop{Image: fmt.Sprintf("%s.%d", l.Image, n), Dir: fmt.Sprintf("%s.%d", l.Dir, n), Type: l.Type}
	if err := cloneImage(l.Image, s.Image); err != nil {
		t.Fatal(err)
	}
	return s
}

// Remove unmounts the file system and removes its image.
func (l *Loop) Remove(t testing.TB) {
	t.Helper()
	l.Unmount(t)
	if err := os.Remove(l.Image); err != nil {
		t.Error(err)
	}
}

func cloneImage(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	defer dst.Close()
	if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil {
		return nil
	}
	info, err := src.Stat()
	if err != nil {
		return err
	}
	if err := dst.Truncate(info.Size()); err != nil {
		return err
	}
	return copyData(dst, src)
}

// copyData copies all but holes and zeros.
func copyData(dst, src *os.File) error {
	block, zeros := make([]byte, 64<<10), make([]byte, 64<<10)
	for off := int64(0); ; {
		data, err := unix.Seek(int(src.Fd()), off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return nil
		}
		if err != nil {
			return err
		}
		n, err := src.ReadAt(block, data)
		if err != nil && err != io.EOF {
			return err
		}
		if !bytes.Equal(block[:n], zeros[:n]) {
			if _, err := dst.WriteAt(block[:n], data); err != nil {
				return err
			}
		}
		off = data + int64(n)
	}
}
