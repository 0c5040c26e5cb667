package abi

import (
	"debug/dwarf"
	"encoding/binary"
	"fmt"
)

// typ is one type, as far as a caller depends on it.
type typ struct {
	tag        dwarf.Tag
	name       string
	size       int64 // bytes; -1 is not known
	encoding   int64 // of a basic type
	elem       dwarf.Offset
	count      int64 // of an array's elements; -1 is not known
	dimensions int   // of an array
	declared   bool  // and not defined
	unknown    bool  // not even what kind of type it is
	private    bool  // defined in a source file
	fields     []field
	values     map[string]int64 // of an enumeration
	virtual    map[int64]string // of a class: by slot
	function   *thing
}

// field is a member, or what a class is derived from.
type field struct {
	name   string
	off    int64 // bits
	bits   int64 // of a bit field, else 0
	of     dwarf.Offset
	parent bool
}

// typ reads the type at an offset, once. nil is void.
func (v *version) typ(off dwarf.Offset) (*typ, error) {
	if off == 0 {
		return nil, nil
	}
	if t, ok := v.types[off]; ok {
		return t, nil
	}
	e, err := v.at(off)
	if err != nil || e == nil {
		return nil, err
	}
	if e, err = v.inFull(e); e == nil {
		v.types[off] = v.types[unknownType]
		return v.types[off], err
	}
	t := &typ{tag: e.Tag, size: -1, count: -1}
	v.types[off] = t
	t.name, _ = e.Val(dwarf.AttrName).(string)
	t.elem = v.typeOf(e)
	t.declared, _ = e.Val(dwarf.AttrDeclaration).(bool)
	t.encoding, _ = e.Val(dwarf.AttrEncoding).(int64)
	if size, ok := e.Val(dwarf.AttrByteSize).(int64); ok {
		t.size = size
	}
	switch e.Tag {
	case dwarf.TagStructType, dwarf.TagClassType, dwarf.TagUnionType, dwarf.TagEnumerationType:
		if file := v.file(e); file != "" && !header(file) {
			t.private = true
		}
		err = v.members(e, t)
	case dwarf.TagArrayType:
		err = v.members(e, t)
	case dwarf.TagSubroutineType:
		t.function = &thing{isFunction: true, result: t.elem}
		err = v.params(e, t.function)
	}
	return t, err
}

// members reads what is in a struct, an enumeration or an array.
func (v *version) members(e *dwarf.Entry, t *typ) error {
	return v.children(e, func(m *dwarf.Entry) bool {
		switch m.Tag {
		case dwarf.TagMember, dwarf.TagInheritance:
			v.addField(t, m)
		case dwarf.TagEnumerator:
			if value, ok := m.Val(dwarf.AttrConstValue).(int64); ok {
				if t.values == nil {
					t.values = map[string]int64{}
				}
				name, _ := m.Val(dwarf.AttrName).(string)
				t.values[name] = value
			}
		case dwarf.TagSubrangeType:
			n := int64(-1)
			t.dimensions++
			if count, ok := m.Val(dwarf.AttrCount).(int64); ok {
				n = count
			} else if upper, ok := m.Val(dwarf.AttrUpperBound).(int64); ok {
				n = upper + 1
			}
			switch {
			case n < 0:
			case t.count < 0:
				t.count = n
			default: // of several dimensions
				t.count *= n
			}
		case dwarf.TagSubprogram:
			t.addVirtual(m)
		}
		return true
	})
}

func (v *version) addField(t *typ, m *dwarf.Entry) {
	if external, _ := m.Val(dwarf.AttrExternal).(bool); external {
		return // static: a variable of its own
	}
	f := field{parent: m.Tag == dwarf.TagInheritance}
	f.name, _ = m.Val(dwarf.AttrName).(string)
	f.of = v.typeOf(m)
	f.bits, _ = m.Val(dwarf.AttrBitSize).(int64)
	if off, ok := m.Val(dwarf.AttrDataMemberLoc).(int64); ok {
		f.off = off * 8
	} else if off, ok := operand(m, dwarf.AttrDataMemberLoc, opPlusUconst); ok { // of DWARF 2
		f.off = off * 8
	}
	if off, ok := m.Val(dwarf.AttrDataBitOffset).(int64); ok {
		f.off = off
	} else if off, ok := m.Val(dwarf.AttrBitOffset).(int64); ok { // before DWARF 4, counted from the highest bit
		if size, ok := m.Val(dwarf.AttrByteSize).(int64); ok && v.order == binary.LittleEndian {
			off = size*8 - off - f.bits
		}
		f.off += off
	}
	t.fields = append(t.fields, f)
}

