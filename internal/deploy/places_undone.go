package deploy

import (
	"path/filepath"
	"strings"
)

// Undone is a file of an owned target's release that something else than a
// release has replaced.
type Undone struct {
	Target     Path
	Generation int
	Released   bool // the release has a file of that name
}

// Undone says whether the next apply undoes what was done to a file of an owned
// target: not where the release leaves the file to the user. A path that does
// not lead into a generation costs no more than to follow its links.
func (p *Places) Undone(path string) (u Undone, ok bool) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return u, false
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil || !strings.Contains(dir+"/", generationsPart) {
		return u, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	pt, key, e, ok := p.find(filepath.Join(dir, filepath.Base(abs)))
	if !ok || e != nil && e.Keep {
		return u, false
	}
	return Undone{Path(pt.t.path), key.n, e != nil}, true
}
