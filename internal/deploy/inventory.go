package deploy

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
	"moult.example/internal/release"
	"moult.example/internal/stale"
)

// inventory is what is in a generation's directory, ours or not, but for its
// books. Of files it has the inode number alone, which the directory tells; the
// rest takes a call for each, and [inventory.examine].
type inventory struct {
	name  string // of the directory, below the target
	root  attributes
	items []item // what is in a directory is behind it
}

// attributes are what of stat(2) matters here; the types of unix.Stat_t are others
// on other processors.
type attributes struct {
	Dev, Ino              uint64
	Mode, Uid, Gid, Nlink uint32
	Size, MTime, CTime    int64 // bytes; nanoseconds since 1970
}

// known is what the stat cache has of it.
func (a attributes) known() release.Stat {
	return release.Stat{Dev: a.Dev, Ino: a.Ino, Size: a.Size, MTime: a.MTime, CTime: a.CTime}
}

// item is a file, link or directory of a generation.
type item struct {
	path    string
	stat    attributes // of a file: Dev, Ino and the type, until it is examined
	text    string     // of a symbolic link
	foreign bool       // mounted here
	shut    bool       // a directory that we may not look into, its owner though we be
	fixed   bool       // immutable, or for appending only: nobody can remove it, or what is in it
	known   bool       // all of this
	stays   bool       // in what the next generation is made of
}

func (i *item) isDir() bool { return i.stat.Mode&unix.S_IFMT == unix.S_IFDIR }

// leadsBack says that it is a link of ours to what the administrator has in the
// target's directory.
func (i *item) leadsBack() bool {
	return !strings.Contains(i.path, "/") && i.text == backText(i.path)
}

// inventory lists a generation. What vanishes meanwhile is left out.
func (s *state) inventory(ctx context.Context, n int) (inv inventory, err error) {
	inv.name = s.file(genDir(n))
	w, st, err := s.walk(n)
	if err != nil {
		return inv, err
	}
	defer w.root.Close()
	inv.root = attributes{Dev: uint64(st.Dev), Ino: st.Ino, Mode: st.Mode, Uid: st.Uid, Gid: st.Gid, MTime: st.Mtim.Nano()}
	var shut sync.Map
	all, err := goDown(ctx, func(name string) (items []item, below []string, err error) {
		items, err = w.list(name)
		if errors.Is(err, fs.ErrPermission) && name != "." {
			shut.Store(name, true)
			return nil, nil, nil
		}
		for i := range items {
			if items[i].isDir() && !items[i].foreign {
				below = append(below, items[i].path)
			}
		}
		return items, below, err
	})
	inv.items = slices.Concat(all...)
	for i := range inv.items {
		if _, ok := shut.Load(inv.items[i].path); ok {
			inv.items[i].shut = true
		}
	}
	return inv, err
}

// inodes are those of a generation: all that is asked of one that stays.
func (s *state) inodes(ctx context.Context, n int) (iter.Seq[stale.Inode], error) {
	w, st, err := s.walk(n)
	if err != nil {
		return nil, err
	}
	defer w.root.Close()
	all, err := goDown(ctx, func(name string) ([]stale.Inode, []string, error) {
		found, below, err := w.inodes(name)
		if errors.Is(err, fs.ErrPermission) && name != "." {
			err = nil // nobody goes in there but root
		}
		return found, below, err
	})
	return func(yield func(stale.Inode) bool) {
		if !yield(stale.Inode{Dev: uint64(st.Dev), Ino: st.Ino}) {
			return
		}
		for _, found := range all {
			for _, id := range found {
				if !yield(id) {
					return
				}
			}
		}
	}, err
}

// walk opens a generation to be listed.
func (s *state) walk(n int) (w walk, st unix.Stat_t, err error) {
	if w.root, err = openTree(s.abs(genDir(n))); err != nil {
		return w, st, err
	}
	if err = unix.Fstat(int(w.root.Fd()), &st); err != nil {
		err = &fs.PathError{Op: "fstat", Path: w.root.Name(), Err: err}
	} else {
		err = w.trust(uint64(st.Dev))
	}
	if err != nil {
		w.root.Close()
	}
	return w, st, err
}

// examine finds out all about the items that are wanted.
func (inv *inventory) examine(ctx context.Context, s *state, wanted func(*item) bool) error {
	root, err := openTree(s.t.abs(inv.name))
	if err != nil {
		return err
	}
	defer root.Close()
	return parallel(ctx, len(inv.items), func(i int) error {
		it := &inv.items[i]
		if it.known || !wanted(it) {
			return nil
		}
		if err := it.look(int(root.Fd()), it.path, inv.root.Dev); err != nil && err != unix.ENOENT {
			return &fs.PathError{Op: "stat", Path: root.Name() + "/" + it.path, Err: err}
		}
		return nil
	})
}

