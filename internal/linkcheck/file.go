package linkcheck

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
)

// Limits, far above what any linker makes.
const (
	maxHeaders = 64 << 10 // bytes of program headers, as the kernel's own limit
	maxDynamic = 64 << 10 // bytes of dynamic section that are read
	maxName    = 4096     // bytes of a name, PATH_MAX
	maxNames   = 1 << 20  // bytes of all names together
)

// file is a file that is being read.
type file struct {
	r     io.ReaderAt
	size  int64
	buf   []byte // holds one piece of the file at a time
	order binary.ByteOrder
	info  Info
	loads []load // PT_LOAD, in order
	names int    // bytes of names read so far
}

// load is a piece of the file that the loader maps at an address.
type load struct{ addr, off, size uint64 }

func (f *file) wordSize() int {
	if f.info.Class == elf.ELFCLASS64 {
		return 8
	}
	return 4
}

func (f *file) word(b []byte) uint64 {
	if f.info.Class == elf.ELFCLASS64 {
		return f.order.Uint64(b)
	}
	return uint64(f.order.Uint32(b))
}

// offset finds where in the file an address is, and how many bytes of its
// segment follow there.
func (f *file) offset(addr uint64) (off, size uint64, ok bool) {
	for _, l := range f.loads {
		if addr >= l.addr && addr-l.addr < l.size {
			skip := addr - l.addr
			return l.off + skip, l.size - skip, l.off+skip >= l.off
		}
	}
	return 0, 0, false
}

// name reads a name of the string table that is at off and has this size.
func (f *file) name(off, size, at uint64) (string, error) {
	if at >= size || off+at < off {
		return "", &FormatError{"name outside of the string table"}
	}
	size = min(size-at, maxName)
	for _, n := range []uint64{64, maxName} { // nearly all are short
		n = min(n, size)
		b, err := f.at(off+at, n)
		if err != nil {
			return "", err
		}
		if end := bytes.IndexByte(b, 0); end >= 0 {
			if f.names += end; f.names > maxNames {
				return "", &FormatError{"too many names"}
			}
			return string(b[:end]), nil
		}
		if n == size {
			break
		}
	}
	return "", &FormatError{"name has no end"}
}

// at reads a piece of the file. It is valid until the next.
func (f *file) at(off, n uint64) ([]byte, error) {
	if off > uint64(f.size) || n > uint64(f.size)-off {
		return nil, &FormatError{"ends too soon"}
	}
	if n > uint64(len(f.buf)) {
		f.buf = make([]byte, n)
	}
	b := f.buf[:n]
	if got, err := f.r.ReadAt(b, int64(off)); got < len(b) {
		if errors.Is(err, io.EOF) { // shorter than its size by now
			return nil, &FormatError{"ends too soon"}
		}
		return nil, err
	}
	return b, nil
}
