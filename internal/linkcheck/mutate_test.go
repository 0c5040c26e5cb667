package linkcheck

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// mutation is a program, or a library in its place, some of whose files are
// replaced by broken copies in a directory.
type mutation struct {
	subject string
	program string // its path: a copy if it was broken itself
	done    []string
}

// mutate breaks one to three files of a subject in one to four ways each.
func mutate(r *rand.Rand, dir string, s subject) (*mutation, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	m := &mutation{subject: s.path, program: s.path}
	for _, i := range r.Perm(len(s.files))[:min(len(s.files), 1+r.IntN(3))] {
		f := s.files[i]
		data, err := os.ReadFile(f.path)
		if err != nil {
			return nil, err
		}
		name := filepath.Base(f.name)
		if r.IntN(30) == 0 {
			o := s.files[r.IntN(len(s.files))]
			if data, err = os.ReadFile(o.path); err != nil {
				return nil, err
			}
			m.done = append(m.done, name+" is "+filepath.Base(o.name))
		}
		b := &breaker{r: r, data: data, main: realPath(f.path) == realPath(s.path)}
		if b.im, err = parseImage(data); err != nil {
			return nil, err
		}
		for n := 1 + r.IntN(4); n > 0 && !b.over; n-- {
			if what := b.once(); what != "" {
				m.done = append(m.done, name+": "+what)
			}
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b.data, 0o755); err != nil {
			return nil, err
		}
		if realPath(f.path) == realPath(s.path) {
			m.program = path
		}
	}
	return m, nil
}

type breaker struct {
	r    *rand.Rand
	im   *image
	data []byte // the image's
	main bool   // the program itself
	over bool   // the headers are broken: nothing else can be found
}

// once breaks one thing and says what.
func (b *breaker) once() string {
	le := binary.LittleEndian
	im, r := b.im, b.r
	switch k := r.IntN(100); {
	case k < 40: // exported symbols
		n := 1 + r.IntN(30)
		kind := r.IntN(8)
		done := 0
		for range n {
			i, ok := b.exported()
			if !ok {
				return ""
			}
			e := im.symtab[i*24:][:24]
			switch kind {
			case 0, 1:
				le.PutUint16(e[6:], 0)
				le.PutUint64(e[8:], 0)
			case 2:
				e[4] = e[4]&15 | byte(elf.STB_LOCAL)<<4
			case 3:
				e[5] = e[5]&^3 | byte(1+r.IntN(3))
			case 4:
				e[4] = e[4]&0xf0 | byte(r.IntN(16))
			case 5:
				le.PutUint64(e[8:], 0)
			case 6:
				e[4] = e[4]&15 | byte(elf.STB_WEAK)<<4
			case 7:
				le.PutUint16(e[6:], 0) // undefined with a value
			}
			done++
		}
		return fmt.Sprintf("%d symbols changed in way %d", done, kind)
	case k < 55: // versions of symbols
		if im.versym == nil {
			return ""
		}
		n := 1 + r.IntN(20)
		for range n {
			i, ok := b.exported()
			if r.IntN(3) == 0 {
				i, ok = b.referred()
			}
			if !ok || 2*i+2 > len(im.versym) {
				return ""
			}
			v := le.Uint16(im.versym[2*i:])
			if r.IntN(2) == 0 {
				v ^= 0x8000
			} else {
				v = v&0x8000 | uint16(r.IntN(len(im.versions)))
			}
			le.PutUint16(im.versym[2*i:], v)
		}
		return fmt.Sprintf("%d versions of symbols changed", n)
	case k < 70: // names of versions and of others
		return b.renameVersion()
	case k < 80:
		return b.renameNeeded()
	case k < 88: // whole tables
		return b.dropTag()
	case k < 93: // references
		i, ok := b.referred()
		if !ok {
			return ""
		}
		e := im.symtab[i*24:][:24]
		switch r.IntN(3) {
		case 0:
			e[4] = e[4]&15 | byte(elf.STB_WEAK)<<4
		case 1:
			e[4] = e[4]&15 | byte(elf.STB_GLOBAL)<<4
		case 2:
			e[5] = e[5]&^3 | byte(r.IntN(4))
		}
		return "a reference changed"
	default:
		b.over = true
		return b.header()
	}
}

// exported is an index of a random defined symbol.
func (b *breaker) exported() (int, bool) {
	im := b.im
	if im.gnu.buckets == nil {
		return 0, false
	}
	for range 50 {
		bucket := im.u32(im.gnu.buckets[b.r.IntN(int(im.gnu.count))*4:])
		if bucket == 0 {
			continue
		}
		i := bucket
		for b.r.IntN(3) != 0 && im.u32(im.gnu.chain[(i-im.gnu.first)*4:])&1 == 0 {
			i++
		}
		if s, ok := im.symbol(i); ok && s.section != 0 {
			return int(i), true
		}
	}
	return 0, false
}

func (b *breaker) referred() (int, bool) {
	refs, err := b.im.references(false, &tally{})
	if err != nil || len(refs) == 0 {
		return 0, false
	}
	return int(refs[b.r.IntN(len(refs))].index), true
}

