package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"moult.example/internal/release"
)

// toAdopt are the names of the release that the target has already, not from
// us.
func (p *plan) toAdopt() []string {
	if p.s.layout != Owned || !p.opts.Adopt || p.live != noGeneration {
		return nil
	}
	var names []string
	for _, name := range topNames(p.m) {
		if exists(p.s.t.abs(name)) && !isLink(p.s.t.abs(name), ownText(name)) {
			names = append(names, name)
		}
	}
	return names
}

// compareAdopted compares the release with what is to be adopted. A file that the
// user may change goes on as it is; what the release does not name goes out of
// sight, with generation 0.
func (p *plan) compareAdopted(ctx context.Context) error {
	p.adopt = p.toAdopt()
	if len(p.adopt) == 0 {
		return nil
	}
	if err := p.rel.Complete(ctx); err != nil {
		return err
	}
	for i := range p.steps {
		st := &p.steps[i]
		top, _, _ := strings.Cut(st.e.Path, "/")
		if st.e.Type != release.File || !st.e.Keep || !slices.Contains(p.adopt, top) {
			continue
		}
		path := p.s.t.abs(st.e.Path)
		if real, err := filepath.EvalSymlinks(filepath.Dir(path)); err != nil || real != filepath.Dir(path) {
			continue // nothing, or elsewhere
		}
		now, err := find(path, "", nil)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case now.Type == release.File || now.Type == release.Symlink:
			if err := p.keepTheirs(st, &release.Entry{}, &now); err != nil {
				return err
			}
		}
	}
	return p.warnOfHidden()
}

// warnOfHidden names what is to be adopted and not in the release.
func (p *plan) warnOfHidden() error {
	var first Path
	n := 0
	for _, top := range p.adopt {
		err := filepath.WalkDir(p.s.t.abs(top), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) || err == nil && d.IsDir() {
				return nil
			}
			if name := path[len(p.s.t.path)+1:]; err == nil && p.m.Find(name) == nil {
				if n++; n == 1 {
					first = Path(name)
				}
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	if n > 0 {
		p.warn("%s (%d in all) is not in the release and goes out of sight, with what is adopted, to %s", first.Quoted(), n, p.s.abs(genDir(0)))
	}
	return nil
}

// makeGenerationZero makes the generation that the present content is to
// become: the books of it, and for each name the link that will be exchanged
// with the real one.
func (s *state) makeGenerationZero(adopt []string) error {
	fsys, dir := s.t.fs, s.file(stageDir(0))
	books := dir + "/" + dotMoult
	for _, d := range []string{dir, books} {
		if err := makeDir(fsys, d); err != nil {
			return err
		}
	}
	m, err := s.present(adopt)
	if err != nil {
		return err
	}
	info := Info{
		Schema: 1, Release: m.ID().String(), Name: s.name, Time: s.t.opts.Now().UTC(),
		UID: os.Geteuid(), GID: os.Getegid(), Base: noGeneration, Adopted: true,
	}
	data, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"manifest": m.Encode(), "info.json": append(data, '\n'), "committed": nil} {
		if err := writeFile(fsys, books+"/"+name, content, false); err != nil {
			return err
		}
	}
	if err := fsys.Symlink(adoptHelperText, books+"/live"); err != nil {
		return err
	}
	for _, name := range adopt {
		if err := fsys.Symlink(ownText(name), dir+"/"+name); err != nil {
			return err
		}
	}
	if _, err := s.linkBack(dir, m, adopt); err != nil {
		return err
	}
	if err := fsys.SyncFS(); err != nil {
		return err
	}
	if err := fsys.Place(dir, s.file(genDir(0))); err != nil {
		return err
	}
	return fsys.SyncDir(s.file("generations"))
}

// present describes what is in the target now, below some of its names. Sockets
// and the like are passed over: no release can hold them, so no manifest names
// them, and nothing will delete them.
func (s *state) present(names []string) (*release.Manifest, error) {
	m := &release.Manifest{}
	for _, top := range names {
		err := filepath.WalkDir(s.t.abs(top), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // programs at work come and go
			}
			if err != nil {
				return err
			}
			e, err := find(path, "", nil)
			if errors.Is(err, fs.ErrNotExist) || err == nil && e.Type == entryTypeOther {
				return nil
			}
			e.Path = path[len(s.t.path)+1:]
			m.Entries = append(m.Entries, e)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(m.Entries, func(a, b release.Entry) int { return strings.Compare(a.Path, b.Path) })
	return m, nil
}
