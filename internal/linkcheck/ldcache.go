package linkcheck

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"math"
)

// loaderCache is what ld.so.cache says: where libraries are, by name. ldconfig
// writes it (glibc, elf/cache.c and sysdeps/generic/dl-cache.h).
type loaderCache struct {
	data    []byte // from its own magic on
	order   binary.ByteOrder
	entries map[string][]cacheEntry // in the order of the file
}

type cacheEntry struct {
	flags uint32
	path  string
	hwcap string // the glibc-hwcaps name; "" if for all processors
	old   bool   // for a capability of the old kind, which is not looked at
}

const (
	newCacheMagic = "glibc-ld.so.cache1.1"
	oldCacheMagic = "ld.so-1.7.0\x00"
)

// parseCache reads an ld.so.cache. It belongs to the byte order that its header
// names, or to the little-endian one.
func parseCache(b []byte) (*loaderCache, error) {
	if bytes.HasPrefix(b, []byte(oldCacheMagic)) {
		// The old table comes first, and the new one, aligned, behind it.
		if len(b) < 16 {
			return nil, &FormatError{"cache ends in its header"}
		}
		end := 16 + uint64(binary.LittleEndian.Uint32(b[12:]))*12
		if end = (end + 7) &^ 7; end > uint64(len(b)) {
			return nil, &FormatError{"cache has only entries of the old kind"}
		}
		b = b[end:]
	}
	if !bytes.HasPrefix(b, []byte(newCacheMagic)) {
		return nil, &FormatError{"no cache of a loader"}
	}
	if len(b) < 48 {
		return nil, &FormatError{"cache ends in its header"}
	}
	c := &loaderCache{data: b, order: binary.LittleEndian, entries: map[string][]cacheEntry{}}
	if b[28] == 3 { // cache_file_new_flags_endian_big
		c.order = binary.BigEndian
	}
	count := uint64(c.order.Uint32(b[20:]))
	if count > uint64(len(b)-48)/24 {
		return nil, &FormatError{"cache ends in its entries"}
	}
	hwcaps := c.hwcaps(uint64(c.order.Uint32(b[32:])))
	spent := 0
	for e := b[48:][:count*24]; len(e) > 0; e = e[24:] {
		name, ok1 := c.text(c.order.Uint32(e[4:]))
		path, ok2 := c.text(c.order.Uint32(e[8:]))
		if !ok1 || !ok2 {
			return nil, &FormatError{"cache has a name without an end"}
		}
		if spent += len(name) + len(path); spent > maxNames+16*len(b) {
			return nil, &FormatError{"cache has too many names"}
		}
		entry := cacheEntry{flags: c.order.Uint32(e), path: path}
		if caps := c.order.Uint64(e[16:]); caps&(1<<62) != 0 {
			i := uint32(caps)
			if uint64(i) >= uint64(len(hwcaps)) {
				continue
			}
			entry.hwcap = hwcaps[i]
		} else {
			entry.old = caps != 0
		}
		c.entries[name] = append(c.entries[name], entry)
	}
	return c, nil
}

func (c *loaderCache) text(at uint32) (string, bool) {
	if uint64(at) >= uint64(len(c.data)) {
		return "", false
	}
	b := c.data[at:]
	b = b[:min(len(b), maxName)]
	end := bytes.IndexByte(b, 0)
	if end < 0 {
		return "", false
	}
	return string(b[:end]), true
}

// hwcaps are the names of the extension section that says which subdirectories
// of glibc-hwcaps the entries are of (glibc 2.33 and newer).
func (c *loaderCache) hwcaps(at uint64) (names []string) {
	if at == 0 || at+8 > uint64(len(c.data)) || at%4 != 0 {
		return nil
	}
	b := c.data[at:]
	if c.order.Uint32(b) != 0xeaa42174 {
		return nil
	}
	count := min(uint64(c.order.Uint32(b[4:])), uint64(len(b)-8)/16)
	for s := b[8:]; count > 0; count, s = count-1, s[16:] {
		tag, offset, size := c.order.Uint32(s), uint64(c.order.Uint32(s[8:])), uint64(c.order.Uint32(s[12:]))
		if tag != 1 || offset > uint64(len(c.data)) || size > uint64(len(c.data))-offset {
			continue
		}
		for t := c.data[offset:][:size]; len(t) >= 4 && len(names) < maxHWCaps; t = t[4:] {
			name, _ := c.text(c.order.Uint32(t))
			names = append(names, name)
		}
	}
	return names
}

const maxHWCaps = 1024

// lookup is the path that the loader takes for a name: of the entries for this
// kind of file, the one whose processor level is best, and of those the first.
func (c *loaderCache) lookup(name string, flags uint32, hwcaps []string) (path string, ok bool) {
	best := math.MaxInt
	for _, e := range c.entries[name] {
		if e.flags != flags && e.flags != 1 || e.old {
			continue
		}
		rank := len(hwcaps)
		if e.hwcap != "" {
			rank = -1
			for i, h := range hwcaps {
				if h == e.hwcap {
					rank = i
				}
			}
			if rank < 0 {
				continue
			}
		}
		if rank < best {
			best, path, ok = rank, e.path, true
		}
	}
	return path, ok
}

// cacheFlags is the kind of an entry for files of a machine (dl-cache.h).
func cacheFlags(machine elf.Machine, wide bool) (uint32, error) {
	const libc6 = 3
	switch machine {
	case elf.EM_X86_64:
		if wide {
			return 0x0300 | libc6, nil
		}
		return 0x0800 | libc6, nil // x32
	case elf.EM_386:
		return libc6, nil
	case elf.EM_AARCH64:
		return 0x0a00 | libc6, nil
	case elf.EM_ARM:
		return 0x0900 | libc6, nil // hard float; soft is 0x0b00
	case elf.EM_PPC64:
		return 0x0500 | libc6, nil
	case elf.EM_S390:
		if wide {
			return 0x0400 | libc6, nil
		}
		return libc6, nil
	case elf.EM_RISCV:
		return 0x1000 | libc6, nil // double float
	}
	return 0, fmt.Errorf("libraries of %v in a cache", machine)
}
