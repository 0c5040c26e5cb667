package deploy

import (
	"context"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"moult.example/internal/linkcheck"
	"moult.example/internal/release"
)

// judged says that a file of a release is something to start or to load. One
// that nobody may execute is none, unless it is called like a library: test data,
// a copy, a package's payload.
func judged(e *release.Entry, info *linkcheck.Info) bool {
	switch {
	case info.Kind != linkcheck.Program && info.Kind != linkcheck.Library:
		return false
	case e.Mode&0o111 != 0:
		return true
	case info.Kind == linkcheck.Program:
		return false
	}
	name := filepath.Base(e.Path)
	if i := strings.LastIndex(name, ".so"); i >= 0 {
		rest := name[i+len(".so"):]
		return rest == "" || rest[0] == '.' || rest[0] == '-'
	}
	return strings.HasSuffix(name, ".node") || strings.HasSuffix(name, ".cmxs")
}

// ownFiles are the files of a release by the last part of their names, to find
// out what only a script leads to.
type ownFiles struct {
	base, target string
	dirs         map[string][]string // name or SONAME → directories
	paths        map[string]bool     // in the release
	same         map[string]bool     // absolute; of those that stay as they are
}

const maxOwnDirs = 32 // directories that have a file of one name

func (c *linkCheck) own() *ownFiles {
	o := &ownFiles{base: c.base, target: c.p.s.t.path, dirs: map[string][]string{}, paths: map[string]bool{}, same: map[string]bool{}}
	add := func(name, path string) {
		dir, have := filepath.Dir(c.base+"/"+path), o.dirs[name]
		if n := len(have); name != "" && n < maxOwnDirs && (n == 0 || have[n-1] != dir) {
			o.dirs[name] = append(have, dir)
		}
	}
	for i := range c.p.steps {
		if st := &c.p.steps[i]; st.is != "" && st.e.Type != release.Dir {
			o.paths[st.is] = true
			o.same[c.at(st)] = st.act == actLink
			add(filepath.Base(st.is), st.is)
			add(c.infos[i].Soname, st.is)
		}
	}
	for i := range c.p.loadables {
		add(c.p.loadables[i].info.Soname, c.p.loadables[i].path)
	}
	return o
}

// brings says that a path is the release's.
func (o *ownFiles) brings(path string) bool {
	return strings.HasPrefix(path, o.base+"/") || strings.HasPrefix(path, o.target+"/")
}

// led are the directories to which a script has to lead by LD_LIBRARY_PATH so
// that the break may be none: those of a library that is missing, or of one that
// the host has another of, which does not fit.
func (o *ownFiles) led(f *linkcheck.Finding) (dirs []string) {
	add := func(path string) {
		if o.brings(path) {
			return
		}
		// The file may be libx.so.1.2 and be needed as libx.so.1.
		name := filepath.Base(path)
		for ; o.dirs[name] == nil && strings.Contains(name, ".so."); name = name[:strings.LastIndexByte(name, '.')] {
		}
		dirs = append(dirs, o.dirs[name]...)
	}
	switch f.Problem {
	case linkcheck.MissingLibrary:
		if !filepath.IsAbs(f.Needs) {
			add(f.Needs)
		}
	case linkcheck.MissingSymbol:
		for _, path := range f.Searched {
			add(path)
		}
	case linkcheck.BadFile:
		add(f.Object)
	default:
		if f.Found != "" {
			add(f.Found)
			if !o.brings(f.Found) {
				add(f.Needs)
			}
		}
	}
	return dirs
}

