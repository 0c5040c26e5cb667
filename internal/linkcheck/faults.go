package linkcheck

import (
	"path"
	"strings"
)

func baseName(p string) string { return path.Base(p) }

// undefined reports a symbol that nothing defines.
func (s *loadSet) undefined(l *loaded, r reference, w *wanted) {
	f := Finding{Problem: MissingSymbol, Severity: s.doubt(Break), Object: s.path(l), Symbol: string(w.name)}
	f.setVersion(w.version)
	if f.Needs != "" {
		if p := s.names[f.Needs]; p != nil && p.o != nil {
			f.Found = p.o.path
		}
	}
	if !s.c.everything && (s.explained(&f) || s.c.lacking(&f)) {
		return
	}
	for _, p := range s.list {
		if p != l && len(f.Searched) < maxSearched {
			f.Searched = append(f.Searched, p.o.path)
		}
	}
	// What a plugin lacks is its host's, and nothing is near it here.
	if known := s.c.report(s, f); known != nil && f.Severity == Break {
		known.Near = s.nearSymbol(l, w)
	}
}

const maxSearched = 64 // files, of those that were looked in

// explained says that a symbol is missing because something was said to be
// missing already: the library that has it, or a version of it.
func (s *loadSet) explained(f *Finding) bool {
	if s.unread != nil || s.fakes[f.Needs] {
		return true
	}
	return f.Needs == "" && len(s.fakes) > 0
}

// lacking adds the symbol to the finding that its version is missing, if there
// is one.
func (c *checker) lacking(f *Finding) bool {
	if f.Version == "" {
		return false
	}
	for _, problem := range []Problem{NewerLibc, MissingVersion} {
		i, ok := c.index[findingIndex{problem: problem, object: f.Object, needs: f.Needs, version: f.Version}]
		if !ok {
			continue
		}
		have := &c.result.Findings[i]
		name := f.Symbol
		if d := demangled(name); d != "" {
			name = d
		}
		switch n := strings.Count(have.Detail, ", "); {
		case have.Detail == "":
			have.Detail = "for " + name
		case strings.Contains(have.Detail+", ", " "+name+", "), n > maxNear:
		case n == maxNear:
			have.Detail += ", and others"
		default:
			have.Detail += ", " + name
		}
		return true
	}
	return false
}

func (s *loadSet) kindChanged(l *loaded, r reference, provider *loaded, detail string) {
	sym, _ := l.o.image.symbol(r.index)
	f := Finding{
		Problem: KindChanged, Severity: Break, Object: s.path(l), Needs: provider.o.soname(), Found: provider.o.path,
		Symbol: string(l.o.image.text(sym.name)), Detail: detail,
	}
	if v, _, ok := l.o.image.versionOf(r.index); ok {
		f.Version = v.name
	}
	s.c.report(s, f)
}

// interposed notes that a program gets a symbol from another library than the
// one it was linked with, though that one has it, too: the other comes first.
func (s *loadSet) interposed(l, provider *loaded, w *wanted) {
	if w.version == nil || w.version.file == "" || provider == s.main {
		return
	}
	expected := s.known[w.version.file]
	if expected == nil || expected == provider || s.files[expected.o] == nil {
		return
	}
	if _, _, a := expected.o.image.find(w, false); a != present {
		return
	}
	s.c.report(s, Finding{
		Problem: Interposed, Severity: Note, Object: s.path(l), Needs: w.version.file, Found: provider.o.path,
		Symbol: string(w.name), Version: w.version.name, Detail: "it comes before " + expected.o.path,
	})
}

func (s *loadSet) noVersions(l, provider *loaded, w *wanted) {
	s.c.report(s, Finding{
		Problem: NoVersions, Severity: Break, Object: s.path(l), Needs: w.version.file, Found: provider.o.path, Version: w.version.name,
		Detail: "the loader ends the program at the first symbol of such a file",
	})
}

// checkVersions holds the versions that files want against those that the files
// which were found define.
func (s *loadSet) checkVersions() {
	if s.sys.musl {
		return // it does not look at them
	}
	for _, l := range s.list[s.start:] {
		for i := range l.o.image.needs {
			s.checkNeed(l, &l.o.image.needs[i])
		}
		s.checkRelative(l)
	}
}

func (s *loadSet) checkNeed(l *loaded, n *versionNeed) {
	p := s.known[n.file]
	if p == nil || s.files[p.o] == nil { // the loader itself is there only if it is needed
		if s.fakes[n.file] || s.unread != nil {
			return
		}
		s.c.report(s, Finding{
			Problem: MissingVersion, Severity: Break, Object: s.path(l), Needs: n.file, Detail: "a version is wanted of a file that is not loaded",
		})
		return
	}
	if n.good == p.o {
		return
	}
	im := p.o.image
	if !im.defined {
		return // the loader goes on, and fails at the first symbol
	}
	good := true
	for _, v := range n.versions {
		if im.defines1(v) {
			continue
		}
		good = false
		f := Finding{
			Problem: MissingVersion, Severity: Break, Object: s.path(l), Needs: n.file, Found: p.o.path, Version: v.name,
			Near: im.nearVersions(v.name),
		}
		if v.weak {
			f.Severity = Warning
			f.Detail = "nothing that it must have is of this version"
		}
		if strings.HasPrefix(v.name, "GLIBC_") && !v.weak {
			f.Problem = NewerLibc
		}
		s.c.report(s, f)
	}
	if good {
		n.good = p.o
	}
}

// defines1 says whether a file defines a version.
func (im *image) defines1(v neededVersion) bool {
	for i := range im.defines {
		if im.defines[i].hash == v.hash && im.defines[i].name == v.name {
			return true
		}
	}
	return false
}

const (
	relativeVersion = "GLIBC_ABI_DT_RELR"
	relativeHash    = 0xfd0e42
)

// checkRelative: packed relative relocations are an addition of glibc 2.36. It
// demands that files with them say so, and older ones do not see them.
func (s *loadSet) checkRelative(l *loaded) {
	im := l.o.image
	if !im.relr || l.o == s.sys.interp {
		return
	}
	for _, n := range im.needs {
		for _, v := range n.versions {
			if v.name == relativeVersion && v.hash == relativeHash {
				return // held against the library's like any version
			}
		}
	}
	f := Finding{Problem: RelativeNeedsLibc, Severity: Break, Object: s.path(l), Needs: "libc.so.6", Version: relativeVersion}
	libc := s.names["libc.so.6"]
	if libc == nil || s.files[libc.o] == nil || s.sys.musl {
		return
	}
	knows := s.sys.packed
	if s.sys.interp == nil || s.sys.interp.bad != nil {
		knows = libc == l || !libc.o.image.defined || libc.o.image.defines1(neededVersion{name: relativeVersion, hash: relativeHash})
	}
	wantsLibc := false
	for _, name := range im.needed {
		wantsLibc = wantsLibc || strings.HasPrefix(name, "libc.so.")
	}
	f.Found = libc.o.path
	switch {
	case wantsLibc && len(im.needs) > 0 && knows: // elf/dl-version.c
		f.Detail = "it does not ask for a C library that knows them, so the loader refuses it"
	case !knows:
		f.Detail = "this C library came before them"
	default:
		return
	}
	s.c.report(s, f)
}
