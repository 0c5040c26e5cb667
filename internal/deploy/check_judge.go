package deploy

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"moult.example/internal/linkcheck"
)

// LinkReport is what the link check of a release or of files has found.
type LinkReport struct {
	Findings    []LinkFinding `json:"findings"`               // breaks first; those of programs outside of what was checked come last
	Twice       []Twice       `json:"twice,omitempty"`        // what looks up its release again
	Types       []LinkTypes   `json:"types,omitempty"`        // libraries that are replaced by another version
	TypeChanges []LinkType    `json:"type_changes,omitempty"` // what has changed in their types
	Plugins     []LinkPlugin  `json:"plugins,omitempty"`      // that were judged in their hosts
	Programs    int           `json:"programs"`               // that were judged
	Libraries   int           `json:"libraries"`              // likewise
	Outside     int           `json:"outside"`                // programs and libraries of this host that use what changes
	References  int64         `json:"references"`             // symbols that were looked up
	Foreign     int           `json:"foreign,omitempty"`      // for other machines, not judged
	More        int           `json:"more,omitempty"`         // findings that are not listed
	Unread      []LinkUnread  `json:"unread,omitempty"`       // what could not be told
}

// LinkFinding is one thing that would go wrong.
type LinkFinding struct {
	Kind     linkcheck.Problem  `json:"problem"`
	Severity linkcheck.Severity `json:"severity"`
	Path     Path               `json:"path"`              // in the release, or absolute
	Programs []Path             `json:"in,omitempty"`      // in which programs it shows, if in others
	More     int                `json:"in_more,omitempty"` // how many more of those
	Outside  bool               `json:"outside,omitempty"` // it is no part of what was checked
	Before   bool               `json:"before,omitempty"`  // it was so before
	Needs    Path               `json:"needs,omitempty"`
	Found    Path               `json:"found,omitempty"`
	Symbol   Path               `json:"symbol,omitempty"`
	Name     Path               `json:"name,omitempty"` // the symbol as a programmer writes it
	Version  Path               `json:"version,omitempty"`
	Searched []Path             `json:"searched,omitempty"`
	Near     []Path             `json:"near,omitempty"`
	Why      string             `json:"why"`
}

// LinkPlugin is a plugin and who loads it.
type LinkPlugin struct {
	Path    Path   `json:"path"`
	Hosts   []Path `json:"hosts"`
	Learned bool   `json:"learned,omitempty"` // from a process that has it loaded
}

// LinkUnread is a file that could not be judged.
type LinkUnread struct {
	Path Path   `json:"path"`
	Why  string `json:"why"`
}

// Broken counts the breaks that are not from before.
func (r *LinkReport) Broken() (n int) {
	for i := range r.Findings {
		if f := &r.Findings[i]; f.Severity == linkcheck.Break && !f.Before {
			n++
		}
	}
	for i := range r.TypeChanges {
		if r.TypeChanges[i].Severity == linkcheck.Break {
			n++
		}
	}
	for i := range r.Types {
		if r.Types[i].ABIDiff == "incompatible" {
			n++
		}
	}
	return n
}

