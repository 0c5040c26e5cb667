package linkcheck

import (
	"bytes"
	"debug/elf"
)

// symbol is an entry of the dynamic symbol table.
type symbol struct {
	name        uint32
	info, other byte
	section     uint16
	value, size uint64
}

func (s *symbol) bind() elf.SymBind { return elf.SymBind(s.info >> 4) }
func (s *symbol) kind() elf.SymType { return elf.SymType(s.info & 15) }

// local says that no other file sees it: hidden or internal.
func (s *symbol) local() bool {
	v := elf.SymVis(s.other & 3)
	return v == elf.STV_HIDDEN || v == elf.STV_INTERNAL
}

const sttGNUIfunc = elf.SymType(10)
const stbGNUUnique = elf.SymBind(10)

// kinds that can be referred to: NOTYPE, OBJECT, FUNC, COMMON, TLS, GNU_IFUNC.
const definingKinds = 1<<elf.STT_NOTYPE | 1<<elf.STT_OBJECT | 1<<elf.STT_FUNC | 1<<elf.STT_COMMON | 1<<elf.STT_TLS | 1<<sttGNUIfunc

func (im *image) symbolSize() int {
	if im.wide {
		return 24
	}
	return 16
}

// symbolCount is how many symbols the file could have: the table has no length
// of its own.
func (im *image) symbolCount() int { return len(im.symtab) / im.symbolSize() }

// symbol reads the symbol of an index.
func (im *image) symbol(index uint32) (s symbol, ok bool) {
	size := uint64(im.symbolSize())
	at := uint64(index) * size
	if at+size > uint64(len(im.symtab)) {
		return s, false
	}
	b := im.symtab[at : at+size]
	s.name = im.u32(b)
	if im.wide {
		s.info, s.other, s.section = b[4], b[5], im.u16(b[6:])
		s.value, s.size = im.u64(b[8:]), im.u64(b[16:])
		return s, true
	}
	s.info, s.other, s.section = b[12], b[13], im.u16(b[14:])
	s.value, s.size = uint64(im.u32(b[4:])), uint64(im.u32(b[8:]))
	return s, true
}

// text is the name at a place of the string table, nil if it has no end or the
// file has spent more than its share on names: names may overlap, and a hostile
// file can let a million symbols share one long name.
func (im *image) text(at uint32) []byte {
	if uint64(at) >= uint64(len(im.strtab)) {
		return nil
	}
	b := im.strtab[at:]
	end := bytes.IndexByte(b[:min(len(b), maxSymbol)], 0)
	if end < 0 {
		return nil
	}
	if im.work.names += uint64(end); im.work.names > maxNames+32*uint64(len(im.data)) {
		return nil
	}
	return b[:end:end]
}

// textAndHash is text, with the hash of DT_GNU_HASH in the same pass.
func (im *image) textAndHash(at uint32) ([]byte, uint32) {
	if uint64(at) >= uint64(len(im.strtab)) {
		return nil, gnuHashOf(nil)
	}
	b := im.strtab[at:]
	h := uint32(5381)
	for i, c := range b[:min(len(b), maxSymbol)] {
		if c == 0 {
			if im.work.names += uint64(i); im.work.names > maxNames+32*uint64(len(im.data)) {
				break
			}
			return b[:i:i], h
		}
		h = h*33 + uint32(c)
	}
	return nil, gnuHashOf(nil)
}

// maxSymbol is longer than any symbol that a compiler makes.
const maxSymbol = 1 << 20

// is says whether the name at a place of the string table is this one.
func (im *image) is(at uint32, name []byte) bool {
	end := uint64(at) + uint64(len(name))
	return end < uint64(len(im.strtab)) && im.strtab[end] == 0 && bytes.Equal(im.strtab[at:end], name)
}

// versionOf is the version that a symbol refers to or defines, and whether the
// definition is not the default one. ok is false if the file has no versions.
func (im *image) versionOf(index uint32) (v *version, hidden, ok bool) {
	if im.versym == nil {
		return nil, false, false
	}
	n, _ := im.versionIndex(index)
	i := int(n & maxVersions)
	if i >= len(im.versions) {
		im.outside = im.outside || i > 1 // 0 and 1 are no version, in any file
		return &noVersion, n&0x8000 != 0, true
	}
	return &im.versions[i], n&0x8000 != 0, true
}

var noVersion version

