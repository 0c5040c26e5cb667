package stale

import "encoding/binary"

// vector is what the kernel tells a program when it starts it (getauxval(3)).
type vector struct {
	layout
	phdr, phent, phnum uint64
	base               uint64 // of the loader; 0 if there is none
	entry              uint64
	execfn             uint64 // address of the name by which it was executed
}

// The types of auxiliary values.
const (
	atPhdr   = 3
	atPhent  = 4
	atPhnum  = 5
	atBase   = 7
	atEntry  = 9
	atExecFn = 31
)

// parseAuxv reads /proc/PID/auxv: pairs of words, of the size that the program
// has. The kernel's first values are small numbers with a type below 64, so
// that a 32-bit vector read as 64-bit shows itself at once.
func parseAuxv(raw []byte) (v vector, ok bool) {
	for _, wide := range []bool{true, false} {
		v = vector{layout: layout{wide, binary.NativeEndian}}
		if v.parse(raw) {
			return v, true
		}
	}
	return vector{}, false
}

func (v *vector) parse(raw []byte) bool {
	size := int(2 * v.word())
	for ; len(raw) >= size; raw = raw[size:] {
		value := v.at(raw, 1)
		switch v.at(raw, 0) {
		case 0:
			return v.phdr != 0 && v.phnum != 0
		case atPhdr:
			v.phdr = value
		case atPhent:
			v.phent = value
		case atPhnum:
			v.phnum = value
		case atBase:
			v.base = value
		case atEntry:
			v.entry = value
		case atExecFn:
			v.execfn = value
		default:
			if v.at(raw, 0) > 1<<16 {
				return false
			}
		}
	}
	return false
}
