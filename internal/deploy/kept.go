package deploy

import (
	"slices"

	"moult.example/internal/release"
)

// reportKept makes the result of a commit agree with what stage has said: a
// file that stays as the user has made it is the same, whatever the two
// releases have under its name, and the release's version lies beside it.
func (s *state) reportKept(n int, res *Result) error {
	m, err := s.numbered(n)
	if err != nil {
		return err
	}
	old := &release.Manifest{}
	if res.From != noGeneration {
		if old, err = s.numbered(res.From); err != nil {
			return err
		}
	}
	beside := func(path string) bool { return exists(s.abs(genDir(n) + "/" + path + newSuffix)) }
	if s.layout == Shared {
		if beside, err = s.keptShared(n, m, old, res); err != nil {
			return err
		}
	}
	for _, path := range res.Kept {
		e, was := m.Find(string(path)), old.Find(string(path))
		if e == nil || was == nil {
			continue
		}
		if entriesDiffer(e, was, m.Times) != "" {
			res.Replaced--
			res.Same++
		}
		if name := path + newSuffix; beside(string(path)) && m.Find(string(name)) == nil && !slices.Contains(res.New, name) {
			res.New = append(res.New, name)
		}
	}
	return nil
}

// keptShared adds the files that stay in a shared target: the user has changed
// them, and the stage has planned nothing for them. What it returns says whether
// the stage lays something beside one.
func (s *state) keptShared(n int, m, old *release.Manifest, res *Result) (beside func(string) bool, err error) {
	st, err := s.readStaging(genDir(n))
	if err != nil {
		return nil, err
	}
	planned := map[string]bool{}
	if st != nil {
		for _, o := range st.Ops {
			planned[string(o.Path)] = true
		}
	}
	at := func(path string) string {
		if real, why := s.t.resolvePath(path); why == "" {
			return real
		}
		return path
	}
	for i := range m.Entries {
		e := &m.Entries[i]
		was := old.Find(e.Path)
		if !e.Keep || was == nil || e.Type != release.File || planned[at(e.Path)] {
			continue
		}
		found, err := find(s.t.abs(at(e.Path)), "", nil)
		if err != nil || differs(was, atoi(was.Owner), atoi(was.Group), &found, false) != "" {
			res.Kept = append(res.Kept, Path(e.Path))
		}
	}
	return func(path string) bool { return planned[at(path)+newSuffix] }, nil
}

// warnOfLeftBehind names what the user has changed, of files that are theirs to
// change, and the new release has no more: in an owned target that goes out of
// sight with its generation.
func (p *plan) warnOfLeftBehind() {
	if p.s.layout != Owned || p.live == noGeneration {
		return
	}
	for _, e := range p.removed {
		if p.s.changedHere(p.s.file(genDir(p.live)), e) {
			p.warn("%s was changed here, and this release has it no more: that version stays with generation %d, below %s", Path(e.Path).Quoted(), p.live, p.s.abs(genDir(p.live)))
		}
	}
}

// changedHere says that a generation's file which the user may change is not as
// its release has brought it.
func (s *state) changedHere(gen string, e *release.Entry) bool {
	if !e.Keep || e.Type != release.File {
		return false
	}
	now, err := find(s.t.abs(gen+"/"+e.Path), "", nil)
	return err == nil && (now.Type != release.File || now.Digest != e.Digest)
}

// leftBehind is the first file of a generation, if any, that the user has changed
// and that nobody has carried on: the live release has it no more, or does not say
// any more that it may be changed.
func (s *state) leftBehind(inv *inventory, m entries) (Path, bool) {
	n, err := s.live()
	if err != nil || n == noGeneration {
		return "", false
	}
	live, err := s.manifest(n)
	if err != nil {
		return "", false
	}
	for i := range inv.items {
		it := &inv.items[i]
		if it.stays || it.isDir() {
			continue
		}
		e := m.Find(it.path)
		if e == nil || !e.Keep {
			continue
		}
		if on := live.Find(it.path); (on == nil || !on.Keep) && s.changedHere(inv.name, e) {
			return Path(it.path), true
		}
	}
	return "", false
}
