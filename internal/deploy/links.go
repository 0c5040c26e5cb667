package deploy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"moult.example/internal/linkcheck"
	"moult.example/internal/release"
)

// LinkPolicy says what becomes of a release that would break what loads it.
type LinkPolicy string

// The policies.
const (
	LinksRefuse LinkPolicy = ""       // it is refused
	LinksWarn   LinkPolicy = "warn"   // it is told
	LinksIgnore LinkPolicy = "ignore" // nobody looks
)

// Links is what the link check of a release has found.
type Links struct {
	Checked int           `json:"checked"`           // programs and libraries that were judged: the changed ones, and who needs them
	Before  int           `json:"before"`            // problems of theirs that were there before, and are no reason to refuse
	Foreign int           `json:"foreign,omitempty"` // programs and libraries for other machines, which cannot be judged here
	Added   []LinkProblem `json:"added,omitempty"`   // what the release would break
}

// LinkProblem is one thing that a release would break.
type LinkProblem struct {
	Path Path   `json:"path"` // in the target, or absolute for what is not in it
	Kind string `json:"kind"` // as moult check names it
	Why  string `json:"why"`
}

// linkCheck judges the files of a plan as they will be, laid over what is there.
type linkCheck struct {
	p    *plan
	base string // where the live release is, or this one is going to be

	overlay map[string]string // for linkcheck.Options
	links   map[string]string
	infos   []linkcheck.Info  // by step; of what is new
	lost    map[string]string // programs and libraries that are none any more, or not for this host: what they are
	names   map[string]bool   // file names and sonames of libraries that are new, changed or gone
	foreign int
}

// checkLinks refuses, or tells, what the release breaks, unless that was done.
// open opens the bytes of a step; nil says that they cannot be had yet, which
// leaves the check for later.
func (p *plan) checkLinks(ctx context.Context, open func(*step) (*os.File, error)) error {
	if p.opts.Links == LinksIgnore || p.links != nil || len(p.problems) > 0 || p.same() {
		return nil
	}
	c := newLinkCheck(p)
	if ready, err := c.lay(ctx, open); !ready || err != nil {
		return err
	}
	paths, err := c.paths(ctx)
	if err != nil {
		return err
	}
	c.remember()
	p.links = &Links{Checked: len(paths), Foreign: c.foreign}
	for _, path := range sortedKeys(c.lost) {
		c.tell([]linkcheck.Finding{{Problem: linkcheck.BadFile, Severity: linkcheck.Break, Object: path, Detail: c.lost[path]}})
	}
	if len(paths) == 0 {
		if c.foreign > 0 {
			p.linkWarnings = append(p.linkWarnings, fmt.Sprintf("whether its programs and libraries load cannot be told here: they are for another machine (%d)", c.foreign))
		}
		return nil
	}
	added, before, err := c.judge(ctx, paths)
	if err != nil {
		return fmt.Errorf("link check: %w", err)
	}
	p.links.Before = before
	c.tell(added)
	return nil
}

func newLinkCheck(p *plan) *linkCheck {
	c := &linkCheck{
		p: p, base: p.s.t.path, overlay: map[string]string{}, links: map[string]string{},
		infos: make([]linkcheck.Info, len(p.steps)), names: map[string]bool{}, lost: map[string]string{},
	}
	if p.s.layout == Owned && p.live != noGeneration {
		c.base = p.s.abs(genDir(p.live))
	}
	return c
}

// openSource opens a step's file in the release, if that is a file.
func (p *plan) openSource(st *step) (*os.File, error) {
	r, err := p.rel.OpenFile(st.e)
	if errors.Is(err, release.ErrNoBytes) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if f, ok := r.(*os.File); ok {
		return f, nil
	}
	return nil, r.Close()
}

