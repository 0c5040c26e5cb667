package deploy

import (
	"context"
	"io/fs"
	"iter"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"moult.example/internal/release"
	"moult.example/internal/stale"
)

// inventory is what is in a generation's directory, ours or not, but for its
// books.
type inventory struct {
	root  unix.Stat_t
	items []item // by path
}

// item is a file, link or directory of a generation.
type item struct {
	path    string
	stat    unix.Stat_t
	text    string // of a symbolic link
	foreign bool   // mounted here
}

func (i *item) isDir() bool { return i.stat.Mode&unix.S_IFMT == unix.S_IFDIR }

// inventory lists a generation. What vanishes meanwhile is left out.
func (s *state) inventory(ctx context.Context, n int) (inv inventory, err error) {
	root, err := os.Open(s.abs(genDir(n)))
	if err != nil {
		return inv, err
	}
	defer root.Close()
	if err := unix.Fstat(int(root.Fd()), &inv.root); err != nil {
		return inv, &fs.PathError{Op: "fstat", Path: root.Name(), Err: err}
	}
	for level := []string{"."}; len(level) > 0; {
		found := make([][]item, len(level))
		err := parallelBy(ctx, len(level), 1, func(i int) (err error) {
			found[i], err = list(root, level[i], uint64(inv.root.Dev))
			return err
		})
		if err != nil {
			return inv, err
		}
		level = nil
		for _, items := range found {
			for i := range items {
				if items[i].isDir() && !items[i].foreign {
					level = append(level, items[i].path)
				}
			}
			inv.items = append(inv.items, items...)
		}
	}
	slices.SortFunc(inv.items, func(a, b item) int { return strings.Compare(a.path, b.path) })
	return inv, nil
}

// list is one directory of it.
func list(root *os.File, name string, dev uint64) ([]item, error) {
	fd, err := unix.Openat(int(root.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: root.Name() + "/" + name, Err: err}
	}
	dir := os.NewFile(uintptr(fd), root.Name()+"/"+name)
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	items := make([]item, 0, len(names))
	for _, base := range names {
		it := item{path: base}
		if name != "." {
			it.path = name + "/" + base
		} else if base == dotMoult {
			continue
		}
		err := unix.Fstatat(fd, base, &it.stat, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && it.stat.Mode&unix.S_IFMT == unix.S_IFLNK {
			it.text, err = readlinkat(fd, base)
		}
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "stat", Path: dir.Name() + "/" + base, Err: err}
		}
		it.foreign = uint64(it.stat.Dev) != dev
		items = append(items, it)
	}
	return items, nil
}

func readlinkat(dir int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// stranger is the first name, if any, that neither the manifest has nor moult
// has laid beside what it has.
func (inv *inventory) stranger(m *release.Manifest) (Path, bool) {
	for i := range inv.items {
		it := &inv.items[i]
		back := !strings.Contains(it.path, "/") && it.text == backText(it.path)
		if it.foreign || m.Find(it.path) == nil && !back && !isNew(m, it.path) {
			return Path(it.path), true
		}
	}
	return "", false
}

// inodes is for [stale.Tree].
func (inv *inventory) inodes() iter.Seq[stale.Inode] {
	return func(yield func(stale.Inode) bool) {
		if !yield(stale.Inode{Dev: uint64(inv.root.Dev), Ino: inv.root.Ino}) {
			return
		}
		for i := range inv.items {
			if st := &inv.items[i].stat; !yield(stale.Inode{Dev: uint64(st.Dev), Ino: st.Ino}) {
				return
			}
		}
	}
}

// alone is how many bytes the files have that no other name holds.
func (inv *inventory) alone() (sum int64) {
	for i := range inv.items {
		if st := &inv.items[i].stat; st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1 {
			sum += st.Size
		}
	}
	return sum
}
