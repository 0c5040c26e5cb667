package release

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"
)

const (
	manifestMagic = "moult-manifest "
	formatNumber  = 1
)

// Encode returns the manifest as text, in its one canonical form (see the
// package comment). [Parse] is the way back. A manifest in which a digest is
// not known yet can be written, but not read again.
func (m *Manifest) Encode() []byte {
	b := make([]byte, 0, 256+160*len(m.Entries))
	b = m.appendHeader(b)
	for i := range m.Entries {
		b = m.Entries[i].append(b, true, true)
	}
	return b
}

// ID is what names the release on every host: the SHA-256 of the manifest's
// text, in which modification times are left out unless Times is set, and
// always the sparse attribute, so that a rebuilt tree of equal bytes is the
// same release. It is zero as long as the digest of a file is not known.
func (m *Manifest) ID() Digest {
	h := sha256.New()
	b := m.appendHeader(make([]byte, 0, 64<<10))
	for i := range m.Entries {
		e := &m.Entries[i]
		if e.Type == File && e.Digest.IsZero() {
			return Digest{}
		}
		if b = e.append(b, m.Times, false); len(b) > 60<<10 {
			h.Write(b)
			b = b[:0]
		}
	}
	h.Write(b)
	return Digest(h.Sum(nil))
}

func (m *Manifest) appendHeader(b []byte) []byte {
	line := func(key, value string) {
		if value != "" {
			b = append(b, key...)
			b = append(b, ' ')
			b = append(appendEscaped(b, value, false), '\n')
		}
	}
	b = append(b, manifestMagic...)
	b = append(strconv.AppendInt(b, formatNumber, 10), '\n')
	line("name", m.Name)
	line("version", m.Version)
	if m.Times {
		b = append(b, "times\n"...)
	}
	line("before", m.Hooks.Before)
	line("after", m.Hooks.After)
	if m.Hooks.Timeout != 0 {
		line("timeout", strconv.FormatInt(m.Hooks.Timeout, 10))
	}
	line("restart", encodeRules(m.Restart))
	line("plugins", encodeRules(m.Plugins))
	line("entries", strconv.Itoa(len(m.Entries)))
	return b
}

// append writes the line of one entry.
func (e *Entry) append(b []byte, times, sparse bool) []byte {
	b = append(b, byte(e.Type), ' ')
	if e.Type == Symlink {
		b = append(b, '-')
	} else {
		b = appendMode(b, e.Mode)
	}
	b = appendName(append(b, ' '), e.Owner)
	b = appendName(append(b, ' '), e.Group)
	b = append(b, ' ')
	if e.Type == File {
		b = strconv.AppendInt(b, e.Size, 10)
	} else {
		b = append(b, '-')
	}
	b = append(b, ' ')
	if e.Type == File && !e.Digest.IsZero() {
		b = hex.AppendEncode(b, e.Digest[:])
	} else {
		b = append(b, '-')
	}
	b = append(b, ' ')
	if times && e.MTime != 0 {
		b = strconv.AppendInt(b, e.MTime, 10)
	} else {
		b = append(b, '-')
	}
	b = e.appendAttrs(append(b, ' '), sparse)
	b = append(b, ' ')
	b = appendEscaped(b, e.Path, false)
	return append(b, '\n')
}

func (e *Entry) appendAttrs(b []byte, sparse bool) []byte {
	start := len(b)
	attr := func(key string) {
		if len(b) > start {
			b = append(b, ',')
		}
		b = append(b, key...)
	}
	if sparse && e.Sparse {
		attr("sparse")
	}
	if e.Keep {
		attr("keep")
	}
	if e.Text != "" {
		attr("text=")
		b = appendEscaped(b, e.Text, true)
	}
	if e.HardLink != "" {
		attr("link=")
		b = appendEscaped(b, e.HardLink, true)
	}
	if len(e.Xattrs) > 0 {
		for _, name := range slices.Sorted(maps.Keys(e.Xattrs)) {
			attr("x.")
			b = append(appendEscaped(b, name, true), '=')
			b = appendEscaped(b, e.Xattrs[name], true)
		}
	}
	if len(b) == start {
		b = append(b, '-')
	}
	return b
}

// appendMode writes four octal digits, as people know modes.
func appendMode(b []byte, mode uint32) []byte {
	for shift := 9; shift >= 0; shift -= 3 {
		b = append(b, '0'+byte(mode>>shift&7))
	}
	return b
}

// appendName writes an owner or a group; "-" alone means that there is none.
func appendName(b []byte, s string) []byte {
	switch s {
	case "":
		return append(b, '-')
	case "-":
		return append(b, `\x2d`...)
	}
	return appendEscaped(b, s, true)
}

// plain says that c stands for itself everywhere, in fields too if inField.
func plain(c byte, inField bool) bool {
	if inField && (c == ' ' || c == ',' || c == '=') {
		return false
	}
	return c >= ' ' && c < 0x7f && c != '\\'
}

// plainStart is how many bytes s begins with that are plain: nearly always all.
func plainStart[S string | []byte](s S, inField bool) int {
	for i := range len(s) {
		if !plain(s[i], inField) {
			return i
		}
	}
	return len(s)
}

// appendEscaped writes s so that it is one piece of one line, of one field if
// inField.
func appendEscaped(b []byte, s string, inField bool) []byte {
	for i := 0; i < len(s); {
		if n := plainStart(s[i:], inField); n > 0 {
			b = append(b, s[i:i+n]...)
			i += n
			continue
		}
		c, n := s[i], 1
		if c >= utf8.RuneSelf {
			// A lone U+FFFD of three bytes is a character like any other; C1
			// controls (U+0080 to U+009F) speak to terminals.
			var r rune
			if r, n = utf8.DecodeRuneInString(s[i:]); n > 1 && r >= 0xa0 {
				b = append(b, s[i:i+n]...)
				i += n
				continue
			}
		}
		for _, c := range []byte(s[i : i+n]) {
			switch c {
			case '\n':
				b = append(b, `\n`...)
			case '\\':
				b = append(b, `\\`...)
			default:
				b = append(b, '\\', 'x')
				b = hex.AppendEncode(b, []byte{c})
			}
		}
		i += n
	}
	return b
}