// look is fstatat(2), with the attributes that only statx(2) tells, and the text
// of a symbolic link.
func (i *item) look(dir int, name string, dev uint64) error {
	var st unix.Statx_t
	if err := unix.Statx(dir, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS, &st); err != nil {
		return err
	}
	i.stat = attributes{Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Ino: st.Ino, Mode: uint32(st.Mode), Nlink: st.Nlink,
		Uid: st.Uid, Gid: st.Gid, Size: int64(st.Size), MTime: st.Mtime.Sec*1e9 + int64(st.Mtime.Nsec), CTime: st.Ctime.Sec*1e9 + int64(st.Ctime.Nsec)}
	// Files of an overlay whose layers are on several file systems have other
	// device numbers than its directories; a directory that has is a subvolume.
	i.foreign = i.foreign || st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 || i.isDir() && i.stat.Dev != dev
	i.fixed = st.Attributes&attrFixed != 0
	i.known = true
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return nil
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err == nil {
		i.text = string(buf[:n])
	}
	return err
}

// stranger is the first name, if any, that neither stays nor is in the manifest,
// and that moult has not laid beside what is.
func (inv *inventory) stranger(m entries) (Path, bool) {
	for i := range inv.items {
		it := &inv.items[i]
		if it.foreign || !it.stays && m.Find(it.path) == nil && !it.leadsBack() && !isNew(m, it.path) {
			return Path(it.path), true
		}
	}
	return "", false
}

// isStill says that the generation, under its new name, is what was listed: no
// name has come to any of its directories or gone, and none has other rights or
// attributes. What was written into a file of it shows by the file.
func (inv *inventory) isStill(s *state, as string) bool {
	root, err := openTree(s.abs(as))
	if err != nil {
		return false
	}
	defer root.Close()
	var st unix.Stat_t
	if unix.Fstat(int(root.Fd()), &st) != nil || st.Ino != inv.root.Ino || st.Mtim.Nano() != inv.root.MTime ||
		st.Uid != inv.root.Uid || st.Gid != inv.root.Gid {
		return false
	}
	for i := range inv.items {
		was := &inv.items[i]
		if !was.isDir() {
			continue
		}
		now := item{}
		if now.look(int(root.Fd()), was.path, inv.root.Dev) != nil || now.stat != was.stat || now.foreign != was.foreign || now.fixed != was.fixed {
			return false
		}
	}
	return true
}

// obstacle says why the generation cannot be taken apart, "" if it can. Half of
// it would stay under a name that recovery, and so every command, has to remove
// first. Only what was examined can be told to be immutable. Of what stays where
// it is nobody asks who has put it there.
func (s *state) obstacle(inv *inventory, m entries) string {
	if name, ok := inv.stranger(m); ok {
		return "holds what no release has brought: " + name.Quoted()
	}
	if name, ok := s.leftBehind(inv, m); ok {
		return "holds what was changed here, and the live release has no more: " + name.Quoted()
	}
	if why := s.fixedBooks(inv.name); why != "" {
		return why
	}
	root := item{stat: inv.root}
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, s.t.abs(inv.name), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &st) == nil {
		root.fixed = st.Attributes&attrFixed != 0
	}
	why := s.removable(inv.name, &root)
	for i := 0; i < len(inv.items) && why == ""; i++ {
		why = s.removable(inv.name, &inv.items[i])
		if inv.items[i].shut && why == "" {
			why = s.lookInto(inv, &inv.items[i])
		}
	}
	return why
}

// lookInto says what stands in the way in a directory that its owner has to open
// to look into it: anything. A release with something in such a directory is for
// root, who may.
func (s *state) lookInto(inv *inventory, it *item) string {
	name := inv.name + "/" + it.path
	if err := s.t.fs.SetMeta(name, disk.Meta{UID: -1, GID: -1, Mode: 0o700}); err != nil {
		return err.Error()
	}
	names, err := os.ReadDir(s.t.abs(name))
	err = errors.Join(err, s.t.fs.SetMeta(name, disk.Meta{UID: -1, GID: -1, Mode: it.stat.Mode & 0o7777}))
	if err == nil {
		err = it.look(unix.AT_FDCWD, s.t.abs(name), inv.root.Dev) // which has another change time now
	}
	switch {
	case err != nil:
		return err.Error()
	case len(names) > 0:
		return "holds what may not be looked at: " + Path(name+"/"+names[0].Name()).Quoted()
	}
	return ""
}

// removable says why an item cannot be removed, or a directory not be emptied, ""
// if it can.
func (s *state) removable(gen string, it *item) string {
	switch {
	case it.fixed:
		return "cannot be removed, see chattr(1): " + Path(gen+"/"+it.path).Quoted()
	case it.isDir() && !s.t.mayChange(gen+"/"+it.path, it.stat.Uid):
		return "cannot be removed by this user: " + Path(gen+"/"+it.path).Quoted()
	}
	return ""
}

// fixedBooks says which of a generation's books cannot be removed, and what is
// among them that no moult has put there.
func (s *state) fixedBooks(name string) string {
	dir, err := openTree(s.t.abs(name + "/" + dotMoult))
	if err != nil {
		return "" // it has none
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err.Error()
	}
	for _, base := range append(names, ".") {
		it := item{path: base}
		path := Path(name + "/" + dotMoult + "/" + base)
		switch err := it.look(int(dir.Fd()), base, 0); {
		case err != nil && err != unix.ENOENT:
			return path.Quoted() + ": " + err.Error()
		case it.fixed:
			return "cannot be removed, see chattr(1): " + path.Quoted()
		case base != "." && it.isDir():
			return "holds what no release has brought: " + path.Quoted()
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
