package deploy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"moult.example/internal/release"
)

// Verification is what Verify has found.
type Verification struct {
	Schema     int       `json:"schema"`
	Target     Path      `json:"target"`
	Name       string    `json:"name"`
	Generation int       `json:"generation"`
	Release    string    `json:"release"`
	Files      int       `json:"files"` // files and links looked at
	Bytes      int64     `json:"bytes"` // read
	Damage     []Problem `json:"damage,omitempty"`
	Kept       []Path    `json:"kept,omitempty"`  // changed, but theirs to change
	Extra      []Path    `json:"extra,omitempty"` // owned: in the live tree, and no release's
	CutShort   bool      `json:"cut_short,omitempty"`
}

// Verify reads every file of the live generation and says what is not as the
// release says: bytes, modes, owners, attributes, link texts, hard links. It
// trusts no cache, and writes nothing. As it takes no lock, a commit can pass
// while it reads: then what it has found says nothing, and it looks again.
func (t *Target) Verify(ctx context.Context, name string) (v Verification, err error) {
	for range 3 {
		s, err := t.state(name)
		if err != nil {
			return v, err
		}
		if v, err = t.verifyLive(ctx, s); err != nil {
			return v, err
		}
		live, err := s.live()
		v.CutShort = v.CutShort || s.cutShort()
		if err != nil || len(v.Damage) == 0 || live == v.Generation {
			return v, err
		}
	}
	return v, fmt.Errorf("%s: other generations become live while it is read", t.path)
}

func (t *Target) verifyLive(ctx context.Context, s *state) (v Verification, err error) {
	v = Verification{Schema: 1, Target: Path(t.path)}
	v.Name, v.CutShort = s.name, s.cutShort()
	if v.Generation, err = s.live(); err != nil {
		return v, err
	}
	if v.Generation == noGeneration {
		return v, nil
	}
	m, err := s.manifest(v.Generation)
	if err != nil {
		return v, err
	}
	v.Release = m.ID().String()
	for i := range m.Entries {
		if e := &m.Entries[i]; e.Type != release.Dir {
			v.Files++
			v.Bytes += e.Size
		}
	}
	found, err := s.verifyGeneration(ctx, v.Generation, m, newKnown())
	if err != nil {
		return v, err
	}
	for _, p := range found {
		if e := m.Find(string(p.Path)); e != nil && e.Keep {
			v.Kept = append(v.Kept, p.Path)
		} else {
			v.Damage = append(v.Damage, p)
		}
	}
	if s.layout == Owned {
		missing, _ := s.checkLinks(m)
		for _, name := range missing {
			p := Problem{Path(name), "the link to it in the target is missing", "moult recover " + t.path}
			if exists(t.abs(name)) {
				p.Why, p.Hint = "something else is in the place of the link to it", "move it away, then moult recover "+t.path
			}
			v.Damage = append(v.Damage, p)
		}
		v.Extra, err = s.extra(ctx, v.Generation, m)
	}
	return v, err
}

// verifyGeneration compares a generation with its manifest, by path order. In
// an owned target files that the user may change are compared as well; who
// rolls back takes them over later.
func (s *state) verifyGeneration(ctx context.Context, n int, m *release.Manifest, cache *known) ([]Problem, error) {
	info, err := s.info(n)
	if err != nil {
		return nil, err
	}
	who := ownersOf(info)
	uids, gids := make([]int, len(m.Entries)), make([]int, len(m.Entries))
	for i := range m.Entries {
		if uids[i], gids[i], err = who.of(&m.Entries[i]); err != nil {
			return nil, err
		}
	}
	live, err := s.live()
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var damage []Problem
	var files, bytes atomic.Int64
	err = parallel(ctx, len(m.Entries), func(i int) error {
		e := &m.Entries[i]
		if e.Keep && n != live {
			return nil
		}
		why, err := s.verifyEntry(n, e, uids[i], gids[i], m.Times, cache)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if why != "" {
			damage = append(damage, Problem{Path: Path(e.Path), Why: why})
		}
		s.t.event(Event{Job: "verify", Files: int(files.Add(1)), Bytes: bytes.Add(e.Size), AllFiles: len(m.Entries)})
		return nil
	})
	slices.SortFunc(damage, func(a, b Problem) int { return strings.Compare(string(a.Path), string(b.Path)) })
	return damage, err
}

func (s *state) verifyEntry(n int, e *release.Entry, uid, gid int, times bool, cache *known) (string, error) {
	path := s.place(n, e.Path)
	found, err := find(path, e.Path, cache)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return "missing", nil
	}
	if err != nil {
		return "", err
	}
	if e.Type == release.Dir && s.layout == Shared {
		// A directory may have been there before us, or be a link of the
		// administrator's to one.
		if st, err := os.Stat(path); err == nil && st.IsDir() {
			return "", nil
		}
	}
	if why := differs(e, uid, gid, &found, times); why != "" {
		return why, nil
	}
	if e.HardLink != "" {
		a, err := os.Lstat(s.place(n, e.HardLink))
		b, err2 := os.Lstat(path)
		if err != nil || err2 != nil || !os.SameFile(a, b) {
			return "is no longer a hard link to " + Path(e.HardLink).Quoted(), nil
		}
	}
	return "", nil
}

// place is where a path of a generation is.
func (s *state) place(n int, path string) string {
	if s.layout == Owned {
		return s.abs(genDir(n) + "/" + path)
	}
	return s.t.abs(path)
}

// extra lists what is in a generation and is neither the release's nor ours, by
// name; of a directory that is not, its name alone.
func (s *state) extra(ctx context.Context, n int, m *release.Manifest) ([]Path, error) {
	inv, err := s.inventory(ctx, n)
	return extraOf(inv.items, m), err
}

// extraIn is extra for these directories alone, each by itself.
func (s *state) extraIn(ctx context.Context, n int, m *release.Manifest, dirs []string) ([]Path, error) {
	w, _, err := s.walk(n)
	if err != nil {
		return nil, err
	}
	defer w.root.Close()
	found := make([][]item, len(dirs))
	err = parallelBy(ctx, len(dirs), 1, func(i int) (err error) {
		found[i], err = w.list(dirs[i])
		return err
	})
	return extraOf(slices.Concat(found...), m), err
}

// extraOf are those of these items, each behind the directory that it is in.
func extraOf(items []item, m *release.Manifest) (extra []Path) {
	dirs := map[string]bool{}
	for i := range items {
		it := &items[i]
		if m.Find(it.path) != nil || it.leadsBack() || isNew(m, it.path) || below(dirs, it.path) {
			continue
		}
		extra = append(extra, Path(it.path))
		if it.isDir() {
			dirs[it.path] = true
		}
	}
	slices.Sort(extra)
	return extra
}

// entries are those of a manifest, or of its text.
type entries interface {
	Find(path string) *release.Entry
}

// isNew says that name is the release's version that was laid beside a file
// that the user has changed.
func isNew(m entries, name string) bool {
	base, ok := strings.CutSuffix(name, newSuffix)
	if !ok {
		return false
	}
	e := m.Find(base)
	return e != nil && e.Keep
}
