// Package abi compares what two versions of a library say of their types: what
// symbols do not show, and what breaks a program all the same. It reads DWARF.
//
// The rule of this room: only what callers can see counts. A struct that is
// declared and not defined where a function uses it, or defined in a source file
// and not in a header, is the library's own affair. Debug information is read
// with bounds, and what is malformed is an error, never a crash.
package abi

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Change is one difference that a caller built against the old version can
// stumble over. Names come from files and are not to be trusted on a terminal.
type Change struct {
	Symbol string // a function or object through which it is reached, as it is linked
	What   string // what has changed: "parameter 2", "struct point", "the result"
	Why    string // how: "was 8 bytes, is 12"

	// Sure says that callers see it: it is passed by value, or they define the
	// type themselves. Otherwise it may be the library's own affair.
	Sure bool
}

// String is the change in words.
func (c Change) String() string { return c.What + ": " + c.Why }

// Report is what Compare found.
type Report struct {
	Changes  []Change
	Compared int    // functions and objects of which both versions have types
	Why      string // why nothing could be compared; "" if something was
}

// Options say what is compared. The zero value is everything that the old
// version exports, with debug information in the files alone.
type Options struct {
	Symbols map[string]bool // only these, by name without version; nil is all

	// Seen are the structs, unions and classes, by name, that callers know the
	// inside of. nil says that this is not known.
	Seen map[string]bool

	// Debug opens a file that has the debug information of another, by build id
	// in lower case hexadecimal. nil, or an error, is none.
	Debug func(buildID string) (io.ReaderAt, int64, error)
}

// Limits, far above what libraries have that one waits for.
const (
	maxDebug   = 768 << 20  // bytes of debug information, uncompressed
	maxRatio   = 200        // times as large as it is in the file
	maxPairs   = 500_000    // types that are compared
	maxMembers = 20_000_000 // of structs that are compared, in all
	maxName    = 1000       // bytes of a name that is told
	maxChanges = 200
	maxDepth   = 100 // types in types
)

// Compare compares the types of what the old version exports and the new one
// too. A version without debug information is no error: Report.Why says so. An
// error says that a file cannot be read.
func Compare(ctx context.Context, old, new io.ReaderAt, oldSize, newSize int64, o Options) (r Report, err error) {
	// debug/elf and debug/dwarf have met hostile files, but they make no promise.
	defer func() {
		if p := recover(); p != nil {
			r, err = Report{}, fmt.Errorf("malformed debug information: %v", p)
		}
	}()
	exported, err := exports(old, o.Symbols)
	if err != nil {
		return r, fmt.Errorf("the old version: %w", err)
	}
	a, err := read(ctx, old, oldSize, exported, o)
	if err != nil {
		return r, fmt.Errorf("the old version: %w", err)
	}
	b, err := read(ctx, new, newSize, exported, o)
	if err != nil {
		return r, fmt.Errorf("the new version: %w", err)
	}
	switch {
	case len(exported) == 0:
		r.Why = "nobody uses it"
		return r, nil
	case a == nil && b == nil:
		r.Why = "neither version has debug information"
		return r, nil
	case a == nil:
		r.Why = "the old version has no debug information"
		return r, nil
	case b == nil:
		r.Why = "the new version has no debug information"
		return r, nil
	}
	c := &comparer{old: a, new: b, visible: o.Seen, seen: map[pair]bool{}}
	for _, name := range sortedNames(a.things) {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		was, is := a.things[name], b.things[name]
		if is == nil {
			continue // gone, or without types: the symbol check tells the first
		}
		r.Compared++
		c.thing(name, was, is)
	}
	if r.Compared == 0 {
		r.Why = "the debug information has no function or object that is used"
	}
	r.Changes = c.changes
	return r, c.err
}

// exports are the names of the defined dynamic symbols that are wanted.
func exports(f io.ReaderAt, wanted map[string]bool) (map[string]bool, error) {
	e, err := elf.NewFile(f)
	if err != nil {
		return nil, err
	}
	symbols, err := e.DynamicSymbols()
	if errors.Is(err, elf.ErrNoSymbols) {
		err = nil
	}
	found := map[string]bool{}
	for _, s := range symbols {
		if s.Section != elf.SHN_UNDEF && (wanted == nil || wanted[s.Name]) {
			found[s.Name] = true
		}
	}
	return found, err
}

// Caller is what a program or library knows of those that it uses.
type Caller struct {
	Imports []string // names of the symbols that it takes from others
	Debug   bool     // it has debug information, so that Defines is known
	Defines []string // names of the structs, unions and classes that it knows the inside of
}

// ReadCaller reads what a program or library takes from others.
func ReadCaller(ctx context.Context, f io.ReaderAt, size int64, o Options) (c Caller, err error) {
	defer func() {
		if p := recover(); p != nil {
			c, err = Caller{}, fmt.Errorf("malformed: %v", p)
		}
	}()
	e, err := elf.NewFile(f)
	if err != nil {
		return c, err
	}
	symbols, err := e.DynamicSymbols()
	if errors.Is(err, elf.ErrNoSymbols) {
		err = nil
	}
	if err != nil {
		return c, err
	}
	for _, s := range symbols {
		// One with an address is a function whose address the program has, or an
		// object that it copies.
		if s.Section == elf.SHN_UNDEF || elf.ST_TYPE(s.Info) == elf.STT_OBJECT {
			c.Imports = append(c.Imports, s.Name)
		}
	}
	v, err := read(ctx, f, size, nil, o)
	if v == nil || err != nil {
		return c, err
	}
	c.Debug = true
	for name := range v.defined {
		c.Defines = append(c.Defines, name)
	}
	return c, nil
}

func sortedNames[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// header says that a type that is defined in this file is for callers to see.
func header(file string) bool {
	name := file[strings.LastIndexByte(file, '/')+1:]
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 {
		return true // C++'s own have no ending
	}
	switch strings.ToLower(name[dot:]) {
	case ".h", ".hh", ".hpp", ".hxx", ".h++", ".inc", ".inl", ".ipp", ".tcc", ".def":
		return true
	}
	return false
}
