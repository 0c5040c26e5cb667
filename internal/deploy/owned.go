package deploy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
	"moult.example/internal/release"
)

// How a commit changes an owned target. Each step can be done again, and the
// order is such that no launch can see two releases: links to names that only
// the new release has come first and dangle, which is the same as not being
// there; then one rename switches all; then links to names that it no longer
// has, which dangle by now, go.

// finishOwned does what a decided commit says, from wherever it was cut short.
// Names that the administrator has meanwhile taken are returned as conflicts.
// The error of a step before the switch can be undone by undoOwned.
func (s *state) finishOwned(j *journal) (conflicts []Path, switched bool, err error) {
	m, err := s.manifest(j.Generation)
	if err != nil {
		return nil, false, err
	}
	if j.Job == jobAdopt {
		if err := s.adoptOwned(j); err != nil {
			return nil, false, err
		}
	}
	conflicts, err = s.addLinks(m)
	if err != nil {
		return nil, false, err
	}
	if !j.fresh {
		// Another process, which was killed, may have made them and not synced.
		if err := s.t.fs.SyncDir("."); err != nil {
			return nil, false, err
		}
	}
	if err := s.point(j.Generation); err != nil {
		return nil, false, err
	}
	if err := s.t.fs.SyncDir(s.dir); err != nil {
		return conflicts, true, err
	}
	if err := s.dropLinks(m); err != nil || j.fresh {
		return conflicts, true, err
	}
	return conflicts, true, s.t.fs.SyncDir(".")
}

// point makes a generation the live one, in one rename.
func (s *state) point(n int) error {
	fsys := s.t.fs
	if live, err := s.live(); err != nil || live == n {
		return err
	}
	tmp := s.file("live.new")
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := fsys.Symlink(genDir(n), tmp); err != nil {
		return err
	}
	return fsys.Rename(tmp, s.file("live"))
}

// addLinks makes a link in the target's directory for each name of m.
func (s *state) addLinks(m *release.Manifest) (conflicts []Path, err error) {
	added := false
	for _, name := range topNames(m) {
		if isLink(s.t.abs(name), ownText(name)) {
			continue
		}
		err := s.t.fs.Symlink(ownText(name), name)
		if errors.Is(err, fs.ErrExist) {
			conflicts = append(conflicts, Path(name))
			continue
		}
		if err != nil {
			return conflicts, err
		}
		added = true
	}
	if !added {
		return conflicts, nil
	}
	return conflicts, s.t.fs.SyncDir(".")
}

// dropLinks removes the links of ours that m has no name for.
func (s *state) dropLinks(m *release.Manifest) error {
	entries, err := os.ReadDir(s.t.path)
	if err != nil {
		return err
	}
	dropped := false
	for _, e := range entries {
		name := e.Name()
		if !isLink(s.t.abs(name), ownText(name)) || m != nil && m.Find(name) != nil {
			continue
		}
		if err := s.t.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		dropped = true
	}
	if !dropped {
		return nil
	}
	return s.t.fs.SyncDir(".")
}

// undoOwned takes a commit back that failed before the switch.
func (s *state) undoOwned(j *journal) error {
	var m *release.Manifest
	if j.Job == jobAdopt {
		if err := s.unadopt(j); err != nil {
			return err
		}
	} else if j.From != noGeneration {
		var err error
		if m, err = s.manifest(j.From); err != nil {
			return err
		}
	}
	if err := s.dropLinks(m); err != nil {
		return err
	}
	return s.undecide()
}

// Adoption: what is in the target's directory becomes generation 0. Each name
// is exchanged with a link to itself at its place in generation 0, one after
// the other. That link's text is .moult/live/NAME at both ends: in the target
// it leads to generation 0, and in generation 0, where .moult/live leads back
// to the target (adoptHelper), to the target. So each exchange is a no-op for
// whoever looks, from either side; the inodes, and with them the working
// directories of processes, stay what they are.

// adoptHelper is the link that makes a generation's own .moult/live mean the
// target's directory.
func (s *state) adoptHelper(n int) string { return s.file(genDir(n) + "/" + dotMoult + "/live") }

