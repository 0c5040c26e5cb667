package stale

import (
	"golang.org/x/sys/unix"
)

// Tags of the dynamic section.
const (
	dtRela   = 7
	dtRelasz = 8
	dtRel    = 17
	dtRelsz  = 18
	dtRelrsz = 35
	dtRelr   = 36
)

// relative is, for each machine, the type of the relocation that adds nothing
// but the base.
var relative = map[uint16]uint64{
	2: 22, 3: 8, 20: 22, 21: 22, 22: 12, 40: 23, 43: 22, 62: 8, 183: 1027, 243: 3, 258: 3,
}

const (
	mostRelocations = 1 << 20 // that are read of a file
	mostCompared    = 2048    // that are compared in each process
)

// relocations are the words of a file that the loader adds its base to and that
// it then makes read-only, and the file's dynamic section.
type relocations struct {
	words   []relocation
	dynamic []uint64
}

// relocation is one of these words.
type relocation struct {
	addr   uint64 // without the base
	addend uint64
	bare   uint64 // what the file has there
}

// private compares the private copies of a file's pages with what the loader
// would make of the file.
func (l *visit) private(u *used, f *elfFile, base uint64) string {
	if !l.openMemory() {
		return ""
	}
	r, ok := l.relocations.get(u.node, l.patience, func() (relocations, bool) {
		fd, err := l.openMapped(u.node, u.area)
		if err != nil {
			return relocations{}, !gone(err)
		}
		defer unix.Close(fd)
		return f.relocations(descriptorAt(fd)), true
	})
	if !ok {
		l.blind = true
		return ""
	}
	l.memory.reset(l.mem)
	if l.dynamicDiffers(f, base, r.dynamic) {
		return "it was overwritten in place: it is not laid out as when it was loaded"
	}
	bad, bare, all := l.wordsDiffer(f, base, r.words)
	switch {
	case bad == 0:
		return ""
	case (u.kind == KindLoader || u.kind == KindExe && f.interp == "") && 2*bad < all:
		// A loader changes some of its own words before it makes them read-only.
		return ""
	case !l.sealed(f, base):
		return "" // it is just being loaded
	case bare == bad:
		return "it was cut short and written again in place: what the loader had entered is lost"
	default:
		return "it was overwritten in place: what the loader has entered does not fit the file"
	}
}

// sealed says that the loader is done with the file: what it protects is
// read-only by now.
func (l *visit) sealed(f *elfFile, base uint64) bool {
	if f.relro.kind == 0 {
		return false
	}
	a, ok := l.areas.at(l.aux.trim(base + f.relro.addr))
	return ok && !a.writable
}

// dynamicDiffers compares the dynamic section: the loader adds its base to
// addresses in it, and enters one of its own.
func (l *visit) dynamicDiffers(f *elfFile, base uint64, want []uint64) bool {
	var has [2]uint64
	at := l.aux.trim(base + f.dynamic.addr)
	for i := 0; i+1 < len(want); i += 2 {
		if l.memory.words(f.layout, at+uint64(i)*f.word(), has[:]) != nil {
			return false
		}
		if has[0] != want[i] {
			return true
		}
		if has[1] != want[i+1] && has[1] != f.trim(want[i+1]+base) && has[0] != dtDebug && !ownTag(has[0]) {
			return true
		}
	}
	return false
}

// ownTag says that a tag's value is the loader's own matter: those of a machine
// or a system, such as MIPS's address of the loader's list.
func ownTag(tag uint64) bool { return tag >= 0x60000000 && tag < 0x6ffffd00 || tag >= 0x70000000 }

// wordsDiffer counts the words that are not what the loader would have made of
// the file, and those of them that are as the file has them.
func (l *visit) wordsDiffer(f *elfFile, base uint64, words []relocation) (bad, bare, all int) {
	var has [1]uint64
	for i := 0; i < len(words); i += 1 + len(words)/mostCompared {
		w := words[i]
		if l.memory.words(f.layout, l.aux.trim(base+w.addr), has[:]) != nil {
			continue
		}
		all++
		if has[0] != f.trim(base+w.addend) {
			bad++
			if has[0] == w.bare {
				bare++
			}
		}
	}
	return bad, bare, all
}
