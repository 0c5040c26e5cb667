package deploy

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Path is a file name in JSON and in messages. A name on Linux is any bytes but
// NUL and slash, JSON is UTF-8: a backslash, a control character and a byte that
// is not UTF-8 are written as \xNN, so that every name comes back as it was.
type Path string

// MarshalText implements [encoding.TextMarshaler].
func (p Path) MarshalText() ([]byte, error) {
	b := make([]byte, 0, len(p))
	for i := 0; i < len(p); {
		if c := p[i]; ' ' <= c && c < 0x7f && c != '\\' { // almost all are
			b = append(b, c)
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(string(p[i:]))
		if r == utf8.RuneError && n == 1 || r == '\\' || r < ' ' || r == 0x7f {
			b = fmt.Appendf(b, `\x%02x`, p[i])
			n = 1
		} else {
			b = append(b, p[i:i+n]...)
		}
		i += n
	}
	return b, nil
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (p *Path) UnmarshalText(text []byte) error {
	s := string(text)
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '\\')
		if i < 0 {
			b.WriteString(s)
			*p = Path(b.String())
			return nil
		}
		b.WriteString(s[:i])
		if len(s) < i+4 || s[i+1] != 'x' {
			return fmt.Errorf("bad escape in name %q", text)
		}
		c, err := strconv.ParseUint(s[i+2:i+4], 16, 8)
		if err != nil {
			return fmt.Errorf("bad escape in name %q", text)
		}
		b.WriteByte(byte(c))
		s = s[i+4:]
	}
}

// Quoted is the name for a message: plain if it is harmless on a terminal.
func (p Path) Quoted() string {
	text, _ := p.MarshalText()
	if len(text) != len(p) || strings.ContainsAny(string(p), " '\"") || p == "" {
		return strconv.Quote(string(p))
	}
	return string(p)
}
