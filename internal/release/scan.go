package release

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	todo    []*directory // to be read; the last first, so that few wait
	working int
	err     error
	errAt   string // the least path that had an error, so that it is always the same one
}

// directory is one of the tree, and what is in it, by name.
type directory struct {
	path   string
	prefix string // of the paths of what is in it
	items  []item
	below  []*directory // by prefix
}

// item is what a directory has under a name.
type item struct {
	path  string
	stat  Stat
	kind  Type
	mode  uint32
	uid   uint32
	gid   uint32
	text  string
	attrs map[string]string

	sparse bool
	links  bool // it has more than one name
}

// scan returns everything below the root.
func (s *scanner) scan(ctx context.Context) (*directory, error) {
	s.wake.L = &s.mu
	top := &directory{path: "."}
	s.todo = []*directory{top}
	var workers sync.WaitGroup
	for range runtime.NumCPU() {
		workers.Go(func() { s.work(ctx) })
	}
	workers.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return top, s.err
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

		w.read(dir)

		s.mu.Lock()
		s.working--
		s.todo = append(s.todo, dir.below...)
		if len(dir.below) > 0 || len(s.todo) == 0 {
			s.wake.Broadcast()
		}
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

func (w *dirReader) read(d *directory) {
	f, err := w.root.Lookup(d.path)
	if err != nil {
		w.fail(d.path, err)
		return
	}
	defer f.Close()
	fd := int(f.Fd())
	names, err := w.names(fd)
	if err != nil {
		w.fail(d.path, w.pathError("readdir", d.path, err))
		return
	}
	slices.Sort(names)
	d.items = make([]item, 0, len(names))
	for _, name := range names {
		p := d.prefix + name
		if w.skip(p) {
			continue
		}
		it := item{path: p}
		if err := w.item(fd, name, &it); err != nil {
			w.fail(p, err)
			continue
		}
		d.items = append(d.items, it)
		if it.kind == Dir {
			d.below = append(d.below, &directory{path: p, prefix: p + "/"})
		}
	}
	slices.SortFunc(d.below, func(a, b *directory) int { return strings.Compare(a.prefix, b.prefix) })
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
func (w *dirReader) item(dir int, name string, it *item) error {
	p := it.path
	switch {
	case p == Own:
		return fmt.Errorf("%s: %w", w.full(p), errOwn)
	case name == Own:
		return fmt.Errorf("%s: %w", w.full(p), errTarget)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return w.pathError("lstat", p, err)
	}
	it.stat = StatOf(&st)
	it.uid, it.gid = st.Uid, st.Gid
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		it.kind, it.mode = File, st.Mode&0o7777
		it.links = st.Nlink > 1
		if st.Blocks*512 < st.Size {
			it.sparse = hasHole(dir, name, st.Size)
		}
	case unix.S_IFDIR:
		it.kind, it.mode = Dir, st.Mode&0o7777
	case unix.S_IFLNK:
		it.kind = Symlink
		n, err := unix.Readlinkat(dir, name, w.buf)
		it.text = string(w.buf[:max(n, 0)])
		if err != nil {
			return w.pathError("readlink", p, err)
		}
		return nil
	default:
		return fmt.Errorf("%s: %s does not belong in a release", w.full(p), kind(st.Mode))
	}
	if w.cache != nil && it.kind == File && w.cache.isBare(p, it.stat) {
		return nil
	}
	var err error
	if it.attrs, err = xattrs(dir, name, w.buf); err != nil {
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

// walk calls visit for all that is below a directory, by path: what is below "a"
// comes after "a" and "a-b", and before "a0".
func (d *directory) walk(visit func(*item)) {
	below := d.below
	for i := range d.items {
		it := &d.items[i]
		for len(below) > 0 && below[0].prefix < it.path {
			below[0].walk(visit)
			below = below[1:]
		}
		visit(it)
	}
	for _, b := range below {
		b.walk(visit)
	}
}

// collect makes the sorted manifest entries of what was scanned, and their
// Stats beside them.
func collect(top *directory, owners func(*item, *Entry)) ([]Entry, []Stat, error) {
	n, files := 0, 0
	top.walk(func(it *item) {
		n++
		if it.kind != Dir {
			files++
		}
	})
	if files == 0 {
		return nil, nil, errEmpty
	}
	entries, stats := make([]Entry, 0, n), make([]Stat, 0, n)
	type inode struct{ dev, ino uint64 }
	first := map[inode]string{}
	top.walk(func(it *item) {
		entries, stats = append(entries, Entry{
			Path: it.path, Type: it.kind, Mode: it.mode, Text: it.text, Xattrs: it.attrs,
			MTime: it.stat.MTime, Sparse: it.sparse,
		}), append(stats, it.stat)
		e := &entries[len(entries)-1]
		if it.kind == File {
			e.Size = it.stat.Size
		}
		if owners != nil {
			owners(it, e)
		}
		if !it.links {
			return
		}
		id := inode{it.stat.Dev, it.stat.Ino}
		if path, ok := first[id]; ok {
			e.HardLink = path
		} else {
			first[id] = it.path
		}
	})
	return entries, stats, nil
}

var (
	errEmpty = errors.New("a release without files")

	// A target inside of its own release would ship all its generations, each of
	// them with those before it.
	errTarget = errors.New("the state of a target does not belong in a release: exclude the target in moult.toml, or let it lie elsewhere")
)
