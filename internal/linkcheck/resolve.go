package linkcheck

import (
	"debug/elf"
	"fmt"
)

// group is the part of a file's references that one other file provides.
//
// A library is resolved once, in the first program that loads it. In another
// program its references hold if the same providers are loaded there, whatever
// else is: a definition that does for a reference always does. Only what the
// first program did not provide, or provided from elsewhere, is looked up again.
type group struct {
	provider *object
	refs     []reference
	kinds    []kindFault
}

// kindFault is a reference that its provider answers in the wrong way.
type kindFault struct {
	ref    reference
	detail string
}

// resolve looks up every symbol that relocations name.
func (s *loadSet) resolve() {
	s.c.epoch++
	for _, l := range s.list {
		l.o.epoch = s.c.epoch
	}
	for _, l := range s.list[s.start:] {
		o := l.o
		if o == s.sys.interp {
			continue // it has relocated itself before anything else
		}
		if !o.refsOK {
			o.refs, o.refsErr = o.image.references(s.sys.musl, &s.c.tally)
			o.refsOK = true
		}
		if o.refsErr != nil {
			s.c.report(s, Finding{Problem: BadFile, Severity: Break, Object: s.path(l), Detail: o.refsErr.Error()})
		}
		if l == s.main {
			s.resolveMain(l)
		} else {
			s.resolveLibrary(l)
		}
	}
	for _, l := range s.list {
		switch {
		case l.o.image.spent():
			s.c.report(s, Finding{Problem: BadFile, Severity: Break, Object: s.path(l), Detail: "malformed ELF file: its tables ask for more work than its size allows"})
		case l.o.image.outside:
			s.c.report(s, Finding{Problem: BadFile, Severity: Break, Object: s.path(l), Detail: outsideText})
		case l.o.image.odd != "":
			s.c.report(s, Finding{Problem: BadFile, Severity: Break, Object: s.path(l), Detail: l.o.image.odd})
		}
	}
}

// What leaves it to chance how the loader goes on.
const (
	outsideText   = "malformed ELF file: the version of a symbol is outside of its table"
	copiesOwnText = "malformed ELF file: it copies an object that is its own"
	ownTLSText    = "malformed ELF file: it has a thread-local variable and no storage for it"
)

// wants is what a reference looks for; false if nothing has to be found.
func (s *loadSet) wants(o *object, r reference, w *wanted) (symbol, bool) {
	im := o.image
	sym, ok := im.symbol(r.index)
	if !ok {
		return sym, false
	}
	s.c.references++
	*w = wanted{defined: r.use&(useJump|useTLS) != 0}
	w.name, w.gnu = im.textAndHash(sym.name)
	if !s.sys.musl {
		im.outside = im.outside || im.bare
		if v, _, ok := im.versionOf(r.index); ok && v.hash != 0 {
			w.version = v
		}
	}
	return sym, true
}

// resolveMain looks up the symbols of the program in the loader's order, so that
// the definition that wins is judged.
func (s *loadSet) resolveMain(l *loaded) {
	var w wanted
	for _, r := range l.o.refs {
		sym, ok := s.wants(l.o, r, &w)
		if !ok {
			continue
		}
		if r.use&useCopy != 0 {
			s.copied(l, r, sym, &w)
			if r.use &^= useCopy; r.use == 0 {
				continue
			}
		}
		provider, def, ok := s.lookup(l, &w, false)
		switch {
		case ok:
			if detail := kindsFit(r.use, &sym, &def); detail != "" {
				s.kindChanged(l, r, provider, detail)
			}
			s.interposed(l, provider, &w)
		case !s.optional(&sym):
			s.undefined(l, r, &w)
		}
	}
}

// optional says whether a reference may find nothing. To musl a weak symbol that
// the file defines itself is not optional, and without a thread-local one its
// loader crashes.
func (s *loadSet) optional(ref *symbol) bool {
	return ref.bind() == elf.STB_WEAK &&
		(!s.sys.musl || elf.SectionIndex(ref.section) == elf.SHN_UNDEF && ref.kind() != elf.STT_TLS)
}

// lookup finds a definition in the loader's order.
func (s *loadSet) lookup(l *loaded, w *wanted, skipMain bool) (*loaded, symbol, bool) {
	for _, p := range s.list {
		if skipMain && p == s.main && p.o.image.kind == Program {
			continue
		}
		_, def, a := p.o.image.find(w, s.sys.musl)
		if a == unanswered && w.version.file != "" && s.known[w.version.file] == p {
			// glibc asserts that a file of which versions are wanted has some
			// (check_match in elf/dl-lookup.c), and ends the program.
			s.noVersions(l, p, w)
		}
		if a != absent {
			return p, def, true
		}
		if s.strict && w.version != nil && w.version.file != "" && s.known[w.version.file] == p {
			break
		}
	}
	return nil, symbol{}, false
}