// Judge says what would break with what was laid out. Nothing is executed, and
// nothing written but the index of this host's programs, if that may be.
func (l *Laid) Judge(ctx context.Context, o CheckOptions) (*LinkReport, error) {
	r := &LinkReport{Findings: []LinkFinding{}, Twice: l.twice, Foreign: l.foreign}
	l.setPlugins(ctx, r, o)
	lo := linkcheck.Options{Root: o.Root, LibraryPath: o.LibraryPath, Overlay: l.overlay, Links: l.links, Plugins: l.plugins}
	if err := l.checkNamed(ctx, o, lo); err != nil {
		return nil, err
	}
	after, err := linkcheck.Check(ctx, l.paths, lo)
	if err != nil {
		return nil, err
	}
	var before *linkcheck.Report
	if l.target != "" {
		bo := linkcheck.Options{Root: o.Root, LibraryPath: o.LibraryPath, Plugins: l.plugins}
		if before, err = linkcheck.Check(ctx, l.paths, bo); err != nil {
			return nil, err
		}
	}
	if err := l.own.lead(ctx, l.paths, lo, after, before); err != nil {
		return nil, err
	}
	if before != nil {
		bo := linkcheck.Options{Root: o.Root, LibraryPath: o.LibraryPath, Plugins: l.plugins}
		if err := l.own.lead(ctx, l.paths, bo, before, nil); err != nil {
			return nil, err
		}
	}
	l.take(r, before, after, false)
	r.Programs, r.Libraries, r.References, r.More = after.Programs, after.Libraries, after.References, after.More
	for _, u := range after.Unread {
		r.Unread = append(r.Unread, LinkUnread{l.shown(u.Path), u.Err.Error()})
	}
	var outside []string
	if o.Outside && len(l.changed) > 0 {
		if outside, err = l.judgeOutside(ctx, o, lo, r); err != nil {
			return nil, err
		}
	}
	return r, l.compareTypes(ctx, o, outside, r)
}

// take adds findings to the report.
func (l *Laid) take(r *LinkReport, before, after *linkcheck.Report, outside bool) {
	was := make([]bool, len(after.Findings))
	if before != nil {
		was = wasBefore(before, after)
	}
	known := map[shownKey]int{}
	if outside {
		for i := range r.Findings {
			known[r.Findings[i].key()] = i
		}
	}
	for i := range after.Findings {
		if outside && was[i] {
			continue
		}
		f := l.finding(&after.Findings[i], outside, was[i])
		k, ok := known[f.key()]
		switch {
		case !ok:
			r.Findings = append(r.Findings, f)
		case r.Findings[k].Severity != linkcheck.Break || r.Findings[k].Before:
			f.Outside = false // a file that was checked, by itself; here it is in a program
			r.Findings[k] = f
		}
	}
}

// shownKey is what a finding says, without how bad it is and for whom.
type shownKey struct {
	kind                         linkcheck.Problem
	path, needs, symbol, version Path
}

func (f *LinkFinding) key() shownKey {
	return shownKey{f.Kind, f.Path, f.Needs, f.Symbol, f.Version}
}

func (l *Laid) finding(f *linkcheck.Finding, outside, before bool) LinkFinding {
	g := LinkFinding{
		Kind: f.Problem, Severity: f.Severity, Path: l.shown(f.Object), Outside: outside, Before: before,
		Needs: Path(f.Needs), Symbol: Path(f.Symbol), Name: Path(f.Name), Version: Path(f.Version),
		Programs: l.allShown(f.Programs), More: f.MorePrograms, Searched: l.allShown(f.Searched), Near: l.nearShown(f.Near), Why: f.Why(),
	}
	if f.Found != "" {
		g.Found = l.shown(f.Found)
	}
	return g
}

// shown is the name of a file for people: in the release if it is there, and
// not below a generation.
func (l *Laid) shown(path string) Path {
	if target, _, rest, ok := cutGeneration(path); ok && rest != "" {
		path = filepath.Clean(target + rest)
	}
	for _, base := range []string{l.base, l.target} {
		if rest, ok := strings.CutPrefix(path, base+"/"); ok && base != "" {
			return Path(rest)
		}
	}
	return Path(path)
}

func (l *Laid) allShown(all []string) (out []Path) {
	for _, s := range all {
		out = append(out, l.shown(s))
	}
	return out
}

// nearShown are the names of what would have been near: paths, names of versions,
// or symbols with the file that they are in.
func (l *Laid) nearShown(all []string) (out []Path) {
	const in = " in "
	for _, s := range all {
		if i := strings.LastIndex(s, in+"/"); i >= 0 {
			out = append(out, Path(s[:i+len(in)])+l.shown(s[i+len(in):]))
			continue
		}
		out = append(out, l.shown(s))
	}
	return out
}

