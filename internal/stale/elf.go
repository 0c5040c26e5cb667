package stale

import (
	"encoding/binary"
	"encoding/hex"
	"io"
	"sync"
)

// elfFile is what we need to know of an ELF file: where its parts go.
type elfFile struct {
	layout
	machine uint16
	loads   []header
	dynamic header // kind is 0 if there is none
	relro   header
	interp  string // the loader that it asks for
	buildID string // in hexadecimal
	marked  bool   // it may hold what makes a program replace itself
}

// starts are for the first bytes of files, which almost always hold all that is
// read of them.
var starts = sync.Pool{New: func() any { return new([pageSize]byte) }}

// readELF reads the head of a file. It says false if that is no ELF file, or a
// damaged one.
func readELF(r io.ReaderAt) (*elfFile, bool) {
	start := starts.Get().(*[pageSize]byte)
	defer starts.Put(start)
	n, _ := r.ReadAt(start[:], 0)
	f := &elfFile{}
	phoff, phnum, ok := f.parseStart(start[:n])
	if !ok {
		return nil, false
	}
	size := f.headerSize()
	raw := make([]byte, phnum*size)
	if phoff+uint64(len(raw)) <= uint64(n) && phoff <= uint64(n) {
		copy(raw, start[phoff:])
	} else if phoff > 1<<62 || !readFull(r, raw, phoff) {
		return nil, false
	}
	for i := range phnum {
		f.take(r, f.header(raw[i*size:]), start[:n])
	}
	return f, len(f.loads) > 0
}

// parseStart reads the ELF header, as far as the program headers' place.
func (f *elfFile) parseStart(b []byte) (phoff, phnum uint64, ok bool) {
	if len(b) < 64 || string(b[:4]) != "\x7fELF" || b[4] != 1 && b[4] != 2 || b[5] != 1 && b[5] != 2 {
		return 0, 0, false
	}
	f.wide, f.order = b[4] == 2, binary.LittleEndian
	if b[5] == 2 {
		f.order = binary.BigEndian
	}
	f.machine = f.order.Uint16(b[18:])
	var entry uint16
	if f.wide {
		phoff, entry, phnum = f.order.Uint64(b[32:]), f.order.Uint16(b[54:]), uint64(f.order.Uint16(b[56:]))
	} else {
		phoff, entry, phnum = uint64(f.order.Uint32(b[28:])), f.order.Uint16(b[42:]), uint64(f.order.Uint16(b[44:]))
	}
	return phoff, phnum, uint64(entry) == f.headerSize() && phnum > 0 && phnum <= mostHeaders
}

func (f *elfFile) take(r io.ReaderAt, h header, start []byte) {
	switch h.kind {
	case ptLoad:
		f.loads = append(f.loads, h)
	case ptDynamic:
		f.dynamic = h
	case ptGNURelro:
		f.relro = h
	case ptInterp:
		if b := part(r, start, h.offset, min(h.filesz, 4096)); len(b) > 1 {
			f.interp = string(b[:len(b)-1])
		}
	case ptNote:
		f.notes(part(r, start, h.offset, min(h.filesz, 16<<10)))
	}
}

// part is a part of the file, from what was read at its start if it is there.
func part(r io.ReaderAt, start []byte, offset, size uint64) []byte {
	if end := offset + size; end >= offset && end <= uint64(len(start)) {
		return start[offset:end]
	}
	b := make([]byte, size)
	if offset > 1<<62 || !readFull(r, b, offset) {
		return nil
	}
	return b
}

func readFull(r io.ReaderAt, b []byte, offset uint64) bool {
	n, _ := r.ReadAt(b, int64(offset))
	return n == len(b)
}

// notes walks notes: sizes of name and content, type, and both, each padded to
// four bytes.
func (f *elfFile) notes(b []byte) {
	const kind, longest = 3, 64 // NT_GNU_BUILD_ID
	for len(b) >= 12 {
		name, desc := uint64(f.order.Uint32(b)), uint64(f.order.Uint32(b[4:]))
		t := f.order.Uint32(b[8:])
		b = b[12:]
		from, all := pad(name), pad(name)+pad(desc)
		if from+desc > uint64(len(b)) {
			return
		}
		switch text := string(b[:min(name, 8)]); {
		case t == kind && text == "GNU\x00" && desc <= longest && f.buildID == "":
			f.buildID = hex.EncodeToString(b[from : from+desc])
		case text == "moult\x00" || text == "Go\x00\x00": // a Go program has no note of ours
			f.marked = true
		}
		b = b[min(all, uint64(len(b))):]
	}
}

func pad(n uint64) uint64 { return (n + 3) &^ 3 }

// baseOf says where a file was loaded of which an area with code is known: what
// was added to its addresses. Address and offset of a part agree modulo the
// page, whatever its size.
func (f *elfFile) baseOf(a area) (base uint64, ok bool) {
	for _, h := range f.loads {
		if h.flags&pfExecutable != 0 && a.offset < h.offset+h.filesz && h.offset < a.offset+a.end-a.start {
			return f.trim(a.start - a.offset + h.offset - h.addr), true
		}
	}
	return 0, false
}
