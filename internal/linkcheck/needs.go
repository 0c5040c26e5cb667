// Package linkcheck says what a program or library needs to be loaded, without
// running anything.
//
// The rule of this room: files are read as the loader reads them, by program
// headers and dynamic section alone, since sections may be stripped. What they
// say is not trusted: every offset is checked, and no file makes us take more
// than a little memory and time.
package linkcheck

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
)

// Kind is what a file is to the loader.
type Kind byte

// The kinds of a file.
const (
	NotELF  Kind = iota // no ELF file: a script, data, an empty file
	Program             // something to execute, position-independent or not
	Library             // a shared library or plugin
	Other               // ELF, but neither: an object file, a core, a kernel module
)

// String is the kind in words.
func (k Kind) String() string {
	switch k {
	case NotELF:
		return "no ELF file"
	case Program:
		return "program"
	case Library:
		return "shared library"
	default:
		return "other ELF file"
	}
}

// Info is what Needs finds out about a file.
type Info struct {
	Kind    Kind
	Class   elf.Class   // 32 or 64 bits; a library serves its own class
	Machine elf.Machine // and its own machine only
	OSABI   elf.OSABI   // whose conventions it follows; that of Linux is ELFOSABI_NONE or ELFOSABI_LINUX
	Interp  string      // PT_INTERP: the loader that the kernel starts first; "" if none
	Soname  string      // DT_SONAME: the name by which others need it; "" if none
	RunPath string      // DT_RUNPATH, or DT_RPATH: directories in which Needed is looked for, separated by colons
	Needed  []string    // DT_NEEDED, in order; a name is a SONAME, or a path if it holds a slash
}

// FormatError says that a file begins like an ELF file and is not a sound one.
// An error of reading it is none of these.
type FormatError struct{ What string }

func (e *FormatError) Error() string { return "malformed ELF file: " + e.What }

// Needs reads what the file of this size needs. A file that is not ELF is no
// error, and neither is one that needs nothing. With a *FormatError comes what
// was found before the fault; any other error is one of r's.
func Needs(r io.ReaderAt, size int64) (Info, error) {
	f := file{r: r, size: size, buf: make([]byte, headSize)}
	err := f.read()
	return f.info, err
}

// headSize is how much of a file is read at first.
const headSize = 2048

func (f *file) read() error {
	if f.size < elf.EI_NIDENT {
		return nil
	}
	// One read has the header and, where linkers put them, the program headers.
	head, err := f.at(0, min(uint64(len(f.buf)), uint64(f.size)))
	if err != nil || string(head[:4]) != elf.ELFMAG {
		return err
	}
	f.info.Kind = Other
	h, err := f.header(head)
	if err != nil {
		return err
	}
	if n := h.phnum * h.phentsize; n > 0 {
		table := head
		if h.phoff < uint64(len(head)) && n <= uint64(len(head))-h.phoff {
			table = head[h.phoff:][:n]
		} else if n > maxHeaders {
			return &FormatError{"too many program headers"}
		} else if table, err = f.at(h.phoff, n); err != nil {
			return err
		}
		if err := f.segments(h, table); err != nil {
			return err
		}
	}
	return nil
}

// header is what we need of the ELF header, with everything in 64 bits.
type header struct {
	kind                    elf.Type
	phoff, phentsize, phnum uint64
}

func (f *file) header(b []byte) (header, error) {
	f.info.Class, f.info.OSABI = elf.Class(b[elf.EI_CLASS]), elf.OSABI(b[elf.EI_OSABI])
	switch elf.Data(b[elf.EI_DATA]) {
	case elf.ELFDATA2LSB:
		f.order = binary.LittleEndian
	case elf.ELFDATA2MSB:
		f.order = binary.BigEndian
	default:
		return header{}, &FormatError{"unknown byte order"}
	}
	var h header
	switch {
	case f.info.Class == elf.ELFCLASS64 && len(b) >= 64:
		h.phoff = f.order.Uint64(b[32:])
		h.phentsize, h.phnum = uint64(f.order.Uint16(b[54:])), uint64(f.order.Uint16(b[56:]))
	case f.info.Class == elf.ELFCLASS32 && len(b) >= 52:
		h.phoff = uint64(f.order.Uint32(b[28:]))
		h.phentsize, h.phnum = uint64(f.order.Uint16(b[42:])), uint64(f.order.Uint16(b[44:]))
	case f.info.Class == elf.ELFCLASS64 || f.info.Class == elf.ELFCLASS32:
		return header{}, &FormatError{"ends in its header"}
	default:
		return header{}, &FormatError{"unknown class"}
	}
	h.kind = elf.Type(f.order.Uint16(b[16:]))
	f.info.Machine = elf.Machine(f.order.Uint16(b[18:]))
	if h.phnum > 0 && h.phentsize < f.headerSize() {
		return header{}, &FormatError{"program headers too small"}
	}
	return h, nil
}

