package release

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// FS returns the release as a file system. Names may hold any byte but NUL,
// also where [fs.ValidPath] would refuse them. Open and Stat follow symbolic
// links inside the release; one that leads out of it, or is absolute, is
// fs.ErrNotExist. Files have ReadAt; that of a packed release's file takes all
// of it into memory.
func (r *Release) FS() fs.ReadLinkFS { return releaseFS{r} }

type releaseFS struct{ r *Release }

var (
	_ fs.ReadDirFS = releaseFS{}
	_ fs.StatFS    = releaseFS{}
)

// root stands for the top, which is no entry.
var rootEntry = Entry{Path: ".", Type: Dir, Mode: 0o755}

// entry returns what name is, without following it.
func (f releaseFS) entry(op, name string) (*Entry, error) {
	if name == "." {
		return &rootEntry, nil
	}
	if err := checkPath(name); err != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	e := f.r.Manifest.Find(name)
	if e == nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	return e, nil
}

// follow returns what name is, with the links on the way and at its end
// followed.
func (f releaseFS) follow(op, name string) (*Entry, error) {
	if name != "." {
		if err := checkPath(name); err != nil {
			return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
		}
	}
	done, todo := "", name
	for hops := 0; todo != ""; {
		var part string
		part, todo, _ = strings.Cut(todo, "/")
		switch part {
		case "", ".":
			continue
		case "..":
			if done == "" {
				return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
			}
			if done = path.Dir(done); done == "." {
				done = ""
			}
			continue
		}
		at := part
		if done != "" {
			at = done + "/" + part
		}
		e := f.r.Manifest.Find(at)
		switch {
		case e == nil:
			return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
		case e.Type == Symlink:
			if hops++; hops > 40 {
				return nil, &fs.PathError{Op: op, Path: name, Err: unix.ELOOP}
			}
			if e.Text[0] == '/' {
				return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
			}
			todo = e.Text + "/" + todo
		case e.Type == File && todo != "":
			return nil, &fs.PathError{Op: op, Path: name, Err: unix.ENOTDIR}
		default:
			done = at
		}
	}
	if done == "" {
		return &rootEntry, nil
	}
	return f.r.Manifest.Find(done), nil
}

// Open implements [fs.FS].
func (f releaseFS) Open(name string) (fs.File, error) {
	e, err := f.follow("open", name)
	if err != nil {
		return nil, err
	}
	if e.Type == Dir {
		return &dirFile{info: info{e, path.Base(name)}, fs: f}, nil
	}
	rc, err := f.r.OpenFile(e)
	if err != nil {
		return nil, err
	}
	if osf, ok := rc.(*os.File); ok {
		return diskFile{osf, info{e, path.Base(name)}}, nil
	}
	return &streamFile{ReadCloser: rc, info: info{e, path.Base(name)}, r: f.r}, nil
}

// Stat implements [fs.StatFS].
func (f releaseFS) Stat(name string) (fs.FileInfo, error) {
	e, err := f.follow("stat", name)
	if err != nil {
		return nil, err
	}
	return info{e, path.Base(name)}, nil
}

// Lstat implements [fs.ReadLinkFS].
func (f releaseFS) Lstat(name string) (fs.FileInfo, error) {
	e, err := f.entry("lstat", name)
	if err != nil {
		return nil, err
	}
	return info{e, path.Base(name)}, nil
}

// ReadLink implements [fs.ReadLinkFS].
func (f releaseFS) ReadLink(name string) (string, error) {
	e, err := f.entry("readlink", name)
	if err != nil {
		return "", err
	}
	if e.Type != Symlink {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	return e.Text, nil
}

// ReadDir implements [fs.ReadDirFS].
func (f releaseFS) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := f.follow("readdir", name)
	if err != nil {
		return nil, err
	}
	if e.Type != Dir {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: unix.ENOTDIR}
	}
	return f.children(e), nil
}

// children are the entries of a directory. What stands below one of them is
// skipped in one step: it lies between "child/" and "child0".
func (f releaseFS) children(dir *Entry) []fs.DirEntry {
	entries, prefix := f.r.Manifest.Entries, ""
	i := 0
	if dir != &rootEntry {
		prefix = dir.Path + "/"
		i = search(entries, prefix)
	}
	var list []fs.DirEntry
	for i < len(entries) && strings.HasPrefix(entries[i].Path, prefix) {
		name := entries[i].Path[len(prefix):]
		if slash := strings.IndexByte(name, '/'); slash >= 0 {
			i = search(entries, prefix+name[:slash]+"0")
			continue
		}
		list = append(list, fs.FileInfoToDirEntry(info{&entries[i], name}))
		i++
	}
	return list
}

// info is an entry as [fs.FileInfo]; Sys is the *Entry.
type info struct {
	e    *Entry
	name string
}

func (i info) Name() string { return i.name }
func (i info) Size() int64  { return i.e.Size }
func (i info) IsDir() bool  { return i.e.Type == Dir }
func (i info) Sys() any     { return i.e }

func (i info) ModTime() time.Time {
	if i.e.MTime == 0 {
		return time.Time{}
	}
	return time.Unix(0, i.e.MTime)
}

func (i info) Mode() fs.FileMode {
	mode := fs.FileMode(i.e.Mode & 0o777)
	for bit, flag := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if i.e.Mode&bit != 0 {
			mode |= flag
		}
	}
	switch i.e.Type {
	case Dir:
		mode |= fs.ModeDir
	case Symlink:
		mode |= fs.ModeSymlink | 0o777
	}
	return mode
}

type diskFile struct {
	*os.File
	info info
}

func (f diskFile) Stat() (fs.FileInfo, error) { return f.info, nil }

// streamFile is a file that can only be read from its beginning.
type streamFile struct {
	io.ReadCloser
	info info
	r    *Release

	once sync.Once
	all  []byte
	err  error
}

func (f *streamFile) Stat() (fs.FileInfo, error) { return f.info, nil }

// ReadAt implements [io.ReaderAt], for debug/elf.
func (f *streamFile) ReadAt(p []byte, off int64) (int, error) {
	f.once.Do(f.load)
	if f.err != nil {
		return 0, f.err
	}
	return bytes.NewReader(f.all).ReadAt(p, off)
}

func (f *streamFile) load() {
	if f.info.Size() > 1<<30 {
		f.err = &fs.PathError{Op: "read", Path: f.info.e.Path, Err: unix.EFBIG}
		return
	}
	rc, err := f.r.OpenFile(f.info.e)
	if err != nil {
		f.err = err
		return
	}
	defer rc.Close()
	f.all, f.err = io.ReadAll(rc)
}

type dirFile struct {
	info info
	fs   releaseFS
	list []fs.DirEntry
	read bool
}

func (d *dirFile) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *dirFile) Close() error               { return nil }

func (d *dirFile) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.info.e.Path, Err: unix.EISDIR}
}

// ReadDir implements [fs.ReadDirFile].
func (d *dirFile) ReadDir(n int) ([]fs.DirEntry, error) {
	if !d.read {
		d.list, d.read = d.fs.children(d.info.e), true
	}
	if n <= 0 {
		n = len(d.list)
	} else if len(d.list) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.list))
	list := d.list[:n:n]
	d.list = d.list[n:]
	return list, nil
}