// elsewhere says that a break is none where the release is meant to be used: in
// the tree that it brings as its root directory, or started in a directory of its
// own.
func (o *ownFiles) elsewhere(f *linkcheck.Finding) string {
	switch {
	case f.Problem == linkcheck.MissingInterpreter && !filepath.IsAbs(f.Needs):
		return "it depends on the directory in which it is started"
	case f.Problem == linkcheck.MissingInterpreter:
		for path := range o.paths {
			if root, ok := strings.CutSuffix("/"+path, f.Needs); ok {
				return "it is there if its root directory is that in the release: /" + strings.TrimPrefix(root, "/")
			}
		}
	case f.Problem == linkcheck.MissingLibrary && strings.Contains(f.Needs, "/") && !filepath.IsAbs(f.Needs):
		if o.dirs[filepath.Base(f.Needs)] != nil {
			return "it depends on the directory in which it is started"
		}
	}
	return ""
}

// lead makes warnings of the breaks in a report that depend on how the release is
// started, most likely: by a script that sets LD_LIBRARY_PATH, or with another
// root directory. What a script leads to is judged with it, in the programs that
// need it. A file that stays as it is and did not depend on that before, as was
// says, does not depend on it now.
func (o *ownFiles) lead(ctx context.Context, paths []string, lo linkcheck.Options, r, was *linkcheck.Report) error {
	if o == nil {
		return nil // files, no release
	}
	before := map[string]bool{}
	if was != nil {
		for i := range was.Findings {
			before[findingKey(&was.Findings[i], was.Findings[i].Object)] = true
		}
	}
	dirs, concerned, sure, all := map[string]bool{}, map[string]bool{}, map[int]bool{}, false
	for i := range r.Findings {
		f := &r.Findings[i]
		if f.Severity != linkcheck.Break {
			continue
		}
		if was != nil && o.same[f.Object] && !before[findingKey(f, f.Object)] {
			sure[i] = true
			continue
		}
		if why := o.elsewhere(f); why != "" {
			f.Severity, f.Detail = linkcheck.Warning, why
			continue
		}
		led := o.led(f)
		for _, dir := range led {
			dirs[dir] = true
		}
		if len(led) > 0 {
			all = all || f.MorePrograms > 0
			concerned[f.Object] = true
			for _, p := range f.Programs {
				concerned[p] = true
			}
		}
	}
	if len(dirs) == 0 {
		return nil
	}
	lo.LibraryPath = slices.Concat(lo.LibraryPath, slices.Sorted(maps.Keys(dirs)))
	again, err := linkcheck.Check(ctx, paths, lo)
	if err != nil {
		return err
	}
	concerns := func(f *linkcheck.Finding) bool {
		return all || concerned[f.Object] || slices.ContainsFunc(f.Programs, func(p string) bool { return concerned[p] })
	}
	var findings []linkcheck.Finding
	for i := range again.Findings {
		if f := &again.Findings[i]; concerns(f) {
			if why := o.elsewhere(f); f.Severity == linkcheck.Break && why != "" {
				f.Severity, f.Detail = linkcheck.Warning, why
			}
			findings = append(findings, *f)
		}
	}
	for i := range r.Findings {
		f := r.Findings[i]
		led := o.led(&f)
		switch {
		case sure[i] || !concerns(&f):
			findings = append(findings, f)
		case f.Severity == linkcheck.Break && len(led) > 0:
			f.Severity = linkcheck.Warning
			f.Detail = "only LD_LIBRARY_PATH can lead to " + strings.TrimPrefix(led[0], o.base+"/")
			findings = append(findings, f)
		}
	}
	r.Findings = findings
	r.Sort()
	return nil
}

// loses says that a program or library which this host could use is none any
// more, by its bytes, or is for another machine.
func (c *linkCheck) loses(st *step, info *linkcheck.Info, host machine) bool {
	if st.e.Type != release.File || info.Kind == linkcheck.NotELF || info.Kind != linkcheck.Other && host.runs(info) {
		return false
	}
	was, err := needsOfPath(c.at(st))
	if err != nil || !judged(st.e, &was) || !host.runs(&was) {
		return false
	}
	why := "malformed ELF file"
	if info.Machine != 0 && (info.Kind != linkcheck.Other || info.Machine != was.Machine || info.Class != was.Class) {
		why = "for another machine; the one that it replaces is for this"
	}
	c.lost[c.at(st)] = why
	return true
}
