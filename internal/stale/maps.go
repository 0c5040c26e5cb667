package stale

import "bytes"

// mapping is one line of /proc/PID/maps. Its slices point into that line.
type mapping struct {
	start, end uint64
	perms      []byte // "r-xp"
	offset     uint64 // in the file
	dev        []byte // "fe:00"; not what stat(2) says on btrfs and overlay
	ino        uint64 // 0 if there is no file
	path       []byte // raw but for newlines, which are \012; " (deleted)" may follow
	file       []byte // dev, ino and path as printed: equal for all parts of a file
}

// parseMapping reads "start-end perms offset dev inode   path". It accepts
// whatever has that shape, and says false to the rest.
func parseMapping(line []byte) (m mapping, ok bool) {
	rest := line
	if m.start, rest, ok = number(rest, 16); !ok || len(rest) == 0 || rest[0] != '-' {
		return m, false
	}
	if m.end, rest, ok = number(rest[1:], 16); !ok {
		return m, false
	}
	if m.perms, rest, ok = field(rest); !ok || len(m.perms) != 4 {
		return m, false
	}
	if len(rest) == 0 || rest[0] != ' ' {
		return m, false
	}
	if m.offset, rest, ok = number(rest[1:], 16); !ok || len(rest) == 0 || rest[0] != ' ' {
		return m, false
	}
	m.file = rest[1:]
	if m.dev, rest, ok = field(rest); !ok || bytes.IndexByte(m.dev, ':') <= 0 {
		return m, false
	}
	if len(rest) == 0 || rest[0] != ' ' {
		return m, false
	}
	if m.ino, rest, ok = number(rest[1:], 10); !ok {
		return m, false
	}
	if len(rest) == 0 {
		return m, true
	}
	if rest[0] != ' ' {
		return m, false
	}
	// The path is padded to a column with blanks; no path begins with one.
	m.path = bytes.TrimLeft(rest, " ")
	return m, true
}

// field cuts off what stands between a blank and the next.
func field(b []byte) (word, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != ' ' {
		return nil, nil, false
	}
	b = b[1:]
	n := bytes.IndexByte(b, ' ')
	if n < 0 {
		n = len(b)
	}
	return b[:n], b[n:], n > 0
}

// number cuts off an unsigned number of at most 64 bits.
func number(b []byte, base uint64) (v uint64, rest []byte, ok bool) {
	i := 0
	for ; i < len(b); i++ {
		d := uint64(99)
		switch c := b[i]; {
		case '0' <= c && c <= '9':
			d = uint64(c - '0')
		case 'a' <= c && c <= 'f':
			d = uint64(c-'a') + 10
		}
		if d >= base {
			break
		}
		if v > (1<<64-1-d)/base {
			return 0, nil, false
		}
		v = v*base + d
	}
	return v, b[i:], i > 0
}

var (
	newline        = []byte(`\012`)
	deletedSuffix  = " (deleted)"
	deletedSuffixB = []byte(deletedSuffix)
)

// names are the paths that the mapping's path may stand for: the kernel
// prints a newline as \012 and leaves a name that really holds these four
// characters as it is.
func (m mapping) names() []string {
	raw := string(m.path)
	if !bytes.Contains(m.path, newline) {
		return []string{raw}
	}
	return []string{string(bytes.ReplaceAll(m.path, newline, []byte("\n"))), raw}
}

func (m mapping) deleted() bool { return bytes.HasSuffix(m.path, deletedSuffixB) }
