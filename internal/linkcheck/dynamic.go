package linkcheck

import (
	"bytes"
	"debug/elf"
	"fmt"
)

// dynamicTable is the dynamic section: some thirty entries, of which the last of
// a tag counts, as it does for the loader.
type dynamicTable struct {
	entries []dynamicEntry
	needed  []uint64
}

type dynamicEntry struct {
	tag   elf.DynTag
	value uint64
}

func (d *dynamicTable) get(tag elf.DynTag) (value uint64, ok bool) {
	for i := len(d.entries) - 1; i >= 0; i-- {
		if d.entries[i].tag == tag {
			return d.entries[i].value, true
		}
	}
	return 0, false
}

func (d *dynamicTable) value(tag elf.DynTag) uint64 {
	v, _ := d.get(tag)
	return v
}

// Tags that package elf does not name.
const (
	tagRelrSize = elf.DynTag(35)
	tagRelr     = elf.DynTag(36)
)

func (im *image) dynamic(s *segment) error {
	d, err := im.entries(s)
	if err != nil {
		return err
	}
	im.flags, im.flags1 = d.value(elf.DT_FLAGS), d.value(elf.DT_FLAGS_1)
	_, textrel := d.get(elf.DT_TEXTREL)
	im.textrel = textrel || im.flags&uint64(elf.DF_TEXTREL) != 0
	_, im.relr = d.get(tagRelr)
	if addr, ok := d.get(elf.DT_STRTAB); ok {
		if im.strtab = im.at(addr); im.strtab == nil {
			return &FormatError{"string table is not loaded"}
		}
		if size, ok := d.get(elf.DT_STRSZ); ok {
			im.strtab = im.strtab[:min(size, uint64(len(im.strtab)))]
		}
	}
	if err := im.names(&d); err != nil {
		return err
	}
	if addr, ok := d.get(elf.DT_SYMTAB); ok {
		if im.symtab = im.at(addr); im.symtab == nil {
			return &FormatError{"symbol table is not loaded"}
		}
	}
	if addr, ok := d.get(elf.DT_GNU_HASH); ok {
		if err := im.gnu.read(im, im.at(addr)); err != nil {
			return err
		}
	} else if addr, ok := d.get(elf.DT_HASH); ok {
		if err := im.sysv.read(im, im.at(addr)); err != nil {
			return err
		}
	} else {
		im.noHash = true
	}
	if err := im.relocationTables(&d); err != nil {
		return err
	}
	return im.readVersions(&d)
}

func (im *image) entries(s *segment) (dynamicTable, error) {
	d := dynamicTable{entries: make([]dynamicEntry, 0, 40)}
	b := im.at(s.addr) // the loader goes by the address, not by the offset
	if b == nil {
		return d, &FormatError{"dynamic section is not loaded"}
	}
	w := im.wordSize()
	for b = b[:min(s.filesz, uint64(len(b)), maxDynamic)]; len(b) >= 2*w; b = b[2*w:] {
		tag, value := elf.DynTag(im.word(b)), im.word(b[w:])
		switch tag {
		case elf.DT_NULL:
			return d, nil
		case elf.DT_NEEDED:
			d.needed = append(d.needed, value)
		default:
			d.entries = append(d.entries, dynamicEntry{tag, value})
		}
	}
	return d, &FormatError{"dynamic section has no end"}
}

func (im *image) names(d *dynamicTable) (err error) {
	for _, at := range d.needed {
		name, err := im.name(at)
		if err != nil {
			return err
		}
		im.needed = append(im.needed, name)
	}
	for _, n := range []struct {
		tag elf.DynTag
		to  *string
	}{{elf.DT_SONAME, &im.soname}, {elf.DT_RPATH, &im.rpath}, {elf.DT_RUNPATH, &im.runpath}} {
		at, ok := d.get(n.tag)
		if !ok {
			continue
		}
		if *n.to, err = im.name(at); err != nil {
			return err
		}
		im.hasRunpath = im.hasRunpath || n.tag == elf.DT_RUNPATH
	}
	return nil
}

// name is a name of the string table, for what is kept: file names and run paths.
func (im *image) name(at uint64) (string, error) {
	if at >= uint64(len(im.strtab)) {
		return "", &FormatError{"name outside of the string table"}
	}
	b := im.strtab[at:]
	if len(b) > maxRunPath {
		b = b[:maxRunPath]
	}
	end := bytes.IndexByte(b, 0)
	if end < 0 {
		return "", &FormatError{"name has no end"}
	}
	if im.work.names += uint64(end); im.work.names > maxNames {
		return "", &FormatError{"too many names"}
	}
	return string(b[:end]), nil
}

const maxRunPath = 64 << 10 // bytes of one run path; Nix makes long ones

// relocationTables finds the tables of relocations, without the relative ones
// that are counted at the front: they name no symbol.
func (im *image) relocationTables(d *dynamicTable) error {
	for _, t := range []struct {
		addr, size, count elf.DynTag
		addend            bool
	}{
		{elf.DT_RELA, elf.DT_RELASZ, elf.DT_RELACOUNT, true},
		{elf.DT_REL, elf.DT_RELSZ, elf.DT_RELCOUNT, false},
		{elf.DT_JMPREL, elf.DT_PLTRELSZ, 0, elf.DynTag(d.value(elf.DT_PLTREL)) == elf.DT_RELA},
	} {
		size := d.value(t.size)
		if size == 0 {
			continue
		}
		b := im.at(d.value(t.addr))
		if uint64(len(b)) < size {
			return &FormatError{"relocations are not loaded"}
		}
		skip := uint64(0)
		if n := d.value(t.count); t.count != 0 && n <= size {
			skip = min(size, n*uint64(im.relocationSize(t.addend)))
		}
		im.relocations = append(im.relocations, relocations{b[skip:size], t.addend})
	}
	return nil
}

