package deploy

import (
	"fmt"
	"iter"
	"strings"

	"moult.example/internal/deploy/hostfacts"
	"moult.example/internal/release"
)

// checkMounts refuses to switch a tree of which a part is a mount: it would
// stay behind.
func (s *state) checkMounts() error {
	if s.layout != Owned || !exists(s.t.abs(dotMoult)) {
		return nil
	}
	mounts, err := hostfacts.MountsBelow(s.t.abs(dotMoult))
	if err != nil || len(mounts) == 0 {
		return err
	}
	return refuse("", fmt.Sprintf("%s is mounted below a generation", mounts[0].Point), "unmount it; a mount belongs beside what moult owns")
}

// checkHidden refuses the way back of a shared target if a mount hides a path of
// either generation.
func (s *state) checkHidden(ms ...*release.Manifest) error {
	mounts, err := hostfacts.MountsBelow(s.t.path)
	if err != nil {
		return err
	}
	problems := s.t.hiddenProblems(mounts, func(yield func(*release.Entry) bool) {
		for _, m := range ms {
			for i := range m.Entries {
				if !yield(&m.Entries[i]) {
					return
				}
			}
		}
	})
	if len(problems) > 0 {
		return &RefusedError{problems}
	}
	return nil
}

// hiddenProblems are the mounts that hide what is to be looked at or removed, one
// problem for each: what is below could not be seen, would be taken for gone, and
// be nobody's when the mount goes.
func (t *Target) hiddenProblems(mounts []hostfacts.Mount, all iter.Seq[*release.Entry]) (problems []Problem) {
	for _, m := range mounts {
		inside, ok := strings.CutPrefix(m.Point, strings.TrimSuffix(t.path, "/")+"/")
		if !ok {
			continue
		}
		for e := range all {
			if strings.HasPrefix(e.Path, inside+"/") {
				problems = append(problems, Problem{Path(e.Path), "is hidden by another mount, " + Path(m.Point).Quoted(), "unmount it first"})
				break
			}
		}
	}
	return problems
}
