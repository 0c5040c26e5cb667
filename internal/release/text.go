package release

import (
	"bytes"
	"fmt"
)

// Text is the text of a manifest in which single entries are looked up. That is
// faster than [Parse] where few are wanted, and finds nothing wrong with the rest.
type Text struct {
	lines []byte // of the entries
}

// ReadText takes the text of a manifest, which must not change any more. Errors
// are those of Parse about what stands before the entries.
func ReadText(text []byte) (*Text, error) {
	p := parser{text: text, names: map[string]string{}}
	if _, err := p.header(&Manifest{}); err != nil {
		return nil, fmt.Errorf("manifest: line %d: %w", max(p.line, 1), err)
	}
	return &Text{p.text}, nil
}

// Find returns the entry with that path, or nil; nil, too, where the lines are not
// what Parse would read.
func (t *Text) Find(path string) *Entry {
	p := parser{names: map[string]string{}}
	for lo, hi := 0, len(t.lines); lo < hi; {
		mid := int(uint(lo+hi) >> 1)
		start := lo + bytes.LastIndexByte(t.lines[lo:mid], '\n') + 1
		n := bytes.IndexByte(t.lines[start:hi], '\n')
		if n < 0 {
			return nil
		}
		var e Entry
		if p.entry(t.lines[start:start+n], &e) != nil {
			return nil
		}
		switch {
		case e.Path == path:
			return &e
		case e.Path < path:
			lo = start + n + 1
		default:
			hi = start
		}
	}
	return nil
}
