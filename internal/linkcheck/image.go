package linkcheck

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// image is a file as the loader sees it: what program headers and the dynamic
// section lead to, as pieces of the file's bytes. Nothing is copied but names.
type image struct {
	data      []byte
	wide, big bool // 64 bits; most significant byte first
	machine   elf.Machine
	kind      Kind
	etype     elf.Type
	interp    string
	loads     []segment
	tls       segment
	stack     bool   // wants an executable stack
	level     uint32 // GNU_PROPERTY_X86_ISA_1_NEEDED
	ident     string // for what glibc refuses its first bytes, if something needs it; "" if it does not

	soname         string
	needed         []string
	rpath, runpath string
	hasRunpath     bool
	flags, flags1  uint64
	textrel, relr  bool
	noHash         bool // nothing tells where its symbols are

	strtab, symtab, versym []byte
	gnu                    gnuHash
	sysv                   sysvHash
	relocations            []relocations
	versionTables

	work work
}

// segment is a program header that we go by.
type segment struct{ addr, off, filesz, memsz, align uint64 }

// relocations is a table of relocations of one form.
type relocations struct {
	table  []byte
	addend bool // RELA
}

// work is what has been spent on a file, so that none costs more than linear
// time, whatever its tables say.
type work struct{ names, steps, lookups uint64 }

func (im *image) u16(b []byte) uint16 {
	if im.big {
		return binary.BigEndian.Uint16(b)
	}
	return binary.LittleEndian.Uint16(b)
}

func (im *image) u32(b []byte) uint32 {
	if im.big {
		return binary.BigEndian.Uint32(b)
	}
	return binary.LittleEndian.Uint32(b)
}

func (im *image) u64(b []byte) uint64 {
	if im.big {
		return binary.BigEndian.Uint64(b)
	}
	return binary.LittleEndian.Uint64(b)
}

// word is an address or size at the start of b.
func (im *image) word(b []byte) uint64 {
	if im.wide {
		return im.u64(b)
	}
	return uint64(im.u32(b))
}

func (im *image) wordSize() int {
	if im.wide {
		return 8
	}
	return 4
}

// parseImage reads the headers of a file. With a *FormatError comes what was
// found before the fault: class and machine are known, if nothing else.
func parseImage(data []byte) (*image, error) {
	im := &image{data: data}
	if len(data) < 4 || string(data[:4]) != elf.ELFMAG {
		return im, &FormatError{"invalid ELF header"}
	}
	im.kind = Other
	if len(data) < elf.EI_NIDENT {
		return im, &FormatError{"file too short"}
	}
	switch elf.Class(data[elf.EI_CLASS]) {
	case elf.ELFCLASS64:
		im.wide = true
	case elf.ELFCLASS32:
	default:
		return im, &FormatError{"unknown class"}
	}
	switch elf.Data(data[elf.EI_DATA]) {
	case elf.ELFDATA2LSB:
	case elf.ELFDATA2MSB:
		im.big = true
	default:
		return im, &FormatError{"unknown byte order"}
	}
	size, phoff, rest := 64, 32, 54
	if !im.wide {
		size, phoff, rest = 52, 28, 42
	}
	if len(data) < size {
		return im, &FormatError{"file too short"}
	}
	im.ident = identFault(data)
	im.etype, im.machine = elf.Type(im.u16(data[16:])), elf.Machine(im.u16(data[18:]))
	if im.etype != elf.ET_EXEC && im.etype != elf.ET_DYN {
		return im, nil
	}
	if data[elf.EI_VERSION] != byte(elf.EV_CURRENT) || im.u32(data[20:]) != uint32(elf.EV_CURRENT) {
		return im, &FormatError{"unknown version of ELF"}
	}
	entry, count := uint64(im.u16(data[rest:])), uint64(im.u16(data[rest+2:]))
	if want := uint64(56); im.wide && entry != want || !im.wide && entry != 32 {
		return im, &FormatError{"program headers have an unexpected size"}
	}
	table, ok := im.piece(im.word(data[phoff:]), entry*count)
	if !ok {
		return im, &FormatError{"program headers are beyond the end"}
	}
	return im, im.segments(table, int(entry))
}

// identFault is what glibc looks at of e_ident, and neither the kernel nor musl do
// (open_verify in elf/dl-load.c).
func identFault(data []byte) string {
	const abiVersion, padding = 8, 9
	switch abi := elf.OSABI(data[elf.EI_OSABI]); {
	case abi != elf.ELFOSABI_NONE && abi != elf.ELFOSABI_LINUX && abi != elf.ELFOSABI_ARM:
		return "for another system"
	case abi == elf.ELFOSABI_NONE && data[abiVersion] != 0:
		return "unknown version of its system's conventions"
	}
	for _, b := range data[padding:elf.EI_NIDENT] {
		if b != 0 {
			return "something in the unused part of its first bytes"
		}
	}
	return ""
}