const adoptHelperText = "../../../.."

// adoptOwned exchanges the names of j that are not yet.
func (s *state) adoptOwned(j *journal) error {
	if live, err := s.live(); err != nil || live == j.Generation {
		return err
	}
	if err := s.point(0); err != nil {
		return err
	}
	if err := s.t.fs.SyncDir(s.dir); err != nil {
		return err
	}
	for _, name := range j.Adopt {
		if err := s.exchangeTop(string(name), 0, false); err != nil {
			return err
		}
	}
	return errors.Join(s.t.fs.SyncDir("."), s.t.fs.SyncDir(s.file(genDir(0))))
}

// exchangeTop swaps a name of the target with the same of a generation, unless
// that was done: real says whether the real one, not the link, is to be in the
// target's directory.
func (s *state) exchangeTop(name string, n int, real bool) error {
	inGen := s.file(genDir(n) + "/" + name)
	linkInTarget, linkInGen := isLink(s.t.abs(name), ownText(name)), isLink(s.t.abs(inGen), ownText(name))
	switch {
	case linkInTarget == linkInGen && linkInTarget:
		return fmt.Errorf("%s: neither the target nor generation %d has it", Path(name).Quoted(), n)
	case linkInTarget == linkInGen:
		return fmt.Errorf("%s: both the target and generation %d have one", Path(name).Quoted(), n)
	case linkInTarget != real:
		return s.closeTop(name, n)
	}
	err := s.t.fs.Exchange(name, inGen)
	if errors.Is(err, fs.ErrPermission) && s.openTop(name, inGen) == nil {
		err = s.t.fs.Exchange(name, inGen)
	}
	return errors.Join(err, s.closeTop(name, n))
}

// openTop lets us move a directory whose mode keeps its own owner, who is not
// root, from writing into it: its entry ".." changes.
func (s *state) openTop(names ...string) error {
	for _, name := range names {
		var st unix.Stat_t
		if unix.Lstat(s.t.abs(name), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return s.t.fs.SetMeta(name, disk.Meta{UID: -1, GID: -1, Mode: st.Mode&0o7777 | 0o700})
		}
	}
	return fs.ErrNotExist
}

// closeTop gives it back the mode that the generation's manifest says, also after
// a crash in between.
func (s *state) closeTop(name string, n int) error {
	if os.Geteuid() == 0 {
		return nil
	}
	m, err := s.manifest(n)
	if err != nil {
		return nil // nobody can tell
	}
	e := m.Find(name)
	if e == nil || e.Type != release.Dir || e.Mode&0o700 == 0o700 {
		return nil
	}
	for _, at := range []string{name, s.file(genDir(n) + "/" + name)} {
		var st unix.Stat_t
		if unix.Lstat(s.t.abs(at), &st) == nil && st.Mode == unix.S_IFDIR|e.Mode|0o700 {
			return s.t.fs.SetMeta(at, disk.Meta{UID: -1, GID: -1, Mode: e.Mode})
		}
	}
	return nil
}

// unadopt puts back what adoptOwned has exchanged.
func (s *state) unadopt(j *journal) error {
	for _, name := range j.Adopt {
		if err := s.exchangeTop(string(name), 0, true); err != nil {
			return err
		}
	}
	if err := errors.Join(s.t.fs.SyncDir("."), s.t.fs.SyncDir(s.file(genDir(0)))); err != nil {
		return err
	}
	if err := s.t.fs.Remove(s.file("live")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.t.fs.SyncDir(s.dir); err != nil {
		return err
	}
	return removeTree(s.t, s.file(genDir(0)))
}

// checkLinks says what is wrong with the links in the target's directory.
func (s *state) checkLinks(m *release.Manifest) (missing, extra []string) {
	for _, name := range topNames(m) {
		if !isLink(s.t.abs(name), ownText(name)) {
			missing = append(missing, name)
		}
	}
	entries, _ := os.ReadDir(s.t.path)
	for _, e := range entries {
		if name := filepath.Base(e.Name()); isLink(s.t.abs(name), ownText(name)) && m.Find(name) == nil {
			extra = append(extra, name)
		}
	}
	return missing, extra
}