// checkStaged is the check of a release whose files could not be had before they
// were staged, and writes down what every check has found out.
func (b *stager) checkStaged(ctx context.Context) error {
	if err := b.checkLinks(ctx, b.openStaged); err != nil {
		return err
	}
	if len(b.problems) > 0 {
		return &RefusedError{b.problems}
	}
	return b.writeLinks()
}

// openStaged opens the copy of it that a stage has made.
func (b *stager) openStaged(st *step) (*os.File, error) {
	name := st.staged
	if b.s.layout == Owned {
		name = b.dir + "/" + st.e.Path
	}
	return os.Open(b.s.t.abs(name))
}

func (c *linkCheck) at(st *step) string { return c.base + "/" + st.is }

// lay finds out what is new, and of that what is for the loader.
func (c *linkCheck) lay(ctx context.Context, open func(*step) (*os.File, error)) (ready bool, err error) {
	p := c.p
	var files []int
	for i := range p.steps {
		st := &p.steps[i]
		switch {
		case st.act != actCopy || st.is == "":
		case st.e.Type == release.Dir:
			if st.found != nil && st.found.Type != release.Dir {
				c.overlay[c.at(st)] = ""
				c.changedName(st.is)
			}
		case st.e.Type == release.Symlink:
			c.links[c.at(st)] = st.e.Text
			c.changedName(st.is)
		default:
			files = append(files, i)
		}
	}
	from := make([]string, len(files))
	var later atomic.Bool
	err = parallel(ctx, len(files), func(k int) error {
		i := files[k]
		if later.Load() {
			return nil
		}
		f, err := open(&p.steps[i])
		if f == nil {
			later.Store(true)
			return err
		}
		defer f.Close()
		from[k] = f.Name()
		c.infos[i], err = needsOf(f)
		return err
	})
	if err != nil || later.Load() {
		return false, err
	}
	for k, i := range files {
		st := &p.steps[i]
		c.overlay[c.at(st)] = from[k]
		c.changedName(st.is) // also if it is no library any more
		if info := &c.infos[i]; info.Kind == linkcheck.Library {
			c.names[info.Soname] = true
		}
	}
	for _, e := range p.removed {
		if e.Type != release.Dir {
			c.overlay[c.base+"/"+e.Path] = ""
			c.changedName(e.Path)
		}
	}
	delete(c.names, "")
	if c.base != p.s.t.path { // names that the target itself is going to have
		for _, name := range topNames(p.m) {
			if p.liveM.Find(name) == nil {
				c.links[p.s.t.abs(name)] = ownText(name)
			}
		}
	}
	return true, nil
}

// changedName notes that a library of that file name may be another now.
func (c *linkCheck) changedName(path string) {
	if base := filepath.Base(path); strings.Contains(base, ".so") {
		c.names[base] = true
	}
}

// needsOf reads what a file needs. A file that begins as ELF and is not sound is
// for the check to name; one that was not ELF is nothing.
func needsOf(f *os.File) (linkcheck.Info, error) {
	st, err := f.Stat()
	if err != nil {
		return linkcheck.Info{}, err
	}
	info, err := linkcheck.Needs(f, st.Size())
	var format *linkcheck.FormatError
	if errors.As(err, &format) {
		err = nil
	}
	return info, err
}

// paths are the files to judge: what is new, and what needs a library that is
// another now, directly or not.
func (c *linkCheck) paths(ctx context.Context) ([]string, error) {
	host, err := hostMachine()
	if err != nil {
		return nil, err
	}
	known, err := c.unchanged(ctx)
	if err != nil {
		return nil, err
	}
	known = append(known, c.neighbours()...)
	var paths []string
	for i := range c.p.steps {
		st, info := &c.p.steps[i], &c.infos[i]
		if st.act == actCopy && st.found != nil && st.is != "" && c.loses(st, info, host) {
			continue
		}
		if !judged(st.e, info) {
			continue
		}
		if !host.runs(info) {
			c.foreign++
			continue
		}
		paths = append(paths, c.at(st))
		if info.Kind == linkcheck.Library || len(info.Needed) > 0 {
			known = append(known, loadable{path: st.is, info: *info, judged: true})
		}
	}
	for _, l := range dependants(known, c.names) {
		if !l.judged && host.runs(&l.info) {
			paths = append(paths, c.base+"/"+l.path)
		}
	}
	slices.Sort(paths)
	return paths, nil
}

