package release

import (
	"errors"
	"io"
	"io/fs"
)

// FromFS makes a release whose bytes are in fsys, for tests. With a nil manifest
// everything in fsys is the release, by the types, modes, sizes and times that
// it says.
func FromFS(fsys fs.FS, m *Manifest) (*Release, error) {
	if m == nil {
		m = &Manifest{}
		err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
			if err != nil || p == "." {
				return err
			}
			e, err := entryFromFS(fsys, p, d)
			m.Entries = append(m.Entries, e)
			return err
		})
		if err != nil {
			return nil, err
		}
		sortEntries(m.Entries)
	}
	if err := m.Check(); err != nil {
		return nil, err
	}
	return &Release{Manifest: m, source: fsSource{fsys}}, nil
}

func entryFromFS(fsys fs.FS, p string, d fs.DirEntry) (Entry, error) {
	fi, err := d.Info()
	if err != nil {
		return Entry{}, err
	}
	e := Entry{Path: p, Type: File, Mode: unixMode(fi.Mode()), Size: fi.Size()}
	if !fi.ModTime().IsZero() {
		e.MTime = fi.ModTime().UnixNano()
	}
	switch {
	case fi.IsDir():
		e.Type, e.Size = Dir, 0
	case fi.Mode()&fs.ModeSymlink != 0:
		e.Type, e.Size, e.Mode = Symlink, 0, 0
		e.Text, err = fs.ReadLink(fsys, p)
	case !fi.Mode().IsRegular():
		err = errors.New(p + ": does not belong in a release")
	}
	return e, err
}

func unixMode(mode fs.FileMode) uint32 {
	m := uint32(mode.Perm())
	for flag, bit := range map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if mode&flag != 0 {
			m |= bit
		}
	}
	return m
}

// fsSource has the bytes of a [FromFS] release.
type fsSource struct{ fsys fs.FS }

func (s fsSource) open(e *Entry, _ int) (io.ReadCloser, error) { return s.fsys.Open(e.Path) }
func (s fsSource) close() error                                { return nil }
