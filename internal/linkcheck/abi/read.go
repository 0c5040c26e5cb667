package abi

import (
	"context"
	"debug/dwarf"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"strings"
)

// version is the debug information of one version of a library.
type version struct {
	d        *dwarf.Data
	r        *dwarf.Reader
	order    binary.ByteOrder
	left     int // entries that may still be read
	text     int // bytes of names and the like that they may still have
	things   map[string]*thing
	types    map[dwarf.Offset]*typ
	units    []unit // in order
	info     *elf.Section
	infoData []byte                  // read if it has type units
	signed   map[uint64]dwarf.Offset // types in units of their own, by signature

	defined map[string]bool // names of structs that are not only declared
}

// thing is a function or object that is exported.
type thing struct {
	isFunction bool
	params     []dwarf.Offset // types
	variadic   bool
	result     dwarf.Offset // or the object's type; 0 is none
}

var (
	errTooMuch = errors.New("malformed debug information: it leads round in circles")
	errTooLong = errors.New("malformed debug information: its names are longer than all of it")
)

// read reads the functions and objects of these names; nil if there is no debug
// information.
func read(ctx context.Context, f io.ReaderAt, size int64, wanted map[string]bool, o Options) (*version, error) {
	e, err := elf.NewFile(f)
	if err != nil {
		return nil, err
	}
	if s := e.Section(".debug_info"); s == nil || s.Type == elf.SHT_NOBITS {
		if e, err = separate(e, o); e == nil || err != nil {
			return nil, err
		}
	}
	var all uint64
	info := &elf.Section{}
	for _, s := range e.Sections {
		if !strings.HasPrefix(s.Name, ".debug_") && !strings.HasPrefix(s.Name, ".zdebug_") || s.Type == elf.SHT_NOBITS {
			continue
		}
		if all += s.Size; all > maxDebug || s.Size > maxRatio*s.FileSize+4096 {
			return nil, errors.New("the debug information is too large")
		}
		if s.Name == ".debug_info" {
			info = s
		}
	}
	d, err := e.DWARF()
	if err != nil {
		return nil, err
	}
	// Each entry takes a byte at least; those that are looked up a second time
	// are remembered. Names stand once for all entries that have them, but are
	// read for each.
	v := &version{
		d: d, r: d.Reader(), order: e.ByteOrder, left: int(info.Size)*2 + 1<<16, text: int(all)*16 + 16<<20, info: info, signed: map[uint64]dwarf.Offset{},
		things: map[string]*thing{}, types: map[dwarf.Offset]*typ{unknownType: {unknown: true}}, defined: map[string]bool{},
	}
	return v, v.walk(ctx, wanted)
}

// separate opens the file that has the debug information of another.
func separate(e *elf.File, o Options) (*elf.File, error) {
	if o.Debug == nil {
		return nil, nil
	}
	id := buildID(e)
	if id == "" {
		return nil, nil
	}
	f, _, err := o.Debug(id)
	if err != nil {
		return nil, nil
	}
	d, err := elf.NewFile(f)
	if err != nil {
		return nil, err
	}
	if s := d.Section(".debug_info"); s == nil || s.Type == elf.SHT_NOBITS || buildID(d) != id {
		return nil, nil
	}
	return d, nil
}

func buildID(e *elf.File) string {
	s := e.Section(".note.gnu.build-id")
	if s == nil || s.Size < 16 || s.Size > 256 {
		return ""
	}
	b, err := s.Data()
	if err != nil || len(b) < 16 {
		return ""
	}
	n := e.ByteOrder.Uint32(b[4:])
	if e.ByteOrder.Uint32(b) != 4 || n > uint32(len(b)-16) {
		return ""
	}
	return hex.EncodeToString(b[16 : 16+n])
}

// next is the next entry, within bounds.
func (v *version) next() (*dwarf.Entry, error) {
	if v.left--; v.left < 0 {
		return nil, errTooMuch
	}
	if v.text < 0 {
		return nil, errTooLong
	}
	e, err := v.r.Next()
	if e == nil || err != nil {
		return nil, err
	}
	for i := range e.Field {
		switch val := e.Field[i].Val.(type) {
		case string:
			v.text -= len(val)
		case []byte:
			v.text -= len(val)
		}
	}
	return e, nil
}

// at is the entry at an offset.
func (v *version) at(off dwarf.Offset) (*dwarf.Entry, error) {
	v.r.Seek(off)
	return v.next()
}

