package linkcheck

import (
	"debug/elf"
	"slices"
)

// How a relocation uses its symbol.
type use byte

const (
	useData  use = 1 << iota // an address that is stored
	useJump                  // a call through the procedure linkage table
	useTLS                   // thread-local storage
	useCopy                  // the program has room for the object, which is copied there
	usePlain                 // any of the above that is not TLS
)

// reference is a symbol that relocations of a file name, in all their ways.
type reference struct {
	index uint32
	use   use
}

// machineTypes are the types of relocations that are not simply data.
type machineTypes struct {
	none, relative, copied, jump, irelative uint32
	tls                                     []uint32
}

var machines = map[elf.Machine]machineTypes{
	elf.EM_X86_64: {
		none: uint32(elf.R_X86_64_NONE), relative: uint32(elf.R_X86_64_RELATIVE), copied: uint32(elf.R_X86_64_COPY),
		jump: uint32(elf.R_X86_64_JMP_SLOT), irelative: 37, tls: []uint32{16, 17, 18, 36}, // DTPMOD64, DTPOFF64, TPOFF64, TLSDESC
	},
	elf.EM_386: {
		none: 0, relative: uint32(elf.R_386_RELATIVE), copied: uint32(elf.R_386_COPY),
		jump: uint32(elf.R_386_JMP_SLOT), irelative: 42, tls: []uint32{14, 35, 36, 37, 41}, // TPOFF, DTPMOD32, DTPOFF32, TPOFF32, DESC
	},
	elf.EM_AARCH64: {
		none: 0, relative: 1027, copied: 1024, jump: 1026, irelative: 1032, tls: []uint32{1028, 1029, 1030, 1031},
	},
	elf.EM_ARM: {
		none: 0, relative: 23, copied: 20, jump: 22, irelative: 160, tls: []uint32{13, 17, 18, 19}, // DESC, DTPMOD32, DTPOFF32, TPOFF32
	},
	elf.EM_RISCV: {
		none: 0, relative: 3, copied: 4, jump: 5, irelative: 58, tls: []uint32{6, 7, 8, 9, 10, 11, 12},
	},
	elf.EM_PPC64: {
		none: 0, relative: 22, copied: 19, jump: 21, irelative: 248, tls: []uint32{68, 73, 78},
	},
	elf.EM_S390: {
		none: 0, relative: 12, copied: 9, jump: 11, irelative: 61, tls: []uint32{54, 55, 56},
	},
}

func (t *machineTypes) use(kind uint32) use {
	switch kind {
	case t.none, t.relative, t.irelative:
		return 0
	case t.copied:
		return useCopy
	case t.jump:
		return useJump | usePlain
	}
	for _, k := range t.tls {
		if k == kind {
			return useTLS
		}
	}
	return useData | usePlain
}

// references are the symbols that the file's relocations name, but for local
// ones: only these are looked up. The order is that of first use. For musl,
// hidden symbols are not local.
func (im *image) references(musl bool, t *tally) ([]reference, error) {
	types, ok := machines[im.machine]
	if !ok {
		return nil, &FormatError{"machine whose relocations are not known: " + im.machine.String()}
	}
	defer t.clear()
	count := uint64(im.symbolCount())
	for _, table := range im.relocations {
		size, w := im.relocationSize(table.addend), im.wordSize()
		for b := table.table; len(b) >= size; b = b[size:] {
			var index, kind uint32
			if im.wide {
				info := im.u64(b[w:])
				index, kind = uint32(info>>32), uint32(info)
			} else {
				info := im.u32(b[w:])
				index, kind = info>>8, info&0xff
			}
			if index == 0 {
				continue
			}
			u := types.use(kind)
			if u == 0 {
				continue
			}
			if uint64(index) >= count {
				return slices.Clone(t.refs), &FormatError{"relocation of a symbol that is not there"}
			}
			if (u == useTLS || u == useCopy) && !musl {
				if s, _ := im.symbol(index); elf.SymVis(s.other&3) == elf.STV_PROTECTED {
					im.checkOwn(u) // whatever is found, glibc takes the file's own
				}
			}
			at := t.at(index, count)
			switch {
			case *at > 0:
				t.refs[*at-1].use |= u
			case *at < 0:
				im.checkOwn(u)
			default:
				s, _ := im.symbol(index)
				if s.bind() == elf.STB_LOCAL || s.local() && !musl {
					im.checkOwn(u)
					*at = -1
					t.locals = append(t.locals, index)
					continue
				}
				t.refs = append(t.refs, reference{index, u})
				*at = int32(len(t.refs))
			}
		}
	}
	return slices.Clone(t.refs), nil
}

// checkOwn looks at the use of a local symbol.
func (im *image) checkOwn(u use) {
	switch {
	case u == useCopy:
		im.odd = copiesOwnText
	case u == useTLS && im.tls.align == 0 && im.tls.memsz == 0:
		im.odd = ownTLSText
	}
}

// tally is room to count references in, used for one file after the other.
type tally struct {
	seen   []int32 // by index of a symbol: index into refs, plus one; -1 is local
	refs   []reference
	locals []uint32
}

func (t *tally) at(index uint32, count uint64) *int32 {
	if int(index) >= len(t.seen) {
		t.seen = append(t.seen, make([]int32, max(int(min(count, uint64(index)*2)), int(index)+1024)-len(t.seen))...)
	}
	return &t.seen[index]
}

func (t *tally) clear() {
	for _, r := range t.refs {
		t.seen[r.index] = 0
	}
	for _, index := range t.locals {
		t.seen[index] = 0
	}
	t.refs, t.locals = t.refs[:0], t.locals[:0]
}