// Location expressions of one operation that say where in a struct or a table
// something is.
const (
	opConstu     = 0x10
	opPlusUconst = 0x23
)

// operand is N of a location expression that is one operation: OP N.
func operand(e *dwarf.Entry, attr dwarf.Attr, op byte) (n int64, ok bool) {
	loc, ok := e.Val(attr).([]byte)
	if !ok || len(loc) < 2 || len(loc) > 10 || loc[0] != op {
		return 0, false
	}
	for i, b := range loc[1:] {
		n |= int64(b&0x7f) << (7 * i)
	}
	return n, true
}

// addVirtual notes a virtual function and its slot.
func (t *typ) addVirtual(m *dwarf.Entry) {
	slot, ok := operand(m, dwarf.AttrVtableElemLoc, opConstu)
	if !ok {
		return
	}
	name, _ := m.Val(dwarf.AttrLinkageName).(string)
	if name == "" {
		name, _ = m.Val(dwarf.AttrName).(string)
	}
	if t.virtual == nil {
		t.virtual = map[int64]string{}
	}
	t.virtual[slot] = name
}

// plain is the type without names and qualifiers for it.
func (v *version) plain(off dwarf.Offset) (*typ, dwarf.Offset, error) {
	for range maxDepth {
		t, err := v.typ(off)
		if t == nil || err != nil {
			return nil, 0, err
		}
		switch t.tag {
		case dwarf.TagTypedef, dwarf.TagConstType, dwarf.TagVolatileType, dwarf.TagRestrictType, dwarf.TagAtomicType:
			off = t.elem
		default:
			return t, off, nil
		}
	}
	return nil, 0, errTooMuch
}

// called is what a caller would write for the type.
func (v *version) called(off dwarf.Offset) string {
	t, err := v.typ(off)
	for range 8 {
		if err != nil {
			return "?"
		}
		if t == nil {
			return "void"
		}
		kind := map[dwarf.Tag]string{
			dwarf.TagStructType: "struct ", dwarf.TagUnionType: "union ", dwarf.TagClassType: "class ", dwarf.TagEnumerationType: "enum ",
		}[t.tag]
		switch t.tag {
		case dwarf.TagPointerType, dwarf.TagReferenceType, dwarf.TagRvalueReferenceType:
			mark := map[dwarf.Tag]string{dwarf.TagPointerType: "*", dwarf.TagReferenceType: "&", dwarf.TagRvalueReferenceType: "&&"}[t.tag]
			inner, err := v.typ(t.elem)
			if err == nil && inner != nil && (inner.tag == dwarf.TagPointerType || inner.tag == dwarf.TagConstType) {
				return "pointer"
			}
			return v.calledFlat(t.elem) + mark
		case dwarf.TagArrayType:
			return fmt.Sprintf("%s[%d]", v.calledFlat(t.elem), t.count)
		case dwarf.TagSubroutineType:
			return "function"
		case dwarf.TagConstType, dwarf.TagVolatileType, dwarf.TagRestrictType, dwarf.TagAtomicType:
			t, err = v.typ(t.elem)
			continue
		}
		if t.name == "" {
			return kind + "without a name"
		}
		return kind + short(t.name)
	}
	return "?"
}

// calledFlat is called for what another type is made of, without going on.
func (v *version) calledFlat(off dwarf.Offset) string {
	t, _, err := v.plain(off)
	switch {
	case err != nil:
		return "?"
	case t == nil:
		return "void"
	case t.name == "":
		return "…"
	}
	return short(t.name)
}
