package deploy

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"moult.example/internal/release"
)

// manifest is that of a generation. It never changes, so it is read once; who
// gets it must not change it either. The number of a generation that never was
// live is given again, perhaps by another process.
func (s *state) manifest(n int) (*release.Manifest, error) {
	path := s.abs(s.books(genDir(n)) + "/manifest")
	if read, ok := s.t.manifests[path]; ok && read.isAt(path) {
		return read.m, nil
	}
	read, err := s.t.ahead.manifestAt(path), error(nil)
	if read.m == nil {
		read, err = readManifest(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %d: %w", s.t.path, n, ErrNoGeneration)
	}
	if err != nil {
		return nil, err
	}
	s.t.remember(path, read)
	if !trusts(read.owner) {
		s.t.untrusted[read.m] = read.owner
	}
	return read.m, nil
}

// manifestOf is a manifest, and the file that it was read from.
type manifestOf struct {
	m     *release.Manifest
	owner uint32
	stat  release.Stat
}

// isAt says that the file is still the one at path.
func (r *manifestOf) isAt(path string) bool {
	now, ok := statAt(path)
	return ok && now == r.stat
}

func readManifest(path string) (read manifestOf, err error) {
	f, err := openBook(path)
	if err != nil {
		return read, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return read, &fs.PathError{Op: "fstat", Path: path, Err: err}
	}
	text := bytes.NewBuffer(make([]byte, 0, st.Size+bytes.MinRead))
	if _, err := text.ReadFrom(f); err != nil {
		return read, err
	}
	if read.m, err = release.Parse(text.Bytes()); err != nil {
		return read, fmt.Errorf("%s: %w", path, err)
	}
	read.owner, read.stat = st.Uid, statOf(&st)
	return read, nil
}

// checkCommands refuses to run what a manifest says if another user has written
// it. That .moult was ours when the lock was taken is not enough: to whom the
// target's directory belongs can put another one in its place at any time.
func (t *Target) checkCommands(m *release.Manifest) error {
	if owner, ok := t.untrusted[m]; ok {
		return refuse(dotMoult, fmt.Sprintf("has a manifest that belongs to another user (%s), whose hooks would be run as this one", userText(owner)), "run moult as that user")
	}
	return nil
}

// remember saves reading a manifest again, which is at path. What is remembered
// is never changed.
func (t *Target) remember(path string, read manifestOf) {
	if t.manifests == nil {
		t.manifests = map[string]manifestOf{}
		t.untrusted = map[*release.Manifest]uint32{}
	}
	t.manifests[path] = read
}

// rememberOwn is remember for one that we have just written.
func (t *Target) rememberOwn(path string, m *release.Manifest) {
	if stat, ok := statAt(path); ok {
		t.remember(path, manifestOf{m, uint32(os.Geteuid()), stat})
	}
}

// idOf is the manifest's ID as text, which takes a pass over all of it.
func (t *Target) idOf(m *release.Manifest) string { return t.soonID(m)() }

// soonID begins to compute the ID of a manifest that is complete.
func (t *Target) soonID(m *release.Manifest) func() string {
	id, ok := t.ids[m]
	if !ok {
		if t.ids == nil {
			t.ids = map[*release.Manifest]func() string{}
		}
		id = soon(func() string { return m.ID().String() })
		t.ids[m] = id
	}
	return id
}

// ahead is what was read of an owned target before its lock was there, while the
// release was opened. nil is nothing.
type ahead struct {
	path     string // of the live generation's manifest
	manifest func() manifestOf
	cache    func() *release.Cache
}

// readAhead begins to read what a release will be compared with.
func (t *Target) readAhead() {
	if layout, err := t.readLayout(); err != nil || layout != Owned {
		return
	}
	s := &state{t: t, layout: Owned, dir: dotMoult}
	n, err := s.live()
	if err != nil || n == noGeneration {
		return
	}
	a := &ahead{path: s.abs(s.books(genDir(n)) + "/manifest")}
	cache := s.abs("cache")
	a.cache = soon(func() *release.Cache { return readCache(cache) })
	a.manifest = soon(func() manifestOf {
		read, _ := readManifest(a.path)
		return read
	})
	t.ahead = a
}

// manifestAt is the manifest at path, none if another one was read: generations of
// a target that was forgotten and made again have the same numbers.
func (a *ahead) manifestAt(path string) (read manifestOf) {
	if a == nil || a.path != path {
		return read
	}
	if read = a.manifest(); !read.isAt(path) {
		return manifestOf{}
	}
	return read
}

func statAt(path string) (release.Stat, bool) {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	return statOf(&st), err == nil
}

// takeCache gives the stat cache away, which is for one user. It may be older
// than the one that is there now: what it says of a file is true all the same, as
// long as the file's stat(2) is what it was.
func (t *Target) takeCache() *release.Cache {
	if t.ahead == nil || t.ahead.cache == nil {
		return nil
	}
	c := t.ahead.cache()
	t.ahead.cache = nil
	return c
}
