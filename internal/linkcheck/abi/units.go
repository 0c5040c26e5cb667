package abi

import "debug/dwarf"

// unit is a compilation unit; its file names are read when they are wanted.
type unit struct {
	off   dwarf.Offset
	entry *dwarf.Entry
	files []*dwarf.LineFile
	known bool
	typed bool // it says of which types something is
}

// typed says that the unit of an entry tells types. With -g1 a compiler names
// functions and objects, and neither parameters nor types.
func (v *version) typed(e *dwarf.Entry) bool {
	u := v.unitOf(e.Offset)
	return u == nil || u.typed
}

// unknownType stands for a type of which nothing can be told: it is in a unit of
// its own that cannot be read.
const unknownType = ^dwarf.Offset(0)

// typeOf is where the type of an entry is; 0 is none, which means void.
func (v *version) typeOf(e *dwarf.Entry) dwarf.Offset {
	switch to := e.Val(dwarf.AttrType).(type) {
	case nil:
		return 0
	case dwarf.Offset:
		return to
	case uint64:
		if off, ok := v.signed[to]; ok {
			return off
		}
	}
	return unknownType
}

// inFull is the entry of a type for one that only names its signature; nil if it
// cannot be found.
func (v *version) inFull(e *dwarf.Entry) (*dwarf.Entry, error) {
	signature, ok := e.Val(dwarf.AttrSignature).(uint64)
	if !ok {
		return e, nil
	}
	off, ok := v.signed[signature]
	if !ok {
		return nil, nil
	}
	to, err := v.at(off)
	if err != nil || to == nil || to.Val(dwarf.AttrSignature) != nil {
		return nil, err
	}
	return to, nil
}

// typeUnit notes which type is in a type unit (-fdebug-types-section). Package
// debug/dwarf keeps the unit's header to itself, but it ends where the first
// entry begins. Those of DWARF 4 are in a section of their own, which is not
// read: their types are unknown.
func (v *version) typeUnit(e *dwarf.Entry) error {
	const size = 24 // length, version, kind, size of addresses, abbreviations, signature, offset of the type
	const kind = 2  // DW_UT_type
	if v.info.Size < uint64(e.Offset) || e.Offset < size {
		return nil
	}
	if v.infoData == nil {
		data, err := v.info.Data()
		if err != nil {
			return err
		}
		v.infoData = data
	}
	if uint64(len(v.infoData)) < uint64(e.Offset) {
		return nil
	}
	h := v.infoData[e.Offset-size : e.Offset]
	if v.order.Uint16(h[4:]) == 5 && h[6] == kind {
		v.signed[v.order.Uint64(h[12:])] = e.Offset - size + dwarf.Offset(v.order.Uint32(h[20:]))
	}
	return nil
}

// file is the name of the source file that an entry was declared in; "" if that
// is not known.
func (v *version) file(e *dwarf.Entry) string {
	n, ok := e.Val(dwarf.AttrDeclFile).(int64)
	if !ok {
		return ""
	}
	u := v.unitOf(e.Offset)
	if u == nil {
		return ""
	}
	if !u.known {
		u.known = true
		if lines, err := v.d.LineReader(u.entry); err == nil && lines != nil {
			u.files = lines.Files()
		}
	}
	if n < 0 || n >= int64(len(u.files)) || u.files[n] == nil {
		return ""
	}
	return u.files[n].Name
}

// unitOf is the unit that an entry is in: the last that begins before it.
func (v *version) unitOf(off dwarf.Offset) *unit {
	low, high := 0, len(v.units)
	for low < high {
		if mid := (low + high) / 2; v.units[mid].off <= off {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low == 0 {
		return nil
	}
	return &v.units[low-1]
}
