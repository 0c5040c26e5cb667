package abi

import (
	"debug/dwarf"
	"errors"
)

// object compares the types of an object. It may grow at its end, as tables and
// texts do from version to version: who has been built with the old one does not
// go beyond that, and where a program has a copy of it, the symbol check tells.
func (c *comparer) object(was, is dwarf.Offset) {
	a, _, err := c.old.plain(was)
	b, _, err2 := c.new.plain(is)
	if c.err = errors.Join(err, err2); c.err != nil {
		return
	}
	const what = "the object"
	if a == nil || b == nil || a.tag != b.tag {
		c.types(what, was, is, 0, false)
		return
	}
	switch {
	case a.tag == dwarf.TagArrayType && a.dimensions == 1 && b.dimensions == 1 && (a.count <= b.count || c.old.isText(a)):
		c.types(what, a.elem, b.elem, 1, false)
	case kindOf(a) == kindRecord && a.size < b.size:
		grown := *b
		grown.size = a.size
		c.records(a, &grown, 0)
	default:
		c.types(what, was, is, 0, false)
	}
}

// isText says that an array is a text that is not changed: it ends where it ends.
func (v *version) isText(t *typ) bool {
	e, err := v.typ(t.elem)
	if err != nil || e == nil || e.tag != dwarf.TagConstType {
		return false
	}
	e, _, err = v.plain(t.elem)
	const signedChar, unsignedChar = 6, 8
	return err == nil && e != nil && (e.encoding == signedChar || e.encoding == unsignedChar)
}
