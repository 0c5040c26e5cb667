package linkcheck

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// handmade builds a small ELF file by hand: header, a PT_LOAD over all of it, a
// PT_DYNAMIC and a string table, in either class and byte order.
func handmade(class elf.Class, order binary.ByteOrder, names string, dynamic ...uint64) []byte {
	word, head, phsize := 8, 64, 56
	if class == elf.ELFCLASS32 {
		word, head, phsize = 4, 52, 32
	}
	put := func(b []byte, v uint64) {
		if word == 8 {
			order.PutUint64(b, v)
		} else {
			order.PutUint32(b, uint32(v))
		}
	}
	const base = 0x10000
	table := head + 2*phsize
	dyn := table + len(names)
	b := make([]byte, dyn+len(dynamic)*word)
	copy(b, elf.ELFMAG)
	b[4], b[5], b[6] = byte(class), 1, 1
	if order == binary.BigEndian {
		b[5] = 2
	}
	order.PutUint16(b[16:], uint16(elf.ET_DYN))
	order.PutUint16(b[18:], uint16(elf.EM_S390))
	put(b[24+word:], uint64(head))             // e_phoff
	sizes := b[24+3*word+4:]                   // after e_flags
	order.PutUint16(sizes[2:], uint16(phsize)) // e_phentsize
	order.PutUint16(sizes[4:], 2)              // e_phnum
	segment := func(at []byte, kind elf.ProgType, off, size int) {
		order.PutUint32(at, uint32(kind))
		f := at[4:]
		if word == 8 {
			f = at[8:]
		}
		put(f, uint64(off))
		put(f[word:], uint64(base+off))
		put(f[3*word:], uint64(size))
		put(f[4*word:], uint64(size))
	}
	segment(b[head:], elf.PT_LOAD, 0, len(b))
	segment(b[head+phsize:], elf.PT_DYNAMIC, dyn, len(dynamic)*word)
	copy(b[table:], names)
	for i, v := range dynamic {
		if i%2 == 1 && dynamic[i-1] == uint64(elf.DT_STRTAB) {
			v = base + uint64(table)
		}
		put(b[dyn+i*word:], v)
	}
	return b
}

const (
	tagNull   = uint64(elf.DT_NULL)
	tagNeeded = uint64(elf.DT_NEEDED)
	tagStrtab = uint64(elf.DT_STRTAB)
	tagStrsz  = uint64(elf.DT_STRSZ)
	tagSoname = uint64(elf.DT_SONAME)
)

func TestClassesAndByteOrders(t *testing.T) {
	for _, class := range []elf.Class{elf.ELFCLASS32, elf.ELFCLASS64} {
		for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
			b := handmade(class, order, "\x00a.so\x00b.so\x00", tagNeeded, 1, tagSoname, 6, tagStrtab, 0, tagNull, 0)
			got, err := Needs(bytes.NewReader(b), int64(len(b)))
			if err != nil || got.Kind != Library || got.Class != class || got.Machine != elf.EM_S390 ||
				got.Soname != "b.so" || !slices.Equal(got.Needed, []string{"a.so"}) {
				t.Errorf("%v %v: got %+v, %v, want b.so, which needs a.so", class, order, got, err)
			}
		}
	}
}

func TestNotELF(t *testing.T) {
	for _, text := range []string{"", "#!/bin/sh\nexit 0\n", "\x7fEL", "\x7fELF", strings.Repeat("x", 5000)} {
		got, err := Needs(strings.NewReader(text), int64(len(text)))
		if err != nil || got.Kind != NotELF {
			t.Errorf("%.20q: got %+v, %v, want no ELF file", text, got, err)
		}
	}
}

