package release

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrNewer says that a manifest, a packed release or a cache was written in a
// format of which this moult knows nothing yet.
var ErrNewer = errors.New("its format is newer than this moult")

// Parse reads the text of a manifest and checks it ([Manifest.Check]). Only the
// canonical form is read, so that Parse(b).Encode() is b. Errors name the line.
// The manifest does not hold on to text, and takes at most some ten times its
// size in memory.
func Parse(text []byte) (*Manifest, error) {
	p := parser{text: text, names: map[string]string{}}
	m, err := p.manifest()
	if err != nil {
		return nil, fmt.Errorf("manifest: line %d: %w", max(p.line, 1), err)
	}
	return m, nil
}

type parser struct {
	text  []byte
	line  int               // of the line that next returned
	names map[string]string // owners, groups and names of attributes, each once in memory
}

var errTruncated = errors.New("the manifest ends here: it is truncated")

// next takes a line, without its newline.
func (p *parser) next() ([]byte, error) {
	p.line++
	i := bytes.IndexByte(p.text, '\n')
	if i < 0 {
		return nil, errTruncated
	}
	line := p.text[:i]
	p.text = p.text[i+1:]
	return line, nil
}

func (p *parser) manifest() (*Manifest, error) {
	if len(p.text) > maxManifest {
		return nil, fmt.Errorf("%d bytes are more than the %d that a manifest can have", len(p.text), maxManifest)
	}
	m := &Manifest{}
	n, err := p.header(m)
	if err != nil {
		return nil, err
	}
	// An entry has 19 bytes at the least, so the number cannot ask for more
	// memory than the text is worth.
	if n > len(p.text)/19 {
		return nil, fmt.Errorf("%d entries are announced: the manifest is truncated", n)
	}
	m.Entries = make([]Entry, n)
	c := newChecker(m)
	for i := range m.Entries {
		line, err := p.next()
		if err != nil {
			return nil, err
		}
		if err := p.entry(line, &m.Entries[i]); err != nil {
			return nil, err
		}
		if err := c.check(i); err != nil {
			return nil, err
		}
	}
	if len(p.text) > 0 {
		p.line++
		return nil, fmt.Errorf("there is more after the %d entries that are announced", n)
	}
	return m, nil
}

// header reads the lines up to "entries" and returns their number.
func (p *parser) header(m *Manifest) (int, error) {
	line, err := p.next()
	if err != nil {
		return 0, err
	}
	if err := checkFormat(string(line), manifestMagic); err != nil {
		return 0, err
	}
	order := []string{"name", "version", "times", "before", "after", "timeout", "restart", "plugins", "entries"}
	for {
		line, err := p.next()
		if err != nil {
			return 0, err
		}
		key, rest, _ := strings.Cut(string(line), " ")
		for len(order) > 0 && order[0] != key {
			order = order[1:]
		}
		if len(order) == 0 {
			return 0, fmt.Errorf("%.40q is not known, or not in its place", key)
		}
		order = order[1:]
		if key == "entries" {
			n, err := parseInt([]byte(rest))
			if err != nil || n < 0 || n > maxEntries {
				return 0, fmt.Errorf("%.40q is not a number of entries", rest)
			}
			return int(n), m.checkHeader()
		}
		if err := p.headerLine(m, key, rest); err != nil {
			return 0, err
		}
	}
}

func (p *parser) headerLine(m *Manifest, key, rest string) error {
	if key == "times" {
		m.Times = true
		if rest != "" {
			return fmt.Errorf("times takes no value")
		}
		return nil
	}
	value, ok := unescape([]byte(rest), false)
	if !ok || value == "" {
		return fmt.Errorf("%s: %.40q is not written as it should be", key, rest)
	}
	switch key {
	case "name":
		m.Name = value
	case "version":
		m.Version = value
	case "before":
		m.Hooks.Before = value
	case "after":
		m.Hooks.After = value
	case "timeout":
		n, err := parseInt([]byte(value))
		if err != nil || n <= 0 {
			return fmt.Errorf("timeout: %.40q is not a time in nanoseconds", value)
		}
		m.Hooks.Timeout = n
	case "restart":
		var err error
		if m.Restart, err = decodeRules[RestartRule](value); err != nil {
			return fmt.Errorf("restart: %w", err)
		}
	case "plugins":
		var err error
		if m.Plugins, err = decodeRules[PluginRule](value); err != nil {
			return fmt.Errorf("plugins: %w", err)
		}
	}
	return nil
}

