package deploy

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/release"
)

// ApplyOptions say how a release is to be staged and committed. The zero value
// is right for most.
type ApplyOptions struct {
	Name      string // the product; "" is what the release says, or the target's only one, or the target's last path component
	Layout    Layout // for the first release of a target; "" is owned for a new or empty directory, else shared
	Adopt     bool   // make an owned target of a directory with files in it
	Checksum  bool   // trust no stat cache: read every file of the target, and mend what is damaged
	Times     bool   // a file whose time alone differs is replaced
	Packaged  bool   // replace files of the system's package manager too
	NoHooks   bool   // run no hook, ldconfig or systemctl
	Retention Retention
	Links     LinkPolicy // what becomes of a release that breaks what loads it

	// SourceCache is the stat cache that the release was opened with, from
	// [Target.SourceCache]; it is saved with the target's own. nil is none.
	SourceCache *release.Cache
}

// action is what a stage does for one entry of the new manifest.
type action uint8

const (
	actCopy action = iota // new bytes or new metadata
	actLink               // unchanged: the same inode
	actKeep               // changed by the user: theirs goes on
)

// step is one entry of the manifest, and what becomes of it.
type step struct {
	e        *release.Entry
	uid, gid int
	act      action
	is       string         // the path in the target that it has (shared: after the administrator's links)
	found    *release.Entry // what is there now (shared) or in the live generation (keep); nil for nothing
	why      string         // what differs
	besideMe bool           // kept, and the release's version goes to PATH.new
	was      ids            // owned: the owners of found
	staged   string         // shared: the temporary that has its bytes
	made     release.Stat   // the inode that the stage has made for it
	live     release.Stat   // owned: of the live file, if the cache knows it and the release wants it
	fixed    bool           // what is there is immutable, or for appending only
	stays    bool           // owned: in the generation that the new one is made of
	touched  bool           // owned: a directory to which names have come, or from which they have gone
}

// ids are the owners of a file, by number.
type ids struct{ uid, gid int }

// entryDiffers says in what the release's entry differs from the live one's.
func entryDiffers(st *step, times bool) string {
	switch {
	case st.uid != st.was.uid:
		return "owner"
	case st.gid != st.was.gid:
		return "group"
	}
	e, was := *st.e, *st.found
	e.Owner, e.Group, was.Owner, was.Group = "0", "0", "0", "0"
	why := differs(&e, 0, 0, &was, times)
	if why == "" && times && dirTimeDiffers(&e, &was) {
		why = "time"
	}
	return why
}

// plan is the work of one release on one target, before anything is changed.
type plan struct {
	s        *state
	rel      *release.Release
	m        *release.Manifest
	opts     ApplyOptions
	waits    bool           // staged on its own, to be committed later
	n        int            // the new generation, once it is staged
	reused   []int          // the one that it was made of, if any
	stayed   bool           // nothing that stayed has lost a name since
	sealed   time.Time      // the stage was whole; what has changed since was not changed by it
	early    []release.Stat // the files just before the collection, if that has taken anything
	closed   bool           // retired generations that nobody uses were taken out of reach
	live     int
	liveM    *release.Manifest // nil if live is noGeneration
	liveInfo Info
	steps    []step
	removed  []*release.Entry // of liveM, that m does not name
	adopt    []string         // top-level names to adopt
	mended   []Path
	problems []Problem
	warnings []string
	labels   map[string]string // by absolute path; nil where SELinux is off

	links          *Links     // nil as long as nobody has looked
	linkWarnings   []string   // what it would break, where that is only told
	loadables      []loadable // of the whole release,
	loadablesKnown bool       // if they are known
	cache          *known
	text           func() []byte // of the manifest; nil if a digest is not known yet
	sourceText     func() []byte // of the source's cache, nil for nothing new
	mu             sync.Mutex
}

// makePlan compares the release with what is there. It writes nothing.
func (t *Target) makePlan(ctx context.Context, s *state, rel *release.Release, o ApplyOptions) (*plan, error) {
	p := &plan{s: s, rel: rel, m: rel.Manifest, opts: o, live: noGeneration}
	if err := p.readLive(); err != nil {
		return nil, err
	}
	if p.live != noGeneration || s.layout == Shared {
		// A first generation is hashed while it is copied.
		if err := rel.Complete(ctx); err != nil {
			return nil, err
		}
	}
	p.cache = newKnown()
	if !o.Checksum {
		p.cache = s.loadCache()
	}
	if err := p.resolveOwners(); err != nil {
		return nil, err
	}
	var err error
	if s.layout == Owned {
		if err = p.compareOwned(ctx); err == nil {
			err = p.compareAdopted(ctx)
		}
	} else {
		err = p.compareShared(ctx)
	}
	if err != nil {
		return nil, err
	}
	p.findRemoved()
	p.warnOfLeftBehind()
	p.warnOneTop()
	p.warnOther()
	return p, p.preflight(ctx)
}

