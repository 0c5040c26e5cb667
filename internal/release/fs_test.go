package release

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"
)

func mapFS() fstest.MapFS {
	return fstest.MapFS{
		"bin/tool":      {Data: []byte("tool"), Mode: 0o755 | fs.ModeSetuid},
		"bin-x/y":       {Data: []byte("y"), Mode: 0o644},
		"lib/libx.so.1": {Data: []byte("library"), Mode: 0o644},
		"lib/libx.so":   {Data: []byte("libx.so.1"), Mode: fs.ModeSymlink | 0o777},
		"lib64":         {Data: []byte("lib"), Mode: fs.ModeSymlink | 0o777},
		"empty":         {Mode: fs.ModeDir | 0o755},
	}
}

func TestFS(t *testing.T) {
	r, err := FromFS(mapFS(), nil)
	try(t, err)
	try(t, r.Complete(context.Background()))
	if e := entry(t, r, "bin/tool"); e.Mode != 0o4755 || e.Size != 4 || e.Digest.IsZero() {
		t.Errorf("got %+v", e)
	}
	try(t, fstest.TestFS(r.FS(), "bin/tool", "bin-x/y", "lib/libx.so.1", "empty"))
}

func TestFSLinks(t *testing.T) {
	m := mapFS()
	for name, text := range map[string]string{
		"l/up": "../lib64/libx.so", "l/out": "../../etc/passwd", "l/abs": "/bin/tool", "l/loop": "loop", "l/gone": "none", "l/file": "../bin/tool/x", "l/dir": "../empty/./",
	} {
		m[name] = &fstest.MapFile{Data: []byte(text), Mode: fs.ModeSymlink}
	}
	r, err := FromFS(m, nil)
	try(t, err)
	fsys := r.FS()
	for name, want := range map[string]any{
		"l/up": "library", "lib64/libx.so": "library", "l/out": fs.ErrNotExist, "l/abs": fs.ErrNotExist, "l/loop": unix.ELOOP,
		"l/gone": fs.ErrNotExist, "l/file": unix.ENOTDIR, "a//b": fs.ErrInvalid, "": fs.ErrInvalid, "../x": fs.ErrInvalid,
	} {
		b, err := fs.ReadFile(fsys, name)
		if e, ok := want.(error); ok && !errors.Is(err, e) || !ok && string(b) != want {
			t.Errorf("%s: got %q %v, want %v", name, b, err, want)
		}
	}
	if fi, err := fs.Stat(fsys, "l/dir"); err != nil || !fi.IsDir() {
		t.Errorf("got %v %v, want a directory", fi, err)
	}
	if fi, err := fsys.Lstat("l/dir"); err != nil || fi.Mode().Type() != fs.ModeSymlink {
		t.Errorf("got %v %v, want a link", fi, err)
	}
	if text, err := fsys.ReadLink("l/dir"); err != nil || text != "../empty/./" {
		t.Errorf("got %q %v", text, err)
	}
	if _, err := fsys.ReadLink("bin/tool"); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("got %v, want %v", err, fs.ErrInvalid)
	}
}

// TestFSOfDirectory walks a directory with names that are not UTF-8, and reads
// at an offset.
func TestFSOfDirectory(t *testing.T) {
	r := open(t, nastyTree(t), Options{})
	n := 0
	try(t, fs.WalkDir(r.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if p == "." || err != nil {
			return err
		}
		e := entry(t, r, p)
		if n++; d.Name() != path.Base(p) || d.IsDir() != (e.Type == Dir) {
			t.Errorf("%q: got %v", p, d)
		}
		if e.Type != File {
			return nil
		}
		b, err := fs.ReadFile(r.FS(), p)
		if err != nil || int64(len(b)) != e.Size {
			t.Errorf("%q: read %d bytes of %d, %v", p, len(b), e.Size, err)
		}
		return nil
	}))
	if n != len(r.Manifest.Entries) {
		t.Errorf("walked over %d of %d entries", n, len(r.Manifest.Entries))
	}
	readsAt(t, r, "big")
}

// readsAt reads the file called name, which repeats "big", in pieces from its
// end on.
func readsAt(t *testing.T, r *Release, name string) {
	t.Helper()
	f, err := r.FS().Open(name)
	try(t, err)
	defer f.Close()
	size := entry(t, r, name).Size
	section := io.NewSectionReader(f.(io.ReaderAt), size-6, 6)
	if b, err := io.ReadAll(section); string(b) != "bigbig" || err != nil {
		t.Errorf("got %q %v, want bigbig", b, err)
	}
	b := make([]byte, 10)
	if n, err := f.(io.ReaderAt).ReadAt(b, 3); n != 10 || err != nil || !bytes.Equal(b, []byte("bigbigbigb")) {
		t.Errorf("got %q %v", b[:n], err)
	}
	if n, err := f.(io.ReaderAt).ReadAt(b, size-3); n != 3 || err != io.EOF {
		t.Errorf("got %q %v, want 3 bytes and EOF", b[:n], err)
	}
}

func TestFromFS(t *testing.T) {
	m := &Manifest{Entries: []Entry{{Path: "a", Type: File, Size: 4}}}
	r, err := FromFS(fstest.MapFS{"a": {Data: []byte("short")}}, m)
	try(t, err)
	if err := r.Complete(context.Background()); err == nil || !strings.Contains(err.Error(), "a: it changed") {
		t.Errorf("got %v, want an error: the file is longer than the manifest says", err)
	}
	if _, err := FromFS(fstest.MapFS{}, &Manifest{Entries: []Entry{{Path: "../a", Type: File}}}); err == nil {
		t.Error("a manifest that escapes is taken")
	}
	if _, err := r.OpenFile(&Entry{Path: "b"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want %v", err, fs.ErrNotExist)
	}
}
