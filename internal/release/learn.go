package release

import "time"

// Learn tells the release the digest of an entry of its directory that somebody
// else has computed, while copying it, from what OpenFile had opened at the
// moment seen or later; [Release.Unchanged] has said that it was still the same
// after. The cache remembers it. It may be called by several goroutines at
// once, but not during Complete.
func (r *Release) Learn(e *Entry, d Digest, seen time.Time) {
	e.Digest = d
	r.learning.Lock()
	defer r.learning.Unlock()
	r.remember(search(r.Manifest.Entries, e.Path), seen)
}
