package deploy

import (
	"moult.example/internal/disk"
	"moult.example/internal/release"
)

// readyToCommit is the last look before the journal, for what the commit could
// stumble over.
func (s *state) readyToCommit(n int, m *release.Manifest, j *journal, synced bool) error {
	if err := s.checkMounts(); err != nil {
		return err
	}
	if err := s.checkFixed(j); err != nil {
		return err
	}
	if err := s.checkBooks(j); err != nil {
		return err
	}
	if s.layout == Owned {
		adopt := make([]string, len(j.Adopt))
		for i, name := range j.Adopt {
			adopt[i] = string(name)
		}
		if err := s.checkTopNames(m, adopt); err != nil {
			return err
		}
		// One that was retired is closed to all but its owner.
		if err := s.t.fs.SetMeta(s.file(genDir(n)), disk.Meta{UID: -1, GID: -1, Mode: 0o755}); err != nil {
			return err
		}
		changed, err := s.linkBack(s.file(genDir(n)), m, adopt)
		if err != nil {
			return err
		}
		if changed || !synced {
			if err := s.t.fs.SyncDir(s.file(genDir(n))); err != nil {
				return err
			}
		}
	}
	if s.layout == Shared {
		problems, err := s.placedByOthers(m)
		if err != nil {
			return err
		}
		if len(problems) > 0 {
			return &RefusedError{problems}
		}
		if err := s.checkPlanned(j); err != nil {
			return err
		}
		if err := s.keepOld(j); err != nil {
			return err
		}
	}
	return nil
}

// placedByOthers is what another product has placed at the paths of a release
// since that was staged, or was live. Bytes that are equal are no excuse: the
// file would be two products', and go with either.
func (s *state) placedByOthers(m *release.Manifest) (problems []Problem, err error) {
	others, err := s.otherProducts()
	if err != nil || len(others) == 0 {
		return nil, err
	}
	for _, at := range sortedKeys(s.t.places(m)) {
		if name := others[at]; name != "" {
			problems = append(problems, Problem{Path(at), placedBy(name), ""})
		}
	}
	return problems, nil
}

// checkTopNames refuses names of the release that the administrator has taken.
func (s *state) checkTopNames(m *release.Manifest, adopt []string) error {
	var problems []Problem
	for _, name := range topNames(m) {
		if exists(s.t.abs(name)) && !isLink(s.t.abs(name), ownText(name)) && !contains(adopt, name) {
			problems = append(problems, Problem{Path(name), "is in the target already, and not from moult", "move it away, or take it over with --adopt on the first apply"})
		}
	}
	if len(problems) > 0 {
		return &RefusedError{problems}
	}
	return nil
}