// readLive finds what is live now.
func (p *plan) readLive() (err error) {
	if p.live, err = p.s.live(); err != nil || p.live == noGeneration {
		return err
	}
	if p.liveM, err = p.s.manifest(p.live); err != nil {
		return err
	}
	p.liveInfo, err = p.s.info(p.live)
	return err
}

func (p *plan) resolveOwners() error {
	who := newOwners()
	p.steps = make([]step, len(p.m.Entries))
	for i := range p.m.Entries {
		e := &p.m.Entries[i]
		st := &p.steps[i]
		st.e, st.is = e, e.Path
		var err error
		if st.uid, st.gid, err = who.of(e); err != nil {
			p.problem(e.Path, err.Error(), "create it, or map owners in moult.toml")
		}
		if e.Type == release.File && (e.Mode&unix.S_ISUID != 0 && e.Owner == "" || e.Mode&unix.S_ISGID != 0 && e.Group == "") {
			p.problem(e.Path, fmt.Sprintf("mode %04o sets an id, but the release does not say whose", e.Mode),
				"name owner and group in moult.toml, or use --owners")
		}
	}
	return nil
}

func (p *plan) problem(path, why, hint string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problems = append(p.problems, Problem{Path(path), why, hint})
}

func (p *plan) warn(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.warnings = append(p.warnings, fmt.Sprintf(format, args...))
}

func (p *plan) mend(path string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mended = append(p.mended, Path(path))
}

// findRemoved lists what the live release has and the new one has not.
func (p *plan) findRemoved() {
	if p.liveM == nil {
		return
	}
	for e, was := range p.m.Beside(p.liveM) {
		if e == nil {
			p.removed = append(p.removed, was)
		}
	}
}

// same says that the release is live already, in every byte.
func (p *plan) same() bool {
	if p.liveM == nil || len(p.removed) > 0 || len(p.adopt) > 0 {
		return false
	}
	for i := range p.steps {
		st := &p.steps[i]
		unchanged := st.act == actLink || st.act == actKeep && !st.besideMe || st.e.Keep && st.why == ""
		if !unchanged {
			return false
		}
	}
	return p.m.Name == p.liveM.Name && p.m.Version == p.liveM.Version && p.m.Hooks == p.liveM.Hooks &&
		reflect.DeepEqual(p.m.Restart, p.liveM.Restart) && reflect.DeepEqual(p.m.Plugins, p.liveM.Plugins) && p.sameKeeps()
}

func (p *plan) sameKeeps() bool {
	for e, was := range p.m.Beside(p.liveM) {
		if e != nil && was != nil && was.Keep != e.Keep {
			return false
		}
	}
	return true
}

// topNames are the names of a manifest that stand in the target's directory.
func topNames(m *release.Manifest) []string {
	var names []string
	for i := range m.Entries {
		if name := m.Entries[i].Path; !strings.Contains(name, "/") {
			names = append(names, name)
		}
	}
	return names
}

// need is how many bytes and inodes a stage takes. A sparse file counts for
// nothing: how much of it is no hole shows only when it is copied.
func (p *plan) need() (bytes int64, inodes int64) {
	for i := range p.steps {
		st := &p.steps[i]
		if st.act == actLink && st.e.Type != release.Dir {
			continue
		}
		inodes++
		if st.e.Type == release.File && st.e.HardLink == "" && !st.e.Sparse {
			bytes += (st.e.Size + 4095) &^ 4095
		}
	}
	return bytes, inodes
}

// report is the plan for people and programs.
func (p *plan) report() Plan {
	r := Plan{
		Schema: 1, Target: Path(p.s.t.path), Layout: p.s.layout, Name: p.s.name, From: p.live,
		Version: p.m.Version, Same: p.same(), Adopt: len(p.adopt) > 0,
		Problems: p.problems, Warnings: slices.Concat(p.warnings, p.linkWarnings), Links: p.links,
	}
	for i := range p.steps {
		st := &p.steps[i]
		c := Change{Path: Path(st.is), Why: st.why}
		switch {
		case st.act == actLink || st.e.Keep && st.why == "" && st.found != nil:
			r.Unchanged++
			continue
		case st.act == actKeep:
			c.Action = "keep"
			if st.besideMe {
				r.Changes = append(r.Changes, c)
				c = Change{Action: "new", Path: Path(st.is + newSuffix), Bytes: st.e.Size}
			}
		case st.found == nil:
			c.Action, c.Bytes, c.Why = "add", st.e.Size, ""
		default:
			c.Action, c.Bytes = "replace", st.e.Size
		}
		r.CopyBytes += c.Bytes
		r.Changes = append(r.Changes, c)
	}
	for _, e := range p.removed {
		r.Changes = append(r.Changes, Change{Action: "remove", Path: Path(e.Path)})
	}
	return r
}

// newSuffix is what the name of a release's file gets that is laid beside one
// that the user has changed.
const newSuffix = ".new"
