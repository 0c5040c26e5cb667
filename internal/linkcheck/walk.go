package linkcheck

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// walk goes through directories, and reads what is not as the old index has it.
type walk struct {
	ctx     context.Context
	tree    *tree
	old     map[string]*indexDir
	dirs    map[string]*indexDir
	changed bool
	count   int
}

const maxWalkDepth = 128 // directories below each other

func (w *walk) dir(logical, real string, depth int) error {
	if w.dirs[logical] != nil || depth > maxWalkDepth {
		return nil
	}
	if w.count++; w.count%256 == 0 {
		if err := w.ctx.Err(); err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(real, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil // it went away
	}
	id := stampOf(&st)
	d := w.old[logical]
	if d == nil || d.id != id {
		w.changed = true
		d = w.read(logical, real, d)
		d.id = id
	} else {
		d = w.again(logical, real, d)
	}
	w.dirs[logical] = d
	for _, name := range d.subs {
		name = strings.TrimPrefix(name, liveMark)
		at := joinPath(real, name)
		below := at
		if real != logical {
			below = joinPath(logical, name)
		}
		if err := w.dir(below, at, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// liveMark marks a link to a directory of a target's live generation.
const liveMark = "\x00live\x00"

func joinPath(dir, name string) string {
	if strings.HasSuffix(dir, "/") {
		return dir + name
	}
	return dir + "/" + name
}

// again looks whether the files of a directory with the same names in it are
// the same.
func (w *walk) again(logical, real string, d *indexDir) *indexDir {
	for i, f := range d.files {
		var st unix.Stat_t
		at := f.path
		if real != logical {
			at = joinPath(real, path.Base(f.path))
		}
		if err := unix.Stat(at, &st); err != nil {
			st = unix.Stat_t{}
		}
		if stampOf(&st) != f.id {
			w.changed = true
			d.files[i] = w.file(f.path, at, &st)
		}
	}
	return d
}

// read reads a directory.
func (w *walk) read(logical, real string, old *indexDir) *indexDir {
	d := &indexDir{}
	known := map[string]*indexFile{}
	if old != nil {
		for _, f := range old.files {
			known[f.path] = f
		}
	}
	dir, err := os.Open(real)
	if err != nil {
		return d
	}
	defer dir.Close()
	fd := int(dir.Fd())
	for {
		entries, err := dir.ReadDir(1024)
		for _, e := range entries {
			w.entry(d, logical, real, fd, e, known)
		}
		if err != nil || len(entries) == 0 {
			return d
		}
	}
}

func (w *walk) entry(d *indexDir, logical, real string, fd int, e fs.DirEntry, known map[string]*indexFile) {
	name := e.Name()
	switch e.Type() {
	case fs.ModeDir:
		if name != ".moult" && name != ".git" {
			d.subs = append(d.subs, name)
		}
		return
	case fs.ModeSymlink:
		at := joinPath(real, name)
		w.link(d, name, at)
		if to, err := os.Readlink(at); err != nil || !strings.HasPrefix(to, ".moult/live/") {
			return
		}
	case 0:
		if textName(name) {
			return
		}
	default:
		return
	}
	var st unix.Stat_t
	if err := unix.Fstatat(fd, name, &st, 0); err != nil {
		return
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		d.subs = append(d.subs, liveMark+name)
		return
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o111 == 0 && !libraryName(name) {
		return
	}
	p := joinPath(logical, name)
	if f := known[p]; f != nil && f.id == stampOf(&st) {
		d.files = append(d.files, f)
		return
	}
	w.changed = true
	d.files = append(d.files, w.file(p, joinPath(real, name), &st))
}

// textName says whether a name ends as those of source texts, pages and pictures
// do. Most files of a host are such, and none of them is a program.
func textName(name string) bool {
	switch path.Ext(name) {
	case ".c", ".cc", ".cpp", ".css", ".el", ".go", ".gz", ".h", ".hpp", ".html", ".java", ".js", ".json", ".map", ".md", ".mo",
		".pl", ".pm", ".png", ".pod", ".properties", ".py", ".pyc", ".pyi", ".rb", ".rs", ".rst", ".svg", ".ts", ".txt", ".xml", ".yaml", ".yml":
		return true
	}
	return false
}

func (w *walk) link(d *indexDir, name, at string) {
	if !libraryName(name) {
		return
	}
	if to, err := os.Readlink(at); err == nil {
		d.links = append(d.links, indexLink{name, to})
	}
}

// file reads what a file needs. One that cannot be read is remembered as no ELF
// file, and looked at again when it changes.
func (w *walk) file(logical, real string, st *unix.Stat_t) *indexFile {
	f := &indexFile{path: logical, id: stampOf(st)}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return f
	}
	fd, err := unix.Open(real, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return f
	}
	r := descriptor(fd)
	defer unix.Close(fd)
	info, err := Needs(r, st.Size)
	if err != nil && !errors.As(err, new(*FormatError)) {
		return f
	}
	f.kind, f.soname, f.needed = info.Kind, info.Soname, info.Needed
	f.class = uint16(info.Class)<<12 ^ uint16(info.Machine)
	return f
}

// descriptor reads an open file without an os.File, of which there would be a
// hundred thousand.
type descriptor int

func (d descriptor) ReadAt(b []byte, off int64) (int, error) {
	n, err := unix.Pread(int(d), b, off)
	if err == nil && n < len(b) {
		return n, errShort
	}
	return max(n, 0), err
}

var errShort = &FormatError{"ends too soon"}

func stampOf(st *unix.Stat_t) stamp {
	s := stamp{
		dev: st.Dev, ino: st.Ino, ctime: st.Ctim.Nano(), size: uint64(st.Size), mode: uint64(st.Mode),
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		s.mtime = st.Mtim.Nano()
	}
	return s
}
