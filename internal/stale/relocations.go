package stale

import "io"

// relocations reads the dynamic section and the words of a file. Of a damaged
// file it returns what it could read.
func (f *elfFile) relocations(r io.ReaderAt) (out relocations) {
	word := f.word()
	count := min(f.dynamic.filesz, mostDynamic*2*word) / (2 * word)
	raw := make([]byte, count*2*word)
	if f.dynamic.kind == 0 || f.dynamic.offset > 1<<62 || !readFull(r, raw, f.dynamic.offset) {
		return out
	}
	var rel, rela, relr [2]uint64 // address and size
	for i := range int(count) {
		tag, value := f.at(raw, 2*i), f.at(raw, 2*i+1)
		if tag == 0 {
			break
		}
		out.dynamic = append(out.dynamic, tag, value)
		switch tag {
		case dtRel:
			rel[0] = value
		case dtRelsz:
			rel[1] = value
		case dtRela:
			rela[0] = value
		case dtRelasz:
			rela[1] = value
		case dtRelr:
			relr[0] = value
		case dtRelrsz:
			relr[1] = value
		}
	}
	if f.relro.kind == 0 {
		return out
	}
	data := f.relroBytes(r)
	f.tables(r, rel, 2, data, &out)
	f.tables(r, rela, 3, data, &out)
	f.packed(r, relr, data, &out)
	return out
}

// relroBytes are the file's bytes of the part that becomes read-only.
func (f *elfFile) relroBytes(r io.ReaderAt) []byte {
	return f.bytesAt(r, f.relro.addr, min(f.relro.filesz, 32<<20))
}

// bytesAt reads what the file has for an address, as far as it has.
func (f *elfFile) bytesAt(r io.ReaderAt, addr, size uint64) []byte {
	for _, h := range f.loads {
		if h.addr <= addr && addr-h.addr < h.filesz && h.offset < 1<<62 && addr-h.addr < 1<<62 {
			return upTo(r, h.offset+addr-h.addr, min(size, h.filesz-(addr-h.addr)))
		}
	}
	return nil
}

// upTo reads so many bytes, or as many as there are: what a damaged file claims
// to have takes no memory.
func upTo(r io.ReaderAt, offset, size uint64) []byte {
	const most = 64 << 10
	b := make([]byte, min(size, most))
	for at := 0; ; {
		n, _ := r.ReadAt(b[at:], int64(offset)+int64(at))
		if at += n; at < len(b) || uint64(at) == size {
			return b[:at]
		}
		b = append(b, make([]byte, min(size-uint64(at), uint64(at)))...)
	}
}

// tables reads a table of relocations of two words (address and type) or three
// (and addend), and adds those that matter.
func (f *elfFile) tables(r io.ReaderAt, table [2]uint64, words uint64, data []byte, out *relocations) {
	kind, known := relative[f.machine]
	size := words * f.word()
	if !known || table[0] == 0 {
		return
	}
	raw := f.bytesAt(r, table[0], min(table[1], mostRelocations*size))
	for ; uint64(len(raw)) >= size; raw = raw[size:] {
		info := f.at(raw, 1)
		if f.wide {
			info &= 1<<32 - 1
		} else {
			info &= 1<<8 - 1
		}
		if info != kind {
			continue
		}
		addr := f.at(raw, 0)
		bare, ok := f.protected(addr, data)
		if !ok {
			continue
		}
		addend := bare
		if words == 3 {
			addend = f.at(raw, 2)
		}
		out.words = append(out.words, relocation{addr, addend, bare})
	}
}

// packed reads a DT_RELR table: an even word is an address; an odd one says by
// its bits which of the words that follow are relocated, too.
func (f *elfFile) packed(r io.ReaderAt, table [2]uint64, data []byte, out *relocations) {
	if table[0] == 0 {
		return
	}
	word := f.word()
	add := func(addr uint64) {
		if bare, ok := f.protected(addr, data); ok && len(out.words) < mostRelocations {
			out.words = append(out.words, relocation{addr, bare, bare})
		}
	}
	raw := f.bytesAt(r, table[0], min(table[1], mostRelocations*word))
	next := uint64(0)
	for ; uint64(len(raw)) >= word; raw = raw[word:] {
		bits := f.at(raw, 0)
		if bits&1 == 0 {
			add(bits)
			next = bits + word
			continue
		}
		for i := uint64(0); bits>>1 != 0; i++ {
			if bits >>= 1; bits&1 != 0 {
				add(next + i*word)
			}
		}
		next += (8*word - 1) * word
	}
}

// protected returns the word that the file has at an address of the part that
// becomes read-only.
func (f *elfFile) protected(addr uint64, data []byte) (uint64, bool) {
	at := addr - f.relro.addr
	if addr < f.relro.addr || at >= uint64(len(data)) || uint64(len(data))-at < f.word() {
		return 0, false
	}
	return f.at(data[at:], 0), true
}