// walk finds the functions and objects in all units.
func (v *version) walk(ctx context.Context, wanted map[string]bool) error {
	var found []*dwarf.Entry
	scope := 0 // namespaces that we are in
	for {
		e, err := v.next()
		if err != nil {
			return err
		}
		if e == nil {
			break
		}
		switch e.Tag {
		case dwarf.TagCompileUnit, dwarf.TagPartialUnit, dwarf.TagTypeUnit:
			if err := ctx.Err(); err != nil {
				return err
			}
			v.units = append(v.units, unit{off: e.Offset, entry: e})
			if e.Tag == dwarf.TagTypeUnit {
				if err := v.typeUnit(e); err != nil {
					return err
				}
			}
			scope = 0
			continue
		case dwarf.TagNamespace:
			if e.Children {
				scope++
			}
			continue
		case 0: // the end of a list
			scope--
			continue
		case dwarf.TagStructType, dwarf.TagClassType, dwarf.TagUnionType:
			if declared, _ := e.Val(dwarf.AttrDeclaration).(bool); !declared {
				name, _ := e.Val(dwarf.AttrName).(string)
				v.defined[name] = true
			}
		case dwarf.TagSubprogram, dwarf.TagVariable:
			if declared, _ := e.Val(dwarf.AttrDeclaration).(bool); !declared {
				found = append(found, e)
			}
		}
		if len(v.units) > 0 && (e.Tag == dwarf.TagBaseType || e.Val(dwarf.AttrType) != nil) {
			v.units[len(v.units)-1].typed = true
		}
		if e.Children {
			if err := v.skip(); err != nil {
				return err
			}
		}
	}
	for _, e := range found {
		if err := v.thing(e, wanted); err != nil {
			return err
		}
	}
	return nil
}

// skip passes over the children of the entry that was read last. What they say
// of where they end is not believed.
func (v *version) skip() error {
	for depth := 1; depth > 0; {
		e, err := v.next()
		if err != nil {
			return err
		}
		switch {
		case e == nil:
			return nil
		case e.Tag == 0:
			depth--
		case e.Children:
			depth++
		}
	}
	return nil
}

// thing notes a function or object, if it is wanted and known by its definition.
func (v *version) thing(e *dwarf.Entry, wanted map[string]bool) error {
	whole := []*dwarf.Entry{e}
	for range 4 { // the definition of what was declared in a class, or inlined elsewhere
		last := whole[len(whole)-1]
		off, ok := last.Val(dwarf.AttrSpecification).(dwarf.Offset)
		if !ok {
			if off, ok = last.Val(dwarf.AttrAbstractOrigin).(dwarf.Offset); !ok {
				break
			}
		}
		more, err := v.at(off)
		if err != nil {
			return err
		}
		if more == nil {
			break
		}
		whole = append(whole, more)
	}
	name, external, typed := "", false, v.typed(e)
	for _, part := range whole {
		if is, _ := part.Val(dwarf.AttrPrototyped).(bool); is {
			typed = true
		}
		if s, ok := part.Val(dwarf.AttrLinkageName).(string); ok && name == "" {
			name = s
		}
		if is, _ := part.Val(dwarf.AttrExternal).(bool); is {
			external = true
		}
	}
	for _, part := range whole {
		if s, ok := part.Val(dwarf.AttrName).(string); ok && name == "" {
			name = s
		}
	}
	if !external || !typed || !wanted[name] || v.things[name] != nil {
		return nil
	}
	t := &thing{isFunction: e.Tag == dwarf.TagSubprogram}
	for _, part := range whole {
		if t.result == 0 {
			t.result = v.typeOf(part)
		}
	}
	if t.isFunction {
		for _, part := range whole { // the one that has them
			if err := v.params(part, t); err != nil {
				return err
			}
			if len(t.params) > 0 || t.variadic {
				break
			}
		}
	}
	v.things[name] = t
	return nil
}

// children yields the entries directly below e, until one says false.
func (v *version) children(e *dwarf.Entry, yield func(*dwarf.Entry) bool) error {
	if !e.Children {
		return nil
	}
	v.r.Seek(e.Offset)
	if _, err := v.next(); err != nil {
		return err
	}
	for {
		below, err := v.next()
		if err != nil || below == nil || below.Tag == 0 || !yield(below) {
			return err
		}
		if below.Children {
			if err := v.skip(); err != nil {
				return err
			}
		}
	}
}

// params reads the parameters of a function or of a type of functions.
func (v *version) params(e *dwarf.Entry, t *thing) error {
	return v.children(e, func(p *dwarf.Entry) bool {
		switch p.Tag {
		case dwarf.TagFormalParameter:
			off := v.typeOf(p)
			if _, inlined := p.Val(dwarf.AttrAbstractOrigin).(dwarf.Offset); off == 0 && inlined {
				return false // they are those of the function's origin, which comes next
			}
			t.params = append(t.params, off)
		case dwarf.TagUnspecifiedParameters:
			t.variadic = true
		}
		return true
	})
}
