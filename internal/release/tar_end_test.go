package release

import (
	"bytes"
	"compress/gzip"
	"context"
	"strings"
	"testing"
)

// TestTarEnd: behind the end of an archive come zeros, and nothing else: a second
// archive is not left out without a word.
func TestTarEnd(t *testing.T) {
	one, two := tarOf(t, reg("a", "1")), tarOf(t, reg("b", "2"))
	zip := func(b []byte) []byte {
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		_, err := w.Write(b)
		try(t, err)
		try(t, w.Close())
		return out.Bytes()
	}
	for what, c := range map[string]struct {
		tar  []byte
		want string
	}{
		"zeros":             {append(bytes.Clone(one), make([]byte, 200<<10)...), ""},
		"zipped in pieces":  {append(zip(one[:700]), zip(one[700:])...), ""},
		"another":           {append(bytes.Clone(one), two...), "more after the end"},
		"another, zipped":   {append(zip(one), zip(two)...), "more after the end"},
		"a byte":            {append(bytes.Clone(one), 'x'), "more after the end"},
		"a byte after much": {append(append(bytes.Clone(one), make([]byte, 100<<10)...), 'x'), "more after the end"},
		"zeros for ever":    {append(bytes.Clone(one), make([]byte, 65<<20)...), "more after the end"},
		"zipped and more":   {append(zip(one), "junk"...), "release standard input: "},
	} {
		r, err := Open(context.Background(), "-", Options{Stdin: bytes.NewReader(c.tar)})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, %v; want %q", what, r, err, c.want)
		}
	}
}
