package deploy

import (
	"bytes"
	"encoding/binary"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"moult.example/internal/deploy/hostfacts"
)

// walk lists the directories of one generation.
type walk struct {
	root    *os.File
	dev     uint64
	asked   bool            // of each file, because the directory may not tell its inode
	brief   bool            // of a symbolic link, too, the inode number is enough
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

// list is one directory, "." or below.
func (w *walk) list(name string) (items []item, err error) {
	fd, err := unix.Openat(int(w.root.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: w.root.Name() + "/" + name, Err: err}
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
			return nil, &fs.PathError{Op: "readdir", Path: w.root.Name() + "/" + name, Err: err}
		}
		if n == 0 {
			return items, nil
		}
		items = slices.Grow(items, n/direntLeast)
		for rest := (*buf)[:n]; len(rest) > 0; {
			var d dirent
			if d, rest = nextDirent(rest); d.is(".") || d.is("..") || name == "." && d.is(dotMoult) {
				continue
			}
			var it item
			if name != "." {
				it.path = name + "/" + string(d.name)
			} else {
				it.path = string(d.name)
			}
			if err := w.meet(&it, fd, d); err == unix.ENOENT {
				continue
			} else if err != nil {
				return nil, &fs.PathError{Op: "stat", Path: w.root.Name() + "/" + it.path, Err: err}
			}
			items = append(items, it)
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
	case d.kind == unix.DT_LNK && w.brief:
		it.stat = attributes{Dev: w.dev, Ino: d.ino, Mode: unix.S_IFLNK}
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
