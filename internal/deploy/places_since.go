package deploy

import (
	"path/filepath"
	"strings"
	"time"

	"moult.example/internal/release"
	"moult.example/internal/stale"
)

var _ stale.Dater = (*Places)(nil)

// Replaced implements [stale.Dater]. The times of a file tell when it was
// staged, or built; the history knows when it became live.
func (p *Places) Replaced(path string, runs stale.Origin) (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pt := p.at(runs.Target)
	if pt == nil {
		return time.Time{}, false
	}
	for _, s := range pt.states {
		name := s.name
		if info, err := s.info(runs.Generation); err == nil && info.Name != "" {
			name = info.Name
		}
		if name == runs.Product || pt.layout == Owned {
			return pt.replaced(s, pt.released(path), runs.Generation)
		}
	}
	return time.Time{}, false
}

// released is what a release calls a file of the target.
func (pt *placesTarget) released(path string) string {
	if _, _, rest, ok := cutGeneration(path); ok {
		return strings.TrimPrefix(rest, "/")
	}
	rel, err := filepath.Rel(pt.t.path, path)
	if err != nil {
		return ""
	}
	return rel
}

// replaced is the last time at which a generation ceased to be live that had
// the same bytes at this path as generation n.
func (pt *placesTarget) replaced(s *state, rel string, n int) (time.Time, bool) {
	records, err := s.history()
	if err != nil {
		return time.Time{}, false
	}
	var old *release.Entry
	if m, err := s.manifest(n); err == nil {
		old = m.Find(rel)
	}
	for i := len(records) - 1; i >= 0; i-- {
		r := records[i]
		if r.Job == "stage" || r.From == r.To || r.From == noGeneration || r.To == noGeneration {
			continue
		}
		same := r.From == n
		if !same && old != nil {
			if m, err := s.manifest(r.From); err == nil {
				e := m.Find(rel)
				same = e != nil && e.Type == old.Type && e.Digest == old.Digest
			}
		}
		if same {
			return r.Time, true
		}
	}
	return time.Time{}, false
}
