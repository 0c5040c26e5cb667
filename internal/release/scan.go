package release

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
)

// A scanner reads a directory tree. Directories are read in parallel, each
// relative to the descriptor of its own, which was reached without following a
// symbolic link.
type scanner struct {
	root  *disk.Root
	name  string                 // of the root, for messages
	skip  func(path string) bool // leaves out an entry and what is below it
	cache *Cache                 // tells which files have no extended attributes; may be nil

	mu      sync.Mutex
	wake    sync.Cond
	todo    []string // directories to read; the last first, so that few wait
	working int
	found   [][]item // for each directory that was read
	err     error
	errAt   string // the least path that had an error, so that it is always the same one
}

// item is an entry, and what else lstat(2) says of it.
type item struct {
	Entry
	stat     Stat
	links    bool // it has more than one name
	uid, gid uint32
}

// scan returns everything below the root, in no order.
func (s *scanner) scan(ctx context.Context) ([][]item, error) {
	s.wake.L = &s.mu
	s.todo = []string{"."}
	var workers sync.WaitGroup
	for range runtime.NumCPU() {
		workers.Go(func() { s.work(ctx) })
	}
	workers.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return s.found, s.err
}

func (s *scanner) work(ctx context.Context) {
	w := dirReader{scanner: s, dirents: make([]byte, 64<<10), buf: make([]byte, 64<<10)}
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for len(s.todo) == 0 && s.working > 0 {
			s.wake.Wait()
		}
		if len(s.todo) == 0 || ctx.Err() != nil {
			s.wake.Broadcast()
			return
		}
		dir := s.todo[len(s.todo)-1]
		s.todo = s.todo[:len(s.todo)-1]
		s.working++
		s.mu.Unlock()

		items := w.read(dir)

		s.mu.Lock()
		s.working--
		s.found = append(s.found, items)
		for i := range items {
			if items[i].Type == Dir {
				s.todo = append(s.todo, items[i].Path)
			}
		}
		s.wake.Broadcast()
	}
}

// fail records what is wrong with an entry. The scan goes on.
func (s *scanner) fail(path string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil || path < s.errAt {
		s.err, s.errAt = err, path
	}
}

func (s *scanner) full(name string) string { return path.Join(s.name, name) }

func (s *scanner) pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: s.full(name), Err: err}
}

// A dirReader reads one directory after the other.
type dirReader struct {
	*scanner
	dirents []byte
	buf     []byte
}

func (w *dirReader) read(dir string) []item {
	f, err := w.root.Lookup(dir)
	if err != nil {
		w.fail(dir, err)
		return nil
	}
	defer f.Close()
	names, err := w.names(int(f.Fd()))
	if err != nil {
		w.fail(dir, w.pathError("readdir", dir, err))
		return nil
	}
	items := make([]item, 0, len(names))
	for _, name := range names {
		p := name
		if dir != "." {
			p = dir + "/" + name
		}
		if w.skip(p) {
			continue
		}
		var it item
		if err := w.item(f, name, p, &it); err != nil {
			w.fail(p, err)
			continue
		}
		items = append(items, it)
	}
	return items
}

func (w *dirReader) names(fd int) ([]string, error) {
	var names []string
	for {
		n, err := unix.ReadDirent(fd, w.dirents)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return names, err
		}
		_, _, names = unix.ParseDirent(w.dirents[:n], -1, names)
	}
}

// item fills it from what is called name in the directory dir.
func (w *dirReader) item(dir *os.File, name, p string, it *item) error {
	if p == Own {
		return fmt.Errorf("%s: %w", w.full(p), errOwn)
	}
	var st unix.Stat_t
	fd := int(dir.Fd())
	if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return w.pathError("lstat", p, err)
	}
	it.Path = p
	it.stat = StatOf(&st)
	it.MTime = it.stat.MTime
	it.uid, it.gid = st.Uid, st.Gid
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		it.Type, it.Mode, it.Size = File, st.Mode&0o7777, st.Size
		it.links = st.Nlink > 1
		if st.Blocks*512 < st.Size {
			it.Sparse = hasHole(fd, name, st.Size)
		}
	case unix.S_IFDIR:
		it.Type, it.Mode = Dir, st.Mode&0o7777
	case unix.S_IFLNK:
		it.Type = Symlink
		n, err := unix.Readlinkat(fd, name, w.buf)
		it.Text = string(w.buf[:max(n, 0)])
		if err != nil {
			return w.pathError("readlink", p, err)
		}
		return nil
	default:
		return fmt.Errorf("%s: %s does not belong in a release", w.full(p), kind(st.Mode))
	}
	if w.cache != nil && it.Type == File && w.cache.isBare(p, it.stat) {
		return nil
	}
	var err error
	if it.Xattrs, err = xattrs(fd, name, w.buf); err != nil {
		return w.pathError("listxattr", p, err)
	}
	return nil
}

func kind(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFIFO:
		return "a FIFO"
	case unix.S_IFSOCK:
		return "a socket"
	case unix.S_IFCHR, unix.S_IFBLK:
		return "a device"
	}
	return "what is neither file, directory nor symbolic link"
}

// hasHole tells holes from what only takes few blocks: compressed files, small
// ones inside their inode.
func hasHole(dir int, name string, size int64) bool {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false // whoever reads the file will say why
	}
	defer unix.Close(fd)
	hole, err := unix.Seek(fd, 0, unix.SEEK_HOLE)
	return err == nil && hole < size
}

// collect makes the sorted manifest entries of what was scanned, and their
// Stats beside them.
func collect(found [][]item, owners func(*item)) ([]Entry, []Stat, error) {
	n, files := 0, 0
	for _, items := range found {
		n += len(items)
	}
	refs := make([]*item, 0, n)
	for _, items := range found {
		for i := range items {
			refs = append(refs, &items[i])
			if items[i].Type != Dir {
				files++
			}
		}
	}
	if files == 0 {
		return nil, nil, errEmpty
	}
	slices.SortFunc(refs, func(a, b *item) int { return strings.Compare(a.Path, b.Path) })

	entries, stats := make([]Entry, n), make([]Stat, n)
	type inode struct{ dev, ino uint64 }
	first := map[inode]string{}
	for i, it := range refs {
		if owners != nil {
			owners(it)
		}
		entries[i], stats[i] = it.Entry, it.stat
		if !it.links {
			continue
		}
		id := inode{it.stat.Dev, it.stat.Ino}
		if path, ok := first[id]; ok {
			entries[i].HardLink = path
		} else {
			first[id] = it.Path
		}
	}
	return entries, stats, nil
}

var errEmpty = errors.New("a release without files")
