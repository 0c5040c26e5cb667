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
	name  string // of the directory, below the target
	root  attributes
	items []item // by path
}

// attributes are what of stat(2) matters here; the types of unix.Stat_t are others
// on other processors.
type attributes struct {
	Dev, Ino              uint64
	Mode, Uid, Gid, Nlink uint32
	Size                  int64
}

// item is a file, link or directory of a generation.
type item struct {
	path    string
	stat    attributes
	text    string // of a symbolic link
	foreign bool   // mounted here
	fixed   bool   // immutable, or for appending only: nobody can remove it, or what is in it
}

func (i *item) isDir() bool { return i.stat.Mode&unix.S_IFMT == unix.S_IFDIR }

// inventory lists a generation. What vanishes meanwhile is left out.
func (s *state) inventory(ctx context.Context, n int) (inv inventory, err error) {
	inv.name = s.file(genDir(n))
	root, err := os.Open(s.t.abs(inv.name))
	if err != nil {
		return inv, err
	}
	defer root.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(root.Fd()), &st); err != nil {
		return inv, &fs.PathError{Op: "fstat", Path: root.Name(), Err: err}
	}
	inv.root = attributes{Dev: uint64(st.Dev), Ino: st.Ino, Mode: st.Mode, Uid: st.Uid, Gid: st.Gid}
	for level := []string{"."}; len(level) > 0; {
		found := make([][]item, len(level))
		err := parallelBy(ctx, len(level), 1, func(i int) (err error) {
			found[i], err = list(root, level[i], inv.root.Dev)
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
		err := it.look(fd, base)
		if err == nil && it.stat.Mode&unix.S_IFMT == unix.S_IFLNK {
			it.text, err = readlinkat(fd, base)
		}
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "stat", Path: dir.Name() + "/" + base, Err: err}
		}
		it.foreign = it.foreign || it.stat.Dev != dev
		items = append(items, it)
	}
	return items, nil
}

// look is fstatat(2), with the attributes that only statx(2) tells.
func (i *item) look(dir int, base string) error {
	var st unix.Statx_t
	if err := unix.Statx(dir, base, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS, &st); err != nil {
		return err
	}
	i.stat = attributes{Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Ino: st.Ino, Mode: uint32(st.Mode), Nlink: st.Nlink,
		Uid: st.Uid, Gid: st.Gid, Size: int64(st.Size)}
	i.foreign = st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
	i.fixed = st.Attributes&attrFixed != 0
	return nil
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

// obstacle says why the generation cannot be taken apart, "" if it can. Half of
// it would stay under a name that recovery, and so every command, has to remove
// first.
func (s *state) obstacle(inv *inventory, m *release.Manifest) string {
	if name, ok := inv.stranger(m); ok {
		return "holds what no release has brought: " + name.Quoted()
	}
	root := item{stat: inv.root}
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, s.t.abs(inv.name), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &st) == nil {
		root.fixed = st.Attributes&attrFixed != 0
	}
	for _, it := range append([]item{root}, inv.items...) {
		path := Path(inv.name + "/" + it.path)
		switch {
		case it.fixed:
			return "cannot be removed, see chattr(1): " + path.Quoted()
		case it.isDir() && !s.t.mayChange(string(path), it.stat.Uid):
			return "cannot be removed by this user: " + path.Quoted()
		}
	}
	return ""
}

// mayChange says that we may remove what is in a directory, or may give us the
// right to.
func (t *Target) mayChange(dir string, owner uint32) bool {
	self := os.Geteuid()
	return self == 0 || int(owner) == self || unix.Faccessat(unix.AT_FDCWD, t.abs(dir), unix.W_OK|unix.X_OK, unix.AT_EACCESS) == nil
}

// inodes is for [stale.Tree].
func (inv *inventory) inodes() iter.Seq[stale.Inode] {
	return func(yield func(stale.Inode) bool) {
		if !yield(stale.Inode{Dev: inv.root.Dev, Ino: inv.root.Ino}) {
			return
		}
		for i := range inv.items {
			if st := &inv.items[i].stat; !yield(stale.Inode{Dev: st.Dev, Ino: st.Ino}) {
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