// checkFormat checks a first line, which is magic and a number.
func checkFormat(line, magic string) error {
	n, err := strconv.Atoi(strings.TrimPrefix(line, magic))
	switch {
	case err != nil || !strings.HasPrefix(line, magic) || line != magic+strconv.Itoa(n) || n < 1:
		return fmt.Errorf("%.40q is not %q and a number", line, strings.TrimSpace(magic))
	case n > formatNumber:
		return fmt.Errorf("format %d: %w", n, ErrNewer)
	}
	return nil
}

// entry reads one line. What a field holds is checked here; whether the entry
// makes sense, by the checker.
func (p *parser) entry(line []byte, e *Entry) error {
	var f [8][]byte
	rest := line
	for i := range f {
		var ok bool
		if f[i], rest, ok = bytes.Cut(rest, []byte{' '}); !ok || len(f[i]) == 0 {
			return fmt.Errorf("an entry has nine fields, %.60q has not", line)
		}
	}
	var ok bool
	if e.Path, ok = unescape(rest, false); !ok {
		return fmt.Errorf("path %.60q is not written as it should be", rest)
	}
	if err := p.fields(&f, e); err != nil {
		return fmt.Errorf("%.200q: %w", e.Path, err)
	}
	return nil
}

func (p *parser) fields(f *[8][]byte, e *Entry) error {
	if !is(f[0], "f") && !is(f[0], "d") && !is(f[0], "l") {
		return fmt.Errorf("type %.20q is not known", f[0])
	}
	e.Type = Type(f[0][0])
	if !is(f[1], "-") || e.Type != Symlink {
		if !parseMode(f[1], &e.Mode) || e.Type == Symlink {
			return fmt.Errorf("mode %.20q is not four octal digits", f[1])
		}
	}
	for i, s := range []*string{&e.Owner, &e.Group} {
		if err := p.name(f[2+i], s); err != nil {
			return err
		}
	}
	if e.Type == File || !is(f[4], "-") || !is(f[5], "-") {
		var err error
		if e.Size, err = parseInt(f[4]); err != nil || e.Type != File {
			return fmt.Errorf("size %.40q is not one", f[4])
		}
		if len(f[5]) != hex.EncodedLen(len(e.Digest)) || !parseHex(e.Digest[:], f[5]) || e.Digest.IsZero() {
			return fmt.Errorf("digest %.70q is not the SHA-256 of something", f[5])
		}
	}
	if !is(f[6], "-") {
		var err error
		if e.MTime, err = parseInt(f[6]); err != nil || e.MTime == 0 {
			return fmt.Errorf("modification time %.40q is not one", f[6])
		}
	}
	if is(f[7], "-") {
		return nil
	}
	return p.attrs(f[7], e)
}

func (p *parser) name(field []byte, s *string) error {
	if is(field, "-") {
		return nil
	}
	if name, ok := p.names[string(field)]; ok {
		*s = name
		return nil
	}
	name, ok := unescape(field, true)
	if string(field) == `\x2d` {
		name, ok = "-", true
	}
	if !ok {
		return fmt.Errorf("owner or group %.60q is not written as it should be", field)
	}
	p.names[string(field)] = name
	*s = name
	return nil
}

// attrs reads the attributes, which must be in order.
func (p *parser) attrs(field []byte, e *Entry) error {
	bad := func(item []byte) error {
		return fmt.Errorf("attribute %.60q is not known, or not written as it should be", item)
	}
	stage := 0 // of the order sparse, keep, text, link, x
	last := ""
	for more := true; more; {
		var item []byte
		item, field, more = bytes.Cut(field, []byte{','})
		key, value, hasValue := bytes.Cut(item, []byte{'='})
		at, ok := 0, hasValue
		switch {
		case is(key, "sparse"):
			at, e.Sparse, ok = 1, true, !hasValue
		case is(key, "keep"):
			at, e.Keep, ok = 2, true, !hasValue
		case is(key, "text") && hasValue:
			at = 3
			e.Text, ok = unescape(value, true)
			ok = ok && e.Text != ""
		case is(key, "link") && hasValue:
			at = 4
			e.HardLink, ok = unescape(value, true)
			ok = ok && e.HardLink != ""
		case bytes.HasPrefix(key, []byte("x.")) && hasValue:
			at = 5
			var name string
			if name, ok = p.attrName(key[2:]); !ok || name <= last {
				return bad(item)
			}
			last = name
			if e.Xattrs == nil {
				e.Xattrs = map[string]string{}
			}
			e.Xattrs[name], ok = unescape(value, true)
		}
		if !ok || at < stage || at == stage && at < 5 {
			return bad(item)
		}
		stage = at
	}
	return nil
}

func (p *parser) attrName(field []byte) (string, bool) {
	if name, ok := p.names["x."+string(field)]; ok {
		return name, true
	}
	name, ok := unescape(field, true)
	if ok {
		p.names["x."+string(field)] = name
	}
	return name, ok
}
