package abi

import (
	"debug/dwarf"
	"fmt"
	"slices"
	"strings"
)

// comparer walks the types of both versions side by side.
type comparer struct {
	old, new *version
	visible  map[string]bool // nil: not known
	unsure   bool            // what we are in may be nobody's affair
	seen     map[pair]bool
	members  int // that were compared
	changes  []Change
	symbol   string // that we have come from
	err      error
}

type pair struct {
	old, new dwarf.Offset
	pointed  bool
	unsure   bool
}

func (c *comparer) add(what, format string, args ...any) {
	ch := Change{c.symbol, what, fmt.Sprintf(format, args...), !c.unsure}
	for i := range c.changes {
		if have := &c.changes[i]; have.What == ch.What && have.Why == ch.Why && isType(what) {
			have.Sure = have.Sure || ch.Sure // the same type, reached from another function
			return
		}
	}
	if len(c.changes) < maxChanges {
		c.changes = append(c.changes, ch)
	}
}

// isType says that a change is of a type, wherever it is used.
func isType(what string) bool {
	for _, kind := range []string{"struct ", "union ", "class ", "enum "} {
		if strings.HasPrefix(what, kind) {
			return true
		}
	}
	return false
}

// thing compares a function or object.
func (c *comparer) thing(name string, was, is *thing) {
	c.symbol = name
	if was.isFunction != is.isFunction {
		return // the symbol check tells
	}
	if !was.isFunction {
		c.object(was.result, is.result)
		return
	}
	c.signature("", was, is, 0)
}

// signature compares what a function takes and gives.
func (c *comparer) signature(of string, was, is *thing, depth int) {
	if len(was.params) != len(is.params) {
		c.add(of+"parameters", "took %d, takes %d", len(was.params), len(is.params))
	} else {
		for i := range was.params {
			c.types(fmt.Sprintf("%sparameter %d", of, i+1), was.params[i], is.params[i], depth+1, false)
		}
	}
	if was.variadic != is.variadic {
		c.add(of+"parameters", "a list that was open is closed, or the other way")
	}
	c.types(of+"the result", was.result, is.result, depth+1, false)
}

// types compares two types; pointed says that a pointer leads to them, so that a
// caller may never see what they are.
func (c *comparer) types(what string, was, is dwarf.Offset, depth int, pointed bool) {
	if c.err != nil || depth > maxDepth || len(c.changes) >= maxChanges || len(c.seen) >= maxPairs {
		return
	}
	what = what[:min(len(what), 4*maxName)]
	a, aOff, err := c.old.plain(was)
	if err != nil {
		c.err = err
		return
	}
	b, bOff, err := c.new.plain(is)
	if err != nil {
		c.err = err
		return
	}
	p := pair{aOff, bOff, pointed, c.unsure}
	if c.seen[p] && aOff != 0 {
		return
	}
	c.seen[p] = true
	switch {
	case a == nil && b == nil, a != nil && a.unknown, b != nil && b.unknown:
		return
	case a == nil || b == nil:
		if !pointed { // to void: anything may be meant
			c.add(what, "was %s, is %s", c.old.called(was), c.new.called(is))
		}
		return
	}
	ka, kb := kindOf(a), kindOf(b)
	if pointed && (ka == kindRecord && (a.declared || a.private) || kb == kindRecord && (b.declared || b.private)) {
		return // callers cannot look into it
	}
	if pointed && ka == kindRecord && a.name != "" {
		if c.visible != nil && !c.visible[a.name] {
			return
		}
		if was := c.unsure; c.visible == nil && !was {
			c.unsure = true
			defer func() { c.unsure = was }()
		}
	}
	if whole(ka, a) && whole(kb, b) && a.size == b.size {
		if ka == kindEnum && kb == kindEnum {
			c.enums(a, b)
		}
		return
	}
	if ka != kb {
		c.add(what, "was %s, is %s", c.old.called(was), c.new.called(is))
		return
	}
	switch ka {
	case kindPointer:
		c.types(what, a.elem, b.elem, depth+1, true)
	case kindRecord:
		c.records(a, b, depth)
	case kindArray:
		if a.count != b.count && a.count >= 0 && b.count >= 0 && !pointed {
			c.add(what, "was an array of %d, is one of %d", a.count, b.count)
			return
		}
		c.types(what, a.elem, b.elem, depth+1, pointed)
	case kindEnum:
		c.add(what, "an enumeration of %s, now of %s", inBytes(a.size), inBytes(b.size))
	case kindFunction:
		if a.function != nil && b.function != nil {
			c.signature(what+", which is a function: ", a.function, b.function, depth+1)
		}
	case kindBasic:
		if a.size != b.size || class(a.encoding) != class(b.encoding) {
			c.add(what, "was %s (%s), is %s (%s)", c.old.called(was), inBytes(a.size), c.new.called(is), inBytes(b.size))
		}
	default:
		if a.size != b.size {
			c.add(what, "was %s, is %s", inBytes(a.size), inBytes(b.size))
		}
	}
}

