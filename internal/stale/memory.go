package stale

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

// memory reads another process's memory in blocks, and keeps a few of them: the
// loader's lists are many small pieces that lie close together. A block is one
// page, or several where the one before it was read last: each page costs. All
// that is read is hostile; nothing here follows more than it is told to.
type memory struct {
	from   io.ReaderAt
	blocks [10]block
	next   int    // the block that is overwritten next
	end    uint64 // of the block that was read last
	read   int    // blocks read, to bound what a hostile list can cost
	names  map[string]string
}

const (
	blockSize  = 32 << 10
	mostBlocks = 4096
)

type block struct {
	at   uint64 // the address; valid if have > 0
	have int
	data [blockSize]byte
}

var errMemory = errors.New("memory cannot be read")

func (m *memory) reset(from io.ReaderAt) {
	m.from, m.next, m.end, m.read = from, 0, 0, 0
	for i := range m.blocks {
		m.blocks[i].have = 0
	}
}

// bytes returns what stands at the address, as far as the end of its block. It
// is valid until the next call.
func (m *memory) bytes(addr uint64) ([]byte, error) {
	for i := range m.blocks {
		if b := &m.blocks[i]; b.at <= addr && addr-b.at < uint64(b.have) {
			return b.data[addr-b.at : b.have], nil
		}
	}
	at := addr &^ (pageSize - 1) // what is below may not be there
	if m.read++; m.read > mostBlocks || at > 1<<63-2*blockSize {
		return nil, errMemory
	}
	b := &m.blocks[m.next]
	m.next = (m.next + 1) % len(m.blocks)
	b.at, b.have = at, 0
	size := pageSize
	if at == m.end {
		size = blockSize
	}
	n, err := m.from.ReadAt(b.data[:size], int64(at))
	if n <= int(addr-at) {
		if err == nil {
			err = errMemory
		}
		return nil, err
	}
	b.have, m.end = n, at+uint64(n)
	return b.data[addr-at : n], nil
}

// fill reads all of into.
func (m *memory) fill(into []byte, addr uint64) error {
	for len(into) > 0 {
		b, err := m.bytes(addr)
		if err != nil {
			return err
		}
		n := copy(into, b)
		into, addr = into[n:], addr+uint64(n)
	}
	return nil
}

// text reads a string that ends with NUL, no longer than a path can be.
func (m *memory) text(addr uint64) (string, error) {
	var s []byte
	for {
		b, err := m.bytes(addr)
		if err != nil {
			return "", err
		}
		end := bytes.IndexByte(b, 0)
		if end >= 0 && s == nil {
			return m.name(b[:end]), nil
		}
		if end >= 0 {
			b = b[:end]
		}
		if s = append(s, b...); len(s) >= unix.PathMax {
			return "", errMemory
		}
		if end >= 0 {
			return string(s), nil
		}
		addr += uint64(len(b))
	}
}

// name makes a string of a name that many processes have in common, once.
func (m *memory) name(b []byte) string {
	const most, longest = 4096, 256
	s, known := m.names[string(b)]
	if known {
		return s
	}
	s = string(b)
	if m.names == nil || len(m.names) == most {
		m.names = map[string]string{}
	}
	if len(s) <= longest {
		m.names[s] = s
	}
	return s
}

// layout is how a program lays out what the loader and debuggers share.
type layout struct {
	wide  bool // ELF64; else ELF32
	order binary.ByteOrder
}

// word is the size of an address.
func (l layout) word() uint64 {
	if l.wide {
		return 8
	}
	return 4
}

// words reads some words one after the other; into has at most six.
func (m *memory) words(l layout, addr uint64, into []uint64) error {
	var buf [48]byte
	raw := buf[:uint64(len(into))*l.word()]
	if err := m.fill(raw, addr); err != nil {
		return err
	}
	for i := range into {
		into[i] = l.at(raw, i)
	}
	return nil
}

// at is the i-th word of raw.
func (l layout) at(raw []byte, i int) uint64 {
	if l.wide {
		return l.order.Uint64(raw[8*i:])
	}
	return uint64(l.order.Uint32(raw[4*i:]))
}

// memoryOf reads the memory of the process that has this number now. It takes
// half the time of /proc/PID/mem; whoever uses it finds out afterwards whether
// the process was still the same.
type memoryOf int

func (pid memoryOf) ReadAt(b []byte, at int64) (n int, err error) {
	local := [1]unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	remote := [1]unix.RemoteIovec{{Base: uintptr(at), Len: len(b)}}
	n, err = unix.ProcessVMReadv(int(pid), local[:], remote[:], 0)
	if err == nil && n < len(b) {
		err = io.EOF
	}
	return max(n, 0), err
}

// descriptorAt is an open file as an io.ReaderAt.
type descriptorAt int

func (fd descriptorAt) ReadAt(b []byte, at int64) (n int, err error) {
	err = retry(func() error {
		n, err = unix.Pread(int(fd), b, at)
		return err
	})
	if err == nil && n < len(b) {
		err = io.EOF
	}
	return max(n, 0), err
}