func TestMalformed(t *testing.T) {
	le, c64 := binary.LittleEndian, elf.ELFCLASS64
	edit := func(at int, v ...byte) []byte {
		b := handmade(c64, le, "\x00a.so\x00", tagNeeded, 1, tagStrtab, 0, tagNull, 0)
		copy(b[at:], v)
		return b
	}
	many := []uint64{tagStrtab, 0}
	for range 2000 {
		many = append(many, tagNeeded, 0)
	}
	tests := map[string][]byte{
		"byte order":           edit(5, 7),
		"class":                edit(4, 9),
		"ends in its header":   edit(0)[:50],
		"header size":          edit(54, 1, 0),
		"header offset":        edit(32, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		"header count":         edit(56, 0xff, 0xff),
		"dynamic elsewhere":    edit(64+56+16, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		"load beyond end":      edit(64+8, 0, 0, 0, 0, 0, 0, 0, 0x80),
		"no end":               handmade(c64, le, "\x00a.so\x00", tagNeeded, 1, tagStrtab, 0),
		"no string table":      handmade(c64, le, "\x00a.so\x00", tagNeeded, 1, tagNull, 0),
		"name outside":         handmade(c64, le, "\x00a.so\x00", tagNeeded, 1<<40, tagStrtab, 0, tagNull, 0),
		"name after the table": handmade(c64, le, "\x00a.so\x00b.so\x00", tagNeeded, 7, tagStrtab, 0, tagStrsz, 6, tagNull, 0),
		"name without end":     handmade(c64, le, strings.Repeat("x", 5000), tagNeeded, 1, tagStrtab, 0, tagNull, 0),
		"too many names":       handmade(c64, le, strings.Repeat("x", 4000)+"\x00", append(many, tagNull, 0)...),
	}
	for name, b := range tests {
		got, err := Needs(bytes.NewReader(b), int64(len(b)))
		var fe *FormatError
		if !errors.As(err, &fe) {
			t.Errorf("%s: got %+v, %v, want a FormatError", name, got, err)
		}
	}
	// The size is what it was, the file is not.
	b := edit(0)
	if _, err := Needs(bytes.NewReader(b[:100]), int64(len(b))); !errors.As(err, new(*FormatError)) {
		t.Errorf("shrunk: got %v, want a FormatError", err)
	}
}

// zeros is a file of any size that begins with an image.
type zeros []byte

func (z zeros) ReadAt(b []byte, off int64) (int, error) {
	clear(b)
	if off < int64(len(z)) {
		copy(b, z[off:])
	}
	return len(b), nil
}

// However big a file is and says that its parts are, little of it is read.
func TestBoundedMemory(t *testing.T) {
	headers := handmade(elf.ELFCLASS64, binary.LittleEndian, "", tagNull, 0)
	copy(headers[54:], "\xff\xff\xff\xff") // 65535 headers of 65535 bytes
	dynamic := handmade(elf.ELFCLASS64, binary.LittleEndian, "", tagNeeded, 0)
	for _, at := range []int{64 + 32, 64 + 56 + 32} {
		copy(dynamic[at:], "\xff\xff\xff\xff\xff\xff\xff\x0f")
	}
	for i, b := range [][]byte{headers, dynamic} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		Needs(zeros(b), 1<<62)
		runtime.ReadMemStats(&after)
		allocated := after.TotalAlloc - before.TotalAlloc
		if allocated > 2*(maxHeaders+maxDynamic) {
			t.Errorf("image %d: takes %d bytes of memory, want at most %d", i, allocated, 2*(maxHeaders+maxDynamic))
		}
	}
}

type failingReader struct{}

func (failingReader) ReadAt([]byte, int64) (int, error) { return 0, syscall.EIO }

func TestReadErrorIsNoFormatError(t *testing.T) {
	if _, err := Needs(failingReader{}, 1000); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v, want %v", err, syscall.EIO)
	}
}

// Cut short anywhere, a file gives an error or the same answer.
func TestTruncated(t *testing.T) {
	b := handmade(elf.ELFCLASS64, binary.LittleEndian, "\x00a.so\x00b.so\x00", tagNeeded, 1, tagSoname, 6, tagStrtab, 0, tagNull, 0)
	for n := range b {
		got, err := Needs(bytes.NewReader(b[:n]), int64(n))
		if n >= 16 && err == nil {
			t.Errorf("%d of %d bytes: got %+v, want an error", n, len(b), got)
		}
	}
}

func FuzzNeeds(f *testing.F) {
	for _, class := range []elf.Class{elf.ELFCLASS32, elf.ELFCLASS64} {
		f.Add(handmade(class, binary.LittleEndian, "\x00a.so\x00b.so\x00", tagNeeded, 1, tagSoname, 6, tagStrtab, 0, tagNull, 0))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &countingReader{r: bytes.NewReader(b)}
		info, err := Needs(r, int64(len(b)))
		if err != nil && !errors.As(err, new(*FormatError)) {
			t.Errorf("got %v, want a FormatError", err)
		}
		if info.Kind == NotELF && (err != nil || len(info.Needed) > 0) {
			t.Errorf("got %+v, %v of no ELF file", info, err)
		}
		total := len(info.Soname) + len(info.Interp)
		for _, name := range info.Needed {
			total += len(name)
		}
		if total > maxNames+maxName || r.n > 16*(maxNames+maxDynamic+maxHeaders) {
			t.Errorf("%d bytes of names from %d bytes read of a file of %d", total, r.n, len(b))
		}
	})
}

type countingReader struct {
	r *bytes.Reader
	n int
}

func (c *countingReader) ReadAt(b []byte, off int64) (int, error) {
	c.n += len(b)
	return c.r.ReadAt(b, off)
}
