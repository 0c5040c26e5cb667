package deploy

import (
	"context"
	"os"
	"syscall"

	"moult.example/internal/release"
)

// compareManifests lists what differs between two releases, in the order of
// their paths: what to add, to replace, and last what to remove.
func compareManifests(old, m *release.Manifest, times bool) []Change {
	return compareEntries(old, m, func(e, was *release.Entry) string { return entriesDiffer(e, was, times || m.Times) })
}

func compareEntries(old, m *release.Manifest, differ func(e, was *release.Entry) string) []Change {
	changes, gone := []Change{}, []Change{}
	for e, was := range m.Beside(old) {
		if e == nil {
			gone = append(gone, Change{Action: "remove", Path: Path(was.Path)})
		} else if was == nil {
			changes = append(changes, Change{Action: "add", Path: Path(e.Path), Bytes: e.Size})
		} else if why := differ(e, was); why != "" {
			changes = append(changes, Change{Action: "replace", Path: Path(e.Path), Why: why, Bytes: e.Size})
		}
	}
	return append(changes, gone...)
}

// entriesDiffer compares two entries of releases, whose owners are names.
func entriesDiffer(e, was *release.Entry, times bool) string {
	if e.Owner != was.Owner {
		return "owner"
	}
	if e.Group != was.Group {
		return "group"
	}
	if e.HardLink != was.HardLink {
		return "hard links"
	}
	a, b := *e, *was
	a.Owner, a.Group, b.Owner, b.Group = "0", "0", "0", "0"
	return differs(&a, 0, 0, &b, times)
}

// Comparison is how a release differs from what is live in a target.
type Comparison struct {
	Schema     int      `json:"schema"`
	Target     Path     `json:"target"`
	Name       string   `json:"name"`
	Generation int      `json:"generation"` // that is live; -1 for none
	Live       string   `json:"live,omitempty"`
	Release    string   `json:"release"`
	Same       bool     `json:"same"`
	Changes    []Change `json:"changes"`
}

// Diff compares a release with the live one, manifest by manifest; what others
// have done to the target's files is for Verify.
func (t *Target) Diff(ctx context.Context, rel *release.Release, o ApplyOptions) (Comparison, error) {
	s, err := t.choose(rel, o)
	if err != nil {
		return Comparison{}, err
	}
	if err := rel.Complete(ctx); err != nil {
		return Comparison{}, err
	}
	c := Comparison{Schema: 1, Target: Path(t.path), Name: s.name, Generation: noGeneration, Release: rel.Manifest.ID().String()}
	old := &release.Manifest{}
	if c.Generation, err = s.live(); err != nil {
		return c, err
	}
	if c.Generation != noGeneration {
		if old, err = s.numbered(c.Generation); err != nil {
			return c, err
		}
		info, err := s.info(c.Generation)
		if err != nil {
			return c, err
		}
		c.Live = info.Release
	}
	who, err := t.appliers(s, c.Generation)
	if err != nil {
		return c, err
	}
	times := o.Times || rel.Manifest.Times
	c.Changes = compareEntries(old, who.number(rel.Manifest), func(e, was *release.Entry) string {
		why := entriesDiffer(e, was, times)
		if why == "" && times && s.layout == Owned && dirTimeDiffers(e, was) {
			why = "time" // which a shared target does not keep
		}
		return why
	})
	c.Same = len(c.Changes) == 0
	return c, nil
}

// appliers are the owners that an apply would give to what the release names none
// for: those of who asks, unless the target is another's, who alone may apply.
func (t *Target) appliers(s *state, live int) (*owners, error) {
	st, err := os.Lstat(t.abs(dotMoult))
	if err != nil || live == noGeneration || st.Sys().(*syscall.Stat_t).Uid == uint32(os.Geteuid()) {
		return newOwners(), nil
	}
	info, err := s.info(live)
	return ownersOf(info), err
}