// piece is a piece of the file, if it has that much.
func (im *image) piece(off, n uint64) ([]byte, bool) {
	size := uint64(len(im.data))
	if off > size || n > size-off {
		return nil, false
	}
	return im.data[off : off+n : off+n], true
}

// at is what the file has from an address on, up to the end of its segment.
func (im *image) at(addr uint64) []byte {
	for i := range im.loads {
		l := &im.loads[i]
		if addr >= l.addr && addr-l.addr < l.filesz {
			skip := addr - l.addr
			b, _ := im.piece(l.off+skip, l.filesz-skip)
			return b
		}
	}
	return nil
}

func (im *image) segments(table []byte, entry int) error {
	var interp, dynamic, property *segment
	for ; len(table) >= entry && entry > 0; table = table[entry:] {
		kind, flags, s := im.segment(table)
		switch kind {
		case elf.PT_LOAD:
			im.loads = append(im.loads, s)
		case elf.PT_INTERP:
			interp = &s
		case elf.PT_DYNAMIC:
			dynamic = &s
		case elf.PT_TLS:
			im.tls = s
		case elf.PT_GNU_STACK:
			im.stack = flags&elf.PF_X != 0
		case elf.PT_GNU_PROPERTY:
			property = &s
		}
	}
	if dynamic != nil && dynamic.filesz == 0 {
		return nil // debug information that was split off: nobody loads it
	}
	im.kind = Library
	if im.etype == elf.ET_EXEC {
		im.kind = Program
	}
	for i := range im.loads {
		if err := im.checkLoad(&im.loads[i], dynamic != nil); err != nil {
			return err
		}
	}
	if interp != nil {
		b, ok := im.piece(interp.off, min(interp.filesz, maxName))
		name, _, end := bytes.Cut(b, []byte{0})
		if !ok || !end {
			return &FormatError{"name of the interpreter has no end"}
		}
		im.interp = string(name)
	}
	if property != nil && im.machine == elf.EM_X86_64 {
		im.properties(property)
	}
	if dynamic != nil {
		if err := im.dynamic(dynamic); err != nil {
			return err
		}
	}
	// libc.so.6 has an interpreter, too. Old linkers do not mark
	// position-independent programs.
	if im.etype == elf.ET_DYN && (im.flags1&uint64(elf.DF_1_PIE) != 0 || im.interp != "" && im.soname == "") {
		im.kind = Program
	}
	return nil
}

func (im *image) segment(b []byte) (elf.ProgType, elf.ProgFlag, segment) {
	kind := elf.ProgType(im.u32(b))
	if im.wide {
		return kind, elf.ProgFlag(im.u32(b[4:])), segment{
			off: im.u64(b[8:]), addr: im.u64(b[16:]), filesz: im.u64(b[32:]), memsz: im.u64(b[40:]), align: im.u64(b[48:]),
		}
	}
	return kind, elf.ProgFlag(im.u32(b[24:])), segment{
		off: uint64(im.u32(b[4:])), addr: uint64(im.u32(b[8:])), filesz: uint64(im.u32(b[16:])), memsz: uint64(im.u32(b[20:])),
		align: uint64(im.u32(b[28:])),
	}
}

// checkLoad says why a segment cannot be mapped: what the kernel and the loader
// refuse, and what they do not see until the page is touched (SIGBUS).
func (im *image) checkLoad(l *segment, dynamic bool) error {
	if l.align > 1 && (l.align&(l.align-1) != 0 || (l.addr-l.off)&(l.align-1) != 0) {
		if dynamic {
			return &FormatError{"address and offset of a segment do not fit"}
		}
	}
	if l.memsz < l.filesz {
		return &FormatError{"a segment is larger in the file than in memory"}
	}
	if _, ok := im.piece(l.off, l.filesz); !ok {
		return &FormatError{"it is shorter than its segments"}
	}
	return nil
}

// properties finds the level of instructions in the note of program properties
// (x86-64 psABI, GNU_PROPERTY_X86_ISA_1_NEEDED).
func (im *image) properties(s *segment) {
	b, _ := im.piece(s.off, min(s.filesz, maxName))
	if len(b) < 16 || im.u32(b) != 4 || im.u32(b[8:]) != 5 || string(b[12:16]) != "GNU\x00" {
		return
	}
	n := min(uint64(im.u32(b[4:])), uint64(len(b)-16))
	for b = b[16:][:n]; len(b) >= 8; {
		kind, size := im.u32(b), uint64(im.u32(b[4:]))
		if size > uint64(len(b)-8) {
			return
		}
		if kind == 0xc0008002 && size >= 4 {
			im.level = im.u32(b[8:])
		}
		step := (8 + size + 7) &^ 7
		if step > uint64(len(b)) {
			return
		}
		b = b[step:]
	}
}