// entries calls f for each entry of the dynamic section.
func (b *breaker) entries(f func(entry []byte)) {
	le := binary.LittleEndian
	phoff, n := le.Uint64(b.data[32:]), int(le.Uint16(b.data[56:]))
	for i := range n {
		h := b.data[phoff+uint64(i)*56:]
		if elf.ProgType(le.Uint32(h)) != elf.PT_DYNAMIC {
			continue
		}
		for d := b.data[le.Uint64(h[8:]):][:le.Uint64(h[32:])]; len(d) >= 16 && le.Uint64(d) != 0; d = d[16:] {
			f(d[:16])
		}
	}
}

func (b *breaker) tag(tag elf.DynTag) (value uint64, entry []byte) {
	b.entries(func(e []byte) {
		if elf.DynTag(binary.LittleEndian.Uint64(e)) == tag {
			value, entry = binary.LittleEndian.Uint64(e[8:]), e
		}
	})
	return value, entry
}

func (b *breaker) renameVersion() string {
	le := binary.LittleEndian
	tag := elf.DT_VERDEF
	if b.r.IntN(2) == 0 {
		tag = elf.DT_VERNEED
	}
	addr, entry := b.tag(tag)
	if entry == nil {
		return ""
	}
	table := b.im.at(addr)
	// A walk over the entries, to stop at any.
	for {
		if tag == elf.DT_VERDEF {
			if next := le.Uint32(table[16:]); next != 0 && b.r.IntN(4) != 0 {
				table = table[next:]
				continue
			}
			switch aux := table[le.Uint32(table[12:]):]; b.r.IntN(4) {
			case 0:
				table[8] ^= 0x55
			case 1:
				b.im.strtab[le.Uint32(aux)] ^= 1
			case 2:
				le.PutUint16(table[4:], uint16(b.r.IntN(len(b.im.versions))))
			case 3:
				table[2] ^= 1
			}
			return "a defined version changed"
		}
		if next := le.Uint32(table[12:]); next != 0 && b.r.IntN(3) != 0 {
			table = table[next:]
			continue
		}
		aux := table[le.Uint32(table[8:]):]
		for le.Uint32(aux[12:]) != 0 && b.r.IntN(3) != 0 {
			aux = aux[le.Uint32(aux[12:]):]
		}
		switch b.r.IntN(5) {
		case 0:
			aux[0] ^= 0x55
		case 1:
			b.im.strtab[le.Uint32(aux[8:])+uint32(b.r.IntN(3))] ^= 1
		case 2:
			aux[4] ^= 2 // VER_FLG_WEAK
		case 3:
			aux[7] ^= 0x80 // vna_other, hidden
		case 4:
			aux[6] ^= 1
		}
		return "a needed version changed"
	}
}

func (b *breaker) renameNeeded() string {
	le := binary.LittleEndian
	var names [][]byte
	b.entries(func(e []byte) {
		if t := elf.DynTag(le.Uint64(e)); t == elf.DT_NEEDED || t == elf.DT_SONAME {
			names = append(names, e)
		}
	})
	if len(names) == 0 {
		return ""
	}
	e := names[b.r.IntN(len(names))]
	switch b.r.IntN(3) {
	case 0: // and whatever else has this name: the versions needed of it
		b.im.strtab[le.Uint64(e[8:])+3] ^= 1
		return "a needed name changed"
	case 1:
		other := names[b.r.IntN(len(names))]
		le.PutUint64(e[8:], le.Uint64(other[8:]))
		return "a needed name doubled"
	default:
		le.PutUint64(e, 0x6ffffd00)
		return "a needed name or SONAME dropped"
	}
}

func (b *breaker) dropTag() string {
	tags := []elf.DynTag{elf.DT_VERSYM, elf.DT_VERDEF, elf.DT_VERNEED, elf.DT_GNU_HASH, elf.DT_SONAME, elf.DT_RUNPATH, elf.DT_RPATH}
	tag := tags[b.r.IntN(len(tags))]
	_, entry := b.tag(tag)
	if entry == nil {
		return ""
	}
	switch {
	case tag == elf.DT_RUNPATH:
		binary.LittleEndian.PutUint64(entry, uint64(elf.DT_RPATH))
	case tag == elf.DT_RPATH:
		binary.LittleEndian.PutUint64(entry, uint64(elf.DT_RUNPATH))
	default:
		binary.LittleEndian.PutUint64(entry, 0x6ffffd00)
	}
	return "tag dropped: " + tag.String()
}

// header breaks what the loader looks at before anything else.
func (b *breaker) header() string {
	le := binary.LittleEndian
	k := b.r.IntN(8)
	if b.main { // the kernel or the loader of that machine would be asked
		k = 3 + b.r.IntN(2)
	}
	switch k {
	case 0:
		b.data[0] = 'x'
		return "no magic"
	case 1:
		b.data[4] = 1
		return "32 bits"
	case 2:
		le.PutUint16(b.data[18:], uint16(elf.EM_AARCH64))
		return "another machine"
	case 3:
		le.PutUint16(b.data[16:], uint16(elf.ET_REL))
		return "an object file"
	case 4:
		b.data[20] = 7
		return "another version of ELF"
	case 5:
		n := b.r.IntN(200)
		b.data = b.data[:min(n, len(b.data))]
		return fmt.Sprintf("cut to %d bytes", n)
	case 6:
		le.PutUint16(b.data[54:], 60)
		return "other program headers"
	default:
		b.data[5] = 2
		return "the other byte order"
	}
}
