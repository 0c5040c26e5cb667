package deploy

import (
	"bytes"
	"context"
	"encoding/binary"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"moult.example/internal/deploy/hostfacts"
	"moult.example/internal/stale"
)

// walk lists the directories of one generation.
type walk struct {
	root    *os.File
	dev     uint64
	asked   bool            // of each file, because the directory may not tell its inode
	mounted map[string]bool // what something is mounted on
}

// trust finds out if a directory's inode numbers are those of stat(2).
//
// They are on the file systems named here. Overlayfs has files of which the
// number in the directory is that of another layer, and network file systems may
// number as they like (Documentation/filesystems/overlayfs.rst, "Inode
// properties"). Of what is mounted on a file the directory knows nothing.
func (w *walk) trust(dev uint64) error {
	w.dev = dev
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(w.root.Fd()), &st); err != nil {
		return &fs.PathError{Op: "fstatfs", Path: w.root.Name(), Err: err}
	}
	switch uint32(st.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC:
	default:
		w.asked = true
	}
	real, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(w.root.Fd())))
	if err != nil {
		return err
	}
	mounts, err := hostfacts.MountsBelow(real)
	w.mounted = make(map[string]bool, len(mounts))
	for _, m := range mounts {
		w.mounted[strings.TrimPrefix(m.Point, real+"/")] = true
	}
	return err
}

var direntBufs = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// goDown lists the top of a tree, and what each list tells is below.
func goDown[T any](ctx context.Context, list func(name string) (found T, below []string, err error)) (all []T, err error) {
	for level := []string{"."}; len(level) > 0; {
		found, below := make([]T, len(level)), make([][]string, len(level))
		err := parallelBy(ctx, len(level), 1, func(i int) (err error) {
			found[i], below[i], err = list(level[i])
			return err
		})
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
		level = slices.Concat(below...)
	}
	return all, nil
}

// list is one directory, "." or below.
func (w *walk) list(name string) (items []item, err error) {
	err = w.read(name, func(fd int, d dirent, rest int) error {
		it := item{path: w.path(name, d)}
		err := w.meet(&it, fd, d)
		if err == nil {
			items = append(slices.Grow(items, rest/direntLeast+1), it)
		}
		return err
	})
	return items, err
}

// inodes are those in one directory, and the directories in it.
func (w *walk) inodes(name string) (found []stale.Inode, below []string, err error) {
	err = w.read(name, func(fd int, d dirent, rest int) error {
		id := stale.Inode{Dev: w.dev, Ino: d.ino}
		if w.asked || len(w.mounted) > 0 || d.kind != unix.DT_REG && d.kind != unix.DT_LNK {
			it := item{path: w.path(name, d)}
			if err := w.meet(&it, fd, d); err != nil {
				return err
			}
			if id = (stale.Inode{Dev: it.stat.Dev, Ino: it.stat.Ino}); it.isDir() && !it.foreign {
				below = append(below, it.path)
			}
		}
		found = append(slices.Grow(found, rest/direntLeast+1), id)
		return nil
	})
	return found, below, err
}

func (w *walk) path(dir string, d dirent) string {
	if dir == "." {
		return string(d.name)
	}
	return dir + "/" + string(d.name)
}

// read visits what is in a directory, with how many bytes there are to follow for
// now. What is not there any more is no error.
func (w *walk) read(name string, visit func(fd int, d dirent, rest int) error) error {
	fd, err := unix.Openat(int(w.root.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: w.root.Name() + "/" + name, Err: err}
	}
	defer unix.Close(fd)
	buf := direntBufs.Get().(*[]byte)
	defer direntBufs.Put(buf)
	for {
		n, err := unix.Getdents(fd, *buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "readdir", Path: w.root.Name() + "/" + name, Err: err}
		}
		if n == 0 {
			return nil
		}
		for rest := (*buf)[:n]; len(rest) > 0; {
			var d dirent
			if d, rest = nextDirent(rest); d.is(".") || d.is("..") || name == "." && d.is(dotMoult) {
				continue
			}
			if err := visit(fd, d, len(rest)); err != nil && err != unix.ENOENT {
				return &fs.PathError{Op: "stat", Path: w.root.Name() + "/" + w.path(name, d), Err: err}
			}
		}
	}
}

// meet fills in what the directory says of a file, and asks the file itself where
// that is not enough.
func (w *walk) meet(it *item, dir int, d dirent) error {
	it.foreign = w.mounted[it.path]
	switch {
	case w.asked || it.foreign:
	case d.kind == unix.DT_REG:
		it.stat = attributes{Dev: w.dev, Ino: d.ino, Mode: unix.S_IFREG}
		return nil
	}
	return it.look(dir, it.path[len(it.path)-len(d.name):], w.dev)
}

const (
	direntHead  = 8 + 8 + 2 + 1 // bytes: d_ino, d_off, d_reclen, d_type
	direntLeast = 24
)

// dirent is a struct linux_dirent64 of getdents64(2).
type dirent struct {
	ino  uint64
	kind byte
	name []byte
}

func (d *dirent) is(name string) bool { return string(d.name) == name }

// nextDirent takes the first of them off. Its length is the kernel's, which is
// trusted only as far as there are bytes.
func nextDirent(b []byte) (d dirent, rest []byte) {
	if len(b) < direntHead {
		return dirent{name: []byte(".")}, nil
	}
	n := int(binary.NativeEndian.Uint16(b[16:]))
	if n < direntHead || n > len(b) {
		return dirent{name: []byte(".")}, nil
	}
	name, _, _ := bytes.Cut(b[direntHead:n], []byte{0})
	return dirent{ino: binary.NativeEndian.Uint64(b), kind: b[18], name: name}, b[n:]
}