// loadable is a program or library of the release.
type loadable struct {
	path   string // in the target
	info   linkcheck.Info
	judged bool // anyway
}

// dependants are those of all that need one of the names, directly or by way of
// each other.
func dependants(all []loadable, names map[string]bool) (out []*loadable) {
	if len(names) == 0 {
		return nil
	}
	needs := map[string][]*loadable{} // by the last part of the name
	for i := range all {
		for _, name := range all[i].info.Needed {
			name = filepath.Base(name)
			needs[name] = append(needs[name], &all[i])
		}
	}
	seen := map[*loadable]bool{}
	todo := slices.Collect(maps.Keys(names))
	asked := maps.Clone(names)
	for len(todo) > 0 {
		name := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, l := range needs[name] {
			if seen[l] {
				continue
			}
			seen[l] = true
			out = append(out, l)
			for _, own := range []string{l.info.Soname, filepath.Base(l.path)} {
				if own != "" && !asked[own] {
					asked[own] = true
					todo = append(todo, own)
				}
			}
		}
	}
	return out
}

// judge looks at the files as they will be, and where something breaks also as
// they are: what was broken before is not the release's doing.
func (c *linkCheck) judge(ctx context.Context, paths []string) (added []linkcheck.Finding, before int, err error) {
	o := linkcheck.Options{Overlay: c.overlay, Links: c.links, Plugins: c.plugins(ctx, paths)}
	after, err := linkcheck.Check(ctx, paths, o)
	if err != nil {
		return nil, 0, err
	}
	if after.Count(linkcheck.Break) == 0 {
		return nil, 0, nil
	}
	bo := linkcheck.Options{Plugins: o.Plugins}
	was, err := linkcheck.Check(ctx, paths, bo)
	if err != nil {
		return nil, 0, err
	}
	own := c.own()
	if err := own.lead(ctx, paths, o, after, was); err != nil {
		return nil, 0, err
	}
	if err := own.lead(ctx, paths, bo, was, nil); err != nil {
		return nil, 0, err
	}
	for i, old := range wasBefore(was, after) {
		if f := after.Findings[i]; f.Severity == linkcheck.Break && !old {
			added = append(added, f)
		}
	}
	return added, after.Count(linkcheck.Break) - len(added), nil
}

// maxLinkProblems is how many are told; a library that is gone breaks all that
// need it.
const maxLinkProblems = 100

// tell makes of what the release adds a refusal or a warning.
func (c *linkCheck) tell(added []linkcheck.Finding) {
	for i := range added {
		f := &added[i]
		path, in := strings.CutPrefix(f.Object, c.base+"/")
		if !in {
			path, _ = strings.CutPrefix(f.Object, c.p.s.t.path+"/")
		}
		why := f.Why()
		if len(f.Programs) > 0 && f.Object != f.Programs[0] {
			why += ", in " + strings.TrimPrefix(f.Programs[0], c.base+"/")
		}
		if len(c.p.links.Added) < maxLinkProblems {
			c.p.links.Added = append(c.p.links.Added, LinkProblem{Path(path), string(f.Problem), why})
		}
		switch {
		case c.p.opts.Links == LinksRefuse:
			c.p.problem(path, why, "moult check says more; --links warn goes on all the same")
		case i == maxLinkProblems:
			c.p.linkWarnings = append(c.p.linkWarnings, fmt.Sprintf("%d more links are broken", len(added)-i))
			return
		default:
			c.p.linkWarnings = append(c.p.linkWarnings, Path(path).Quoted()+": "+why)
		}
	}
}