// judgeOutside looks at the programs and libraries of this host that use a
// library which changes: as they are, and as they would be.
func (l *Laid) judgeOutside(ctx context.Context, o CheckOptions, lo linkcheck.Options, r *LinkReport) (outside []string, err error) {
	index, err := hostIndex(ctx, o, l.places()...)
	if err != nil {
		return nil, err
	}
	own := make(map[string]bool, len(l.paths))
	for _, p := range l.paths {
		own[p] = true
	}
	for _, d := range index.Dependants(l.changed...) {
		if !own[d.Path] && !l.replaces(d.Path) {
			outside = append(outside, d.Path)
		}
	}
	r.Outside = len(outside)
	if len(outside) == 0 {
		return nil, nil
	}
	lo.Plugins = nil
	after, err := linkcheck.Check(ctx, outside, lo)
	if err != nil || after.Count(linkcheck.Break)+after.Count(linkcheck.Warning) == 0 {
		return outside, err
	}
	before, err := linkcheck.Check(ctx, outside, linkcheck.Options{Root: o.Root, LibraryPath: o.LibraryPath})
	if err != nil {
		return nil, err
	}
	l.take(r, before, after, true)
	return outside, nil
}

// places are the directories in which programs may use what is laid there, though
// they are none of those where a host keeps its programs.
func (l *Laid) places() (dirs []string) {
	if l.target != "" {
		return []string{l.target}
	}
	for _, path := range l.changed {
		dirs = append(dirs, filepath.Dir(path))
	}
	return dirs
}

// replaces says that a public path leads to the live release of an owned target,
// which goes as a whole. What else lies in the target stays.
func (l *Laid) replaces(path string) bool {
	rest, in := strings.CutPrefix(path, l.target+"/")
	if !in || l.target == "" || l.base == l.target {
		return false
	}
	top, _, _ := strings.Cut(rest, "/")
	text, err := os.Readlink(l.target + "/" + top)
	return err == nil && text == ownText(top)
}

// indexFile is where the index of this host's programs is kept, in the state
// directory. It is a cache.
const indexFile = "programs"

// hostIndex is the index of the programs of this host, or of another root, as
// they are now, with those in more directories. Who may not write it does without.
func hostIndex(ctx context.Context, o CheckOptions, more ...string) (*linkcheck.Index, error) {
	lo := linkcheck.Options{Root: o.Root}
	dirs := linkcheck.DefaultDirs()
	for _, dir := range more {
		if dir != "/" { // all that is mounted, and /proc: who means the host means where it has its programs
			dirs = append(dirs, dir)
		}
	}
	if o.Root != "" {
		index := &linkcheck.Index{}
		_, err := index.Refresh(ctx, lo, dirs...)
		return index, err
	}
	dir := o.StateDir
	if dir == "" {
		dir = StateDir()
	}
	index := &linkcheck.Index{}
	f, err := openBook(filepath.Join(dir, indexFile))
	if err == nil {
		index, err = linkcheck.ReadIndex(f)
		err = errors.Join(err, f.Close())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, errNoBook) {
		return nil, err
	}
	if targets, err := Targets(dir); err == nil { // a damaged entry is no reason to look at nothing
		for _, t := range targets {
			dirs = append(dirs, string(t.Path))
		}
	}
	changed, err := index.Refresh(ctx, lo, dirs...)
	if err != nil || !changed {
		return index, err
	}
	var b bytes.Buffer
	if err := index.Write(&b); err != nil {
		return nil, err
	}
	fsys, err := openStateDir(Options{StateDir: dir}.withDefaults())
	if err == nil {
		err = writeFile(fsys, indexFile, b.Bytes(), false)
		err = errors.Join(err, closeDisk(fsys))
	}
	if errors.Is(err, fs.ErrPermission) {
		err = nil
	}
	return index, err
}