// copied judges a copy relocation: the program has reserved as much as the
// object had when it was linked.
func (s *loadSet) copied(l *loaded, r reference, sym symbol, w *wanted) {
	provider, def, ok := s.lookup(l, w, true)
	if !ok {
		if !s.optional(&sym) {
			s.undefined(l, r, w)
		}
		return
	}
	f := Finding{Object: s.path(l), Needs: provider.o.soname(), Found: provider.o.path, Symbol: string(w.name)}
	f.setVersion(w.version)
	switch kind := def.kind(); {
	case kind == elf.STT_FUNC || kind == sttGNUIfunc || kind == elf.STT_TLS:
		f.Problem, f.Severity, f.Detail = KindChanged, Break, "the program copies an object, the library has a "+kindName(kind)
	case def.size > sym.size:
		f.Problem, f.Severity = CopySize, Break
		f.Detail = fmt.Sprintf("the program has room for %d bytes, the library has %d", sym.size, def.size)
	case def.size < sym.size:
		f.Problem, f.Severity = CopySize, Warning
		f.Detail = fmt.Sprintf("the program has room for %d bytes, the library has %d", sym.size, def.size)
	case elf.SymVis(def.other&3) == elf.STV_PROTECTED:
		f.Problem, f.Severity, f.Detail = ProtectedCopy, Warning, "the program uses its copy, the library its own object"
	default:
		return
	}
	s.c.report(s, f)
}

func (o *object) soname() string {
	if o.image.soname != "" {
		return o.image.soname
	}
	return baseName(o.path)
}

func (f *Finding) setVersion(v *version) {
	if v != nil {
		f.Version = v.name
		if v.file != "" {
			f.Needs = v.file
		}
	}
}

// kindsFit says how a definition is not of the kind that the reference takes it
// for; "" if it is. The loader does not look at this: the program starts, and
// jumps into data or reads code.
func kindsFit(u use, ref, def *symbol) string {
	want, have := ref.kind(), def.kind()
	switch {
	case have == elf.STT_NOTYPE:
		return ""
	case u&useTLS != 0 && have != elf.STT_TLS:
		return "it is used as a thread-local variable and is a " + kindName(have)
	case u&usePlain != 0 && have == elf.STT_TLS:
		return "it is a thread-local variable and is not used as one"
	case u&useJump != 0 && (have == elf.STT_OBJECT || have == elf.STT_COMMON):
		return "it is called as a function and is a variable"
	case u&useData != 0 && want == elf.STT_FUNC && (have == elf.STT_OBJECT || have == elf.STT_COMMON):
		return "it is used as a function and is a variable"
	case u&useData != 0 && want == elf.STT_OBJECT && (have == elf.STT_FUNC || have == sttGNUIfunc):
		return "it is used as a variable and is a function"
	}
	return ""
}

func kindName(k elf.SymType) string {
	switch k {
	case elf.STT_FUNC, sttGNUIfunc:
		return "function"
	case elf.STT_TLS:
		return "thread-local variable"
	case elf.STT_OBJECT, elf.STT_COMMON:
		return "variable"
	default:
		return "symbol without a kind"
	}
}

// resolveLibrary holds the references of a library against this program.
func (s *loadSet) resolveLibrary(l *loaded) {
	o := l.o
	if !o.resolved {
		s.resolveFirst(l)
		o.resolved = true
	}
	for i := range o.groups {
		g := &o.groups[i]
		if g.provider.epoch != s.c.epoch {
			s.again(l, g.refs)
			continue
		}
		for _, k := range g.kinds {
			s.kindChanged(l, k.ref, s.files[g.provider], k.detail)
		}
	}
	s.again(l, o.leftovers)
}

// again looks references up in this program.
func (s *loadSet) again(l *loaded, refs []reference) {
	var w wanted
	for _, r := range refs {
		if _, ok := s.wants(l.o, r, &w); !ok {
			continue
		}
		if _, _, ok := s.lookup(l, &w, false); !ok {
			s.undefined(l, r, &w)
		}
	}
}

// resolveFirst finds out who provides what to a library.
func (s *loadSet) resolveFirst(l *loaded) {
	o := l.o
	at := map[*object]int{}
	var w wanted
	for _, r := range o.refs {
		sym, ok := s.wants(o, r, &w)
		if !ok || s.optional(&sym) {
			continue
		}
		p, def := s.provider(l, r.index, &sym, &w)
		if p == nil {
			o.leftovers = append(o.leftovers, r)
			continue
		}
		i, ok := at[p.o]
		if !ok {
			i = len(o.groups)
			at[p.o] = i
			o.groups = append(o.groups, group{provider: p.o})
		}
		g := &o.groups[i]
		g.refs = append(g.refs, r)
		if detail := kindsFit(r.use, &sym, &def); detail != "" {
			g.kinds = append(g.kinds, kindFault{r, detail})
		}
	}
}

// provider finds a file that answers a reference of a library for good: the
// library itself, the file of which the version is wanted, any other library,
// and the program last, since other programs load it, too.
func (s *loadSet) provider(l *loaded, index uint32, sym *symbol, w *wanted) (*loaded, symbol) {
	ask := func(p *loaded) (symbol, bool) {
		_, def, a := p.o.image.find(w, s.sys.musl)
		return def, a == present
	}
	if elf.SectionIndex(sym.section) != elf.SHN_UNDEF {
		if l.o.image.exports(index, w, s.sys.musl) {
			return l, *sym
		}
		if def, ok := ask(l); ok {
			return l, def
		}
	}
	if w.version != nil && w.version.file != "" {
		if p := s.names[w.version.file]; p != nil && p.o != nil && s.files[p.o] != nil {
			if def, ok := ask(p); ok {
				return p, def
			}
			if s.strict {
				return nil, symbol{} // it depends on what comes before it
			}
		}
	}
	for _, p := range s.list[1:] {
		if def, ok := ask(p); ok {
			return p, def
		}
	}
	if def, ok := ask(s.list[0]); ok {
		return s.list[0], def
	}
	return nil, symbol{}
}