func (im *image) versionIndex(index uint32) (uint16, bool) {
	at := 2 * uint64(index)
	if at+2 > uint64(len(im.versym)) {
		return 0, false
	}
	return im.u16(im.versym[at:]), true
}

// wanted is a symbol that is looked for.
type wanted struct {
	name    []byte
	gnu     uint32
	old     uint32 // of DT_HASH; computed when it is needed
	version *version
	defined bool // an undefined symbol that has a value does not do: jump slots and thread-local ones
}

// answer is what a file says to a symbol.
type answer byte

const (
	absent     answer = iota
	present           // it is defined here
	unanswered        // it is here, but a version is wanted and the file has none: glibc accepts it, or dies
)

// find looks for a symbol in one file by the rules of glibc's do_lookup_x and
// check_match (elf/dl-lookup.c), or musl's find_sym.
func (im *image) find(w *wanted, musl bool) (index uint32, s symbol, a answer) {
	im.work.lookups++
	m := match{im: im, w: w, musl: musl}
	switch {
	case im.gnu.buckets != nil:
		im.gnu.each(im, w.gnu, m.try)
	case im.sysv.buckets != nil:
		if w.old == 0 {
			w.old = sysvHashOf(w.name)
		}
		im.sysv.each(im, w.old, m.try)
	default:
		return 0, s, absent
	}
	if m.answer == absent && m.defaults == 1 {
		m.index, m.symbol, m.answer = m.defaultIndex, m.defaultSymbol, present
	}
	if m.answer == absent || !m.visible() {
		return 0, s, absent
	}
	return m.index, m.symbol, m.answer
}

// exports says whether a file's own symbol answers a reference to it: it has its
// place in the hash table, by its hash. Where it does not, it is to be looked for.
func (im *image) exports(index uint32, w *wanted, musl bool) bool {
	g := &im.gnu
	at := uint64(index-g.first) * 4
	if g.buckets == nil || index < g.first || at+4 > uint64(len(g.chain)) || (im.u32(g.chain[at:])^w.gnu)>>1 != 0 {
		return false
	}
	m := match{im: im, w: w, musl: musl}
	return m.try(index) && m.answer == present && m.visible()
}

// match is one lookup in one file.
type match struct {
	im     *image
	w      *wanted
	musl   bool
	index  uint32
	symbol symbol
	answer answer

	defaults      int // symbols of a default version, for a reference without one
	defaultIndex  uint32
	defaultSymbol symbol
}

// visible says whether other files see the symbol that was found. To musl
// visibility is no matter.
func (m *match) visible() bool {
	switch m.symbol.bind() {
	case elf.STB_GLOBAL, elf.STB_WEAK, stbGNUUnique:
		return m.musl || !m.symbol.local()
	}
	return false
}

// try looks at a symbol with the right hash and says whether the search is over.
func (m *match) try(index uint32) bool {
	s, ok := m.im.symbol(index)
	if !ok || !m.im.is(s.name, m.w.name) {
		return false
	}
	kind := s.kind()
	undefined := elf.SectionIndex(s.section) == elf.SHN_UNDEF
	if s.value == 0 && elf.SectionIndex(s.section) != elf.SHN_ABS && kind != elf.STT_TLS || m.w.defined && undefined {
		return false
	}
	if m.musl && (s.value == 0 && kind != elf.STT_TLS || undefined && kind == elf.STT_TLS || kind == sttGNUIfunc) {
		return false
	}
	if definingKinds>>kind&1 == 0 {
		return false
	}
	if m.musl {
		n, _ := m.im.versionIndex(index)
		if n&0x8000 != 0 {
			return false
		}
		return m.found(index, s, present)
	}
	v, hidden, versioned := m.im.versionOf(index)
	switch {
	case m.w.version == nil && !versioned:
	case m.w.version == nil:
		n, _ := m.im.versionIndex(index)
		if n&maxVersions >= 3 { // 0 and 1 are no version, 2 is the first one
			if !hidden {
				if m.defaults++; m.defaults == 1 {
					m.defaultIndex, m.defaultSymbol = index, s
				}
			}
			return false
		}
	case !versioned:
		return m.found(index, s, unanswered)
	case (v.hash != m.w.version.hash || v.name != m.w.version.name) && (m.w.version.hidden || v.hash != 0 || hidden):
		return false
	}
	return m.found(index, s, present)
}

func (m *match) found(index uint32, s symbol, a answer) bool {
	m.index, m.symbol, m.answer = index, s, a
	return true
}
