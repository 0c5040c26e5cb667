package stale

// loaded is one entry of a loader's list: a file that it has loaded.
type loaded struct {
	base    uint64 // what is added to the file's addresses
	dynamic uint64 // where its dynamic section is
	name    string // the path that the loader opened; "" for the program itself
}

const (
	mostLoaded     = 4096 // entries of a list
	mostNamespaces = 16   // as many as glibc has (DL_NNS)
	mostDynamic    = 512  // entries of a dynamic section
	mostHeaders    = 64   // program headers
)

// Numbers of the ELF format.
const (
	ptLoad       = 1
	ptDynamic    = 2
	ptInterp     = 3
	ptNote       = 4
	ptPhdr       = 6
	ptGNURelro   = 0x6474e552
	pfExecutable = 1
	dtDebug      = 21
)

// header is a program header.
type header struct {
	kind, flags                         uint32
	offset, addr, filesz, memsz, aligns uint64
}

// headerSize is that of a program header.
func (l layout) headerSize() uint64 {
	if l.wide {
		return 56
	}
	return 32
}

func (l layout) header(raw []byte) header {
	h := header{kind: l.order.Uint32(raw)}
	if l.wide {
		h.flags = l.order.Uint32(raw[4:])
		h.offset, h.addr = l.at(raw, 1), l.at(raw, 2)
		h.filesz, h.memsz, h.aligns = l.at(raw, 4), l.at(raw, 5), l.at(raw, 6)
		return h
	}
	h.offset, h.addr = l.at(raw, 1), l.at(raw, 2)
	h.filesz, h.memsz, h.aligns = l.at(raw, 4), l.at(raw, 5), l.at(raw, 7)
	h.flags = l.order.Uint32(raw[24:])
	return h
}

// dynamicOf finds the program's dynamic section by its headers in memory.
func (v vector) dynamicOf(m *memory) (addr uint64, ok bool) {
	var raw [56]byte
	size := v.headerSize()
	if v.phent != size {
		return 0, false
	}
	var dynamic, phdr header
	for i := range min(v.phnum, mostHeaders) {
		if m.fill(raw[:size], v.phdr+i*size) != nil {
			return 0, false
		}
		switch h := v.header(raw[:size]); h.kind {
		case ptDynamic:
			dynamic, ok = h, true
		case ptPhdr:
			phdr = h
		}
	}
	base := uint64(0)
	if phdr.kind == ptPhdr {
		base = v.phdr - phdr.addr
	} else if ok && dynamic.addr < v.phdr&^(1<<20-1) {
		ok = false // without its own address the program cannot be placed
	}
	return v.trim(dynamic.addr + base), ok
}

// trim cuts an address down to the size that the program has.
func (l layout) trim(addr uint64) uint64 {
	if l.wide {
		return addr
	}
	return addr & (1<<32 - 1)
}

// debugOf finds where the loader keeps its lists: it enters the address of its
// struct r_debug into the program's dynamic section.
func (l layout) debugOf(m *memory, dynamic uint64) (addr uint64, ok bool) {
	var pair [2]uint64
	for i := range uint64(mostDynamic) {
		if m.words(l, dynamic+i*2*l.word(), pair[:]) != nil || pair[0] == 0 {
			return 0, false
		}
		if pair[0] == dtDebug {
			return pair[1], pair[1] != 0
		}
	}
	return 0, false
}

// lists walks all lists of the loader, of each namespace of dlmopen(3) one. It
// says whether it came to their ends: the program may be changing them.
//
// struct r_debug of link.h has a version, the head of the list, an address,
// a state and the loader's base; from version 2 on (glibc 2.35) the next
// namespace's. struct link_map has base, name, dynamic, next and previous, in
// glibc, musl and the BSDs alike.
func (l layout) lists(m *memory, debug uint64, into []loaded) ([]loaded, bool) {
	var version [4]byte
	var word [1]uint64
	whole := true
	for n := 0; debug != 0; n++ {
		if n == mostNamespaces || m.fill(version[:], debug) != nil || m.words(l, debug+l.word(), word[:]) != nil {
			return into, false
		}
		var ok bool
		into, ok = l.list(m, word[0], into)
		whole = whole && ok
		if l.order.Uint32(version[:]) < 2 {
			return into, whole
		}
		if m.words(l, debug+5*l.word(), word[:]) != nil {
			return into, false
		}
		debug = word[0]
	}
	return into, whole
}

func (l layout) list(m *memory, at uint64, into []loaded) ([]loaded, bool) {
	var e [4]uint64
	for previous := at; at != 0; previous = at {
		if len(into) == mostLoaded || m.words(l, at, e[:]) != nil {
			return into, false
		}
		name, err := m.text(e[1])
		if err != nil {
			return into, false
		}
		into = append(into, loaded{e[0], e[2], name})
		if at = e[3]; at == previous {
			return into, false
		}
	}
	return into, true
}