func inBytes(n int64) string {
	if n == 1 {
		return "1 byte"
	}
	return fmt.Sprintf("%d bytes", n)
}

// records compares structs, unions and classes.
func (c *comparer) records(a, b *typ, depth int) {
	if a.declared || b.declared {
		return
	}
	if c.members += len(a.fields) + len(b.fields); c.members > maxMembers {
		return
	}
	what := recordName(a)
	changed := len(c.changes)
	have := map[string]field{}
	for i, f := range b.fields {
		have[fieldKey(f, i)] = f
	}
	for i, f := range a.fields {
		name := short(f.name)
		if f.parent {
			name = "what it is derived from"
		} else if name == "" {
			name = fmt.Sprintf("member %d", i+1)
		}
		g, ok := have[fieldKey(f, i)]
		switch {
		case !ok:
			// Renamed, if something of the same type stands in the same place.
			if i < len(b.fields) && b.fields[i].off == f.off && !f.parent {
				g = b.fields[i]
			} else {
				c.add(what, "%s is gone", name)
				continue
			}
		case f.off != g.off || f.bits != g.bits:
			c.add(what, "%s was at %s, is at %s", name, place(f), place(g))
			continue
		}
		c.types(what+", member "+name, f.of, g.of, depth+1, false)
	}
	c.vtables(what, a, b)
	if a.size != b.size && a.size >= 0 && b.size >= 0 && len(c.changes) == changed {
		c.add(what, "was %s, is %s: who makes one makes it too small or too large", inBytes(a.size), inBytes(b.size))
	}
}

func fieldKey(f field, i int) string {
	if f.parent || f.name == "" {
		return fmt.Sprintf("\x00%v %d", f.parent, i)
	}
	return f.name
}

func place(f field) string {
	if f.bits > 0 || f.off%8 != 0 {
		return fmt.Sprintf("bit %d, %d long", f.off, f.bits)
	}
	return fmt.Sprintf("byte %d", f.off/8)
}

func recordName(t *typ) string {
	kind := map[dwarf.Tag]string{dwarf.TagUnionType: "union", dwarf.TagClassType: "class"}[t.tag]
	if kind == "" {
		kind = "struct"
	}
	if t.name == "" {
		return kind + " without a name"
	}
	return kind + " " + short(t.name)
}

// short is as much of a name as is told. A hostile one would be written once for
// each type that it leads to.
func short(name string) string { return name[:min(len(name), maxName)] }

// vtables compares the virtual functions of a class.
func (c *comparer) vtables(what string, a, b *typ) {
	slots := make([]int64, 0, len(a.virtual))
	for slot := range a.virtual {
		slots = append(slots, slot)
	}
	slices.Sort(slots)
	for _, slot := range slots {
		if is := b.virtual[slot]; is != a.virtual[slot] {
			if is == "" {
				is = "none"
			}
			c.add(what, "virtual function %d was %s, is %s", slot, short(a.virtual[slot]), short(is))
			return // the rest has moved with it
		}
	}
	if len(b.virtual) > len(a.virtual) {
		c.add(what, "had %d virtual functions, has %d: what is derived from it lacks some", len(a.virtual), len(b.virtual))
	}
}

// enums compares enumerations: a value that a caller has been built with must
// mean the same.
func (c *comparer) enums(a, b *typ) {
	for _, name := range sortedNames(a.values) {
		if is, ok := b.values[name]; ok && is != a.values[name] {
			c.add("enum "+short(a.name), "%s was %d, is %d", short(name), a.values[name], is)
		}
	}
}

type kind int

const (
	kindOther kind = iota
	kindBasic
	kindPointer
	kindRecord
	kindArray
	kindEnum
	kindFunction
)

func kindOf(t *typ) kind {
	switch t.tag {
	case dwarf.TagBaseType:
		return kindBasic
	case dwarf.TagPointerType, dwarf.TagReferenceType, dwarf.TagRvalueReferenceType:
		return kindPointer
	case dwarf.TagStructType, dwarf.TagClassType, dwarf.TagUnionType:
		return kindRecord
	case dwarf.TagArrayType:
		return kindArray
	case dwarf.TagEnumerationType:
		return kindEnum
	case dwarf.TagSubroutineType:
		return kindFunction
	}
	return kindOther
}

// whole says that the type is a whole number, by whichever name.
func whole(k kind, t *typ) bool {
	return k == kindEnum || k == kindBasic && class(t.encoding) == class(unsignedNumber)
}

const unsignedNumber = 7 // DW_ATE_unsigned

// class tells apart what is passed in other registers, or means something else:
// signed and unsigned numbers and characters are one.
func class(encoding int64) int64 {
	const boolean, complexFloat, float, signedNumber, signedChar, unsignedChar, utf = 2, 3, 4, 5, 6, 8, 16
	switch encoding {
	case boolean, complexFloat, float:
		return encoding
	case signedNumber, signedChar, unsignedChar, utf:
		return unsignedNumber
	}
	return encoding
}
