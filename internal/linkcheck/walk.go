package linkcheck

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
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
	names   []byte     // of getdents64(2)
	text    [4096]byte // of a link
	buf     []byte     // of the file that is read
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
	d := w.old[logical]
	if d != nil {
		var st unix.Stat_t
		if err := unix.Stat(real, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return nil // it went away
		}
		if d.id == stampOf(&st) {
			d = w.again(logical, real, d)
			return w.below(d, logical, real, depth)
		}
	}
	if d = w.read(logical, real, d); d == nil {
		return nil // likewise
	}
	w.changed = true
	return w.below(d, logical, real, depth)
}

// below goes on with the directories in a directory.
func (w *walk) below(d *indexDir, logical, real string, depth int) error {
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

// read reads a directory. Its stamp is taken first, of what is then read.
func (w *walk) read(logical, real string, old *indexDir) *indexDir {
	d := &indexDir{}
	fd, err := unix.Open(real, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		var st unix.Stat_t
		if err := unix.Stat(real, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return nil // it went away
		}
		d.id = stampOf(&st)
		return d
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil
	}
	d.id = stampOf(&st)
	known := map[string]*indexFile{}
	if old != nil {
		for _, f := range old.files {
			known[f.path] = f
		}
	}
	at := place{logical: logical, real: real}
	if w.names == nil {
		w.names = make([]byte, 64<<10)
	}
	for {
		n, err := unix.Getdents(fd, w.names)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return d
		}
		for b := w.names[:n]; ; {
			var name []byte
			var kind byte
			if name, kind, b = nextEntry(b); name == nil {
				break
			}
			w.entry(d, at, fd, name, kind, known)
		}
	}
}

// nextEntry takes the first entry of what getdents64(2) has returned, and
// leaves the others. Package os would open each directory for its poller, and
// make a string of each of the names, most of which are those of texts.
func nextEntry(b []byte) (name []byte, kind byte, rest []byte) {
	const head = 19 // inode, position, length and kind
	if len(b) < head {
		return nil, 0, nil
	}
	size := int(binary.NativeEndian.Uint16(b[16:]))
	if size < head || size > len(b) {
		return nil, 0, nil
	}
	name, _, _ = bytes.Cut(b[head:size], []byte{0})
	return name, b[18], b[size:]
}

// entry looks at one name of a directory.
func (w *walk) entry(d *indexDir, at place, fd int, entry []byte, kind byte, known map[string]*indexFile) {
	if kind == unix.DT_REG && textName(entry) || string(entry) == "." || string(entry) == ".." {
		return
	}
	name := string(entry)
	var st unix.Stat_t
	if kind == unix.DT_UNKNOWN {
		if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return
		}
		kind = byte(st.Mode & unix.S_IFMT >> 12)
	}
	switch kind {
	case unix.DT_DIR:
		if name != ".moult" && name != ".git" {
			d.subs = append(d.subs, name)
		}
		return
	case unix.DT_LNK:
		if !w.link(d, fd, name) {
			return
		}
	case unix.DT_REG:
		if textName(entry) {
			return
		}
	default:
		return
	}
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
	p := joinPath(at.logical, name)
	if f := known[p]; f != nil && f.id == stampOf(&st) {
		d.files = append(d.files, f)
		return
	}
	w.changed = true
	d.files = append(d.files, w.file(p, joinPath(at.real, name), &st))
}

// textName says whether a name ends as those of source texts, pages, pictures and
// archives do. Most files of a host are such, and none of them is a program.
func textName(name []byte) bool {
	dot := bytes.LastIndexByte(name, '.')
	if dot < 0 {
		return false
	}
	switch string(name[dot:]) {
	case ".a", ".bc", ".c", ".cc", ".cfg", ".cmake", ".conf", ".cpp", ".crt", ".css", ".el", ".go", ".gz", ".h", ".hpp", ".html",
		".jar", ".java", ".js", ".json", ".lang", ".map", ".md", ".mo", ".mod", ".msg", ".pc", ".pem", ".php", ".pl", ".pm", ".png",
		".pod", ".pom", ".properties", ".py", ".pyc", ".pyi", ".rb", ".rs", ".rst", ".s", ".service", ".sql", ".svg", ".tcl", ".ts",
		".txt", ".vim", ".xml", ".yaml", ".yml":
		return true
	}
	return false
}

// link notes a link with the name of a library, and says whether a link leads
// into a target's live generation.
func (w *walk) link(d *indexDir, fd int, name string) (live bool) {
	n, err := unix.Readlinkat(fd, name, w.text[:])
	if err != nil || n <= 0 {
		return false
	}
	to := string(w.text[:n])
	if libraryName(name) {
		d.links = append(d.links, indexLink{name, to})
	}
	return strings.HasPrefix(to, ".moult/live/")
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
	if w.buf == nil {
		w.buf = make([]byte, headSize)
	}
	n := file{r: r, size: st.Size, buf: w.buf}
	err = n.read()
	info := n.info
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