// headerSize is the size of one program header.
func (f *file) headerSize() uint64 {
	if f.info.Class == elf.ELFCLASS64 {
		return 56
	}
	return 32
}

// segments reads the program headers and what they lead to, and decides which
// kind of file it is.
func (f *file) segments(h header, table []byte) error {
	var interp, dynamic *load
	for ; uint64(len(table)) >= h.phentsize; table = table[h.phentsize:] {
		kind, s := f.segment(table)
		switch kind {
		case elf.PT_LOAD:
			f.loads = append(f.loads, s)
		case elf.PT_INTERP:
			interp = &s
		case elf.PT_DYNAMIC:
			dynamic = &s
		}
	}
	switch h.kind {
	case elf.ET_EXEC:
		f.info.Kind = Program
	case elf.ET_DYN:
		f.info.Kind = Library
	default:
		return nil
	}
	if interp != nil {
		b, err := f.at(interp.off, min(interp.size, maxName))
		if err != nil {
			return err
		}
		name, _, _ := bytes.Cut(b, []byte{0})
		f.info.Interp = string(name)
	}
	var pie bool
	if dynamic != nil {
		var err error
		if pie, err = f.dynamic(*dynamic); err != nil {
			return err
		}
	}
	// libc.so.6 has an interpreter, too: it can be executed to print its
	// version. Old linkers do not mark position-independent programs.
	if h.kind == elf.ET_DYN && (pie || f.info.Interp != "" && f.info.Soname == "") {
		f.info.Kind = Program
	}
	return nil
}

func (f *file) segment(b []byte) (elf.ProgType, load) {
	kind := elf.ProgType(f.order.Uint32(b))
	if f.info.Class == elf.ELFCLASS64 {
		return kind, load{off: f.order.Uint64(b[8:]), addr: f.order.Uint64(b[16:]), size: f.order.Uint64(b[32:])}
	}
	return kind, load{
		off: uint64(f.order.Uint32(b[4:])), addr: uint64(f.order.Uint32(b[8:])), size: uint64(f.order.Uint32(b[16:])),
	}
}

// dynamic reads the dynamic section, and says whether it marks a
// position-independent program.
func (f *file) dynamic(s load) (pie bool, err error) {
	d, err := f.entries(s)
	if err != nil || !d.hasSoname && len(d.needed) == 0 && !d.hasRunPath {
		return d.pie, err
	}
	off, size, ok := f.offset(d.names)
	if !ok {
		return d.pie, &FormatError{"string table is not loaded"}
	}
	if d.namesSize > 0 {
		size = min(size, d.namesSize)
	}
	if d.hasSoname {
		if f.info.Soname, err = f.name(off, size, d.soname); err != nil {
			return d.pie, err
		}
	}
	if d.hasRunPath {
		if f.info.RunPath, err = f.name(off, size, d.runPath); err != nil {
			return d.pie, err
		}
	}
	for _, at := range d.needed {
		name, err := f.name(off, size, at)
		if err != nil {
			return d.pie, err
		}
		f.info.Needed = append(f.info.Needed, name)
	}
	return d.pie, nil
}

// dynamicEntries are the entries of the dynamic section that we want.
type dynamicEntries struct {
	names, namesSize uint64 // address and size of the string table
	needed           []uint64
	soname           uint64
	runPath          uint64
	hasSoname, pie   bool
	hasRunPath       bool
}

func (f *file) entries(s load) (d dynamicEntries, err error) {
	if s.size == 0 {
		return d, nil // a file of debug information only
	}
	// The loader goes by the address, not by the offset.
	off, size, ok := f.offset(s.addr)
	if !ok {
		return d, &FormatError{"dynamic section is not loaded"}
	}
	b, err := f.at(off, min(s.size, size, maxDynamic))
	if err != nil {
		return d, err
	}
	for ; len(b) >= 2*f.wordSize(); b = b[2*f.wordSize():] {
		tag, value := f.word(b), f.word(b[f.wordSize():])
		switch elf.DynTag(tag) {
		case elf.DT_NULL:
			return d, nil
		case elf.DT_STRTAB:
			d.names = value
		case elf.DT_STRSZ:
			d.namesSize = value
		case elf.DT_NEEDED:
			d.needed = append(d.needed, value)
		case elf.DT_SONAME:
			d.soname, d.hasSoname = value, true
		case elf.DT_RUNPATH:
			d.runPath, d.hasRunPath = value, true
		case elf.DT_RPATH: // of no account beside the other
			if !d.hasRunPath {
				d.runPath, d.hasRunPath = value, true
			}
		case elf.DT_FLAGS_1:
			d.pie = elf.DynFlag1(value)&elf.DF_1_PIE != 0
		}
	}
	return d, &FormatError{"dynamic section has no end"}
}