func (im *image) relocationSize(addend bool) int {
	n := 2 * im.wordSize()
	if addend {
		n += im.wordSize()
	}
	return n
}

// version is an entry of the table that a symbol's version index points into:
// what is wanted of another file, or defined here.
type version struct {
	name   string
	hash   uint32 // 0: no version
	file   string // of which file it is wanted; "" if it is defined here
	hidden bool
}

// versionTables are what a file says of versions, and what is odd about it.
type versionTables struct {
	versions []version // by index
	needs    []versionNeed
	defines  []versionDefinition
	defined  bool   // DT_VERDEF is there, even if there is nothing in it
	bare     bool   // there are versions of symbols, and no table of versions
	outside  bool   // a symbol has an index beyond the table, and the loader reads what is there
	odd      string // what is wrong with a relocation of a local symbol
}

type versionNeed struct {
	file     string
	versions []neededVersion
	good     *object // the last one that was found to have them all
}

type neededVersion struct {
	name string
	hash uint32
	weak bool
}

type versionDefinition struct {
	name string
	hash uint32
}

const maxVersions = 0x7fff // an index has 15 bits

func (im *image) readVersions(d *dynamicTable) error {
	if addr, ok := d.get(elf.DT_VERNEED); ok {
		if err := im.readNeeds(im.at(addr)); err != nil {
			return err
		}
	}
	if addr, ok := d.get(elf.DT_VERDEF); ok {
		im.defined = true
		if err := im.readDefinitions(im.at(addr)); err != nil {
			return err
		}
	}
	addr, ok := d.get(elf.DT_VERSYM)
	if len(im.versions) == 0 {
		im.bare = ok
		return nil
	}
	// glibc takes it for granted that this table is there, and crashes.
	if im.versym = im.at(addr); !ok || im.versym == nil {
		return &FormatError{"versions of symbols are not loaded"}
	}
	return nil
}

func (im *image) setVersion(index uint16, v version) {
	i := int(index & maxVersions)
	if im.versions == nil {
		im.versions = make([]version, 0, 32)
	}
	for len(im.versions) <= i {
		im.versions = append(im.versions, version{})
	}
	im.versions[i] = v
}

func (im *image) readNeeds(b []byte) error {
	for total := 0; ; {
		if len(b) < 16 {
			return &FormatError{"needed versions have no end"}
		}
		if v := im.u16(b); v != 1 {
			return &FormatError{fmt.Sprintf("needed versions of format %d", v)}
		}
		file, err := im.name(uint64(im.u32(b[4:])))
		if err != nil {
			return err
		}
		need := versionNeed{file: file}
		for aux, at := b, im.u32(b[8:]); ; at = im.u32(aux[12:]) {
			if uint64(at)+16 > uint64(len(aux)) {
				return &FormatError{"needed versions have no end"}
			}
			aux = aux[at:]
			if total++; total > maxVersions {
				return &FormatError{"too many versions"}
			}
			name, err := im.name(uint64(im.u32(aux[8:])))
			if err != nil {
				return err
			}
			hash, other := im.u32(aux), im.u16(aux[6:])
			need.versions = append(need.versions, neededVersion{name, hash, im.u16(aux[4:])&2 != 0})
			im.setVersion(other, version{name: name, hash: hash, file: file, hidden: other&0x8000 != 0})
			if im.u32(aux[12:]) == 0 {
				break
			}
		}
		im.needs = append(im.needs, need)
		next := im.u32(b[12:])
		if next == 0 {
			return nil
		}
		if total++; uint64(next) > uint64(len(b)) || total > maxVersions {
			return &FormatError{"needed versions have no end"}
		}
		b = b[next:]
	}
}

func (im *image) readDefinitions(b []byte) error {
	for total := 0; ; {
		if len(b) < 20 {
			return &FormatError{"defined versions have no end"}
		}
		if v := im.u16(b); v != 1 {
			return &FormatError{fmt.Sprintf("defined versions of format %d", v)}
		}
		flags, index, hash, aux := im.u16(b[2:]), im.u16(b[4:]), im.u32(b[8:]), im.u32(b[12:])
		if uint64(aux)+8 > uint64(len(b)) {
			return &FormatError{"defined versions have no end"}
		}
		name, err := im.name(uint64(im.u32(b[aux:])))
		if err != nil {
			return err
		}
		im.defines = append(im.defines, versionDefinition{name, hash})
		if flags&1 == 0 { // VER_FLG_BASE is the name of the file
			im.setVersion(index, version{name: name, hash: hash})
		} else if len(im.versions) <= int(index&maxVersions) {
			im.setVersion(index, version{})
		}
		next := im.u32(b[16:])
		if next == 0 {
			return nil
		}
		if total++; uint64(next) > uint64(len(b)) || total > maxVersions {
			return &FormatError{"defined versions have no end"}
		}
		b = b[next:]
	}
}
