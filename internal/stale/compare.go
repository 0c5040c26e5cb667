package stale

import (
	"bytes"
	"encoding/hex"

	"golang.org/x/sys/unix"
)

// pair is a file that is mapped and another that would be loaded in its place.
type pair struct {
	has  *node
	next *target
}

// comparison is what is known of such a pair.
type comparison struct {
	same          bool // the bytes are
	sure          bool // the bytes of both could be read
	hasID, nextID string
}

// compare is the outcome for a file in whose place another one would be loaded.
func (l *visit) compare(o *outcome) {
	c, ok := l.pairs.get(pair{o.node, o.next}, l.patience, func() (comparison, bool) { return l.comparePair(o) })
	if !ok {
		l.blind = true
		return
	}
	o.hasID, o.nextID = c.hasID, c.nextID
	if l.writtenBefore(o) {
		return
	}
	if c.same {
		if l.Strict {
			o.verdict, o.why = Same, "another file with the same bytes is there"
			if !c.sure {
				o.why = "another file with the same build id is there"
			}
			o.since = l.sinceOf(o)
		}
		return
	}
	o.verdict, o.why, o.since = Stale, "another file is there", l.sinceOf(o)
	switch {
	case c.hasID != "" && c.nextID != "" && c.hasID != c.nextID:
		o.why = "another build is there"
	case !c.sure:
		o.why = "another file is there; whether its bytes are the same could not be found out"
	}
}

// writtenBefore looks whether a file that is no longer there was overwritten
// before it went.
func (l *visit) writtenBefore(o *outcome) bool {
	n := o.node
	if !n.known || n.written <= l.boot.UnixNano() { // as most are, and it need not be asked when the process was started
		return false
	}
	start, err := l.started()
	if err != nil || n.written <= start || n.born > start {
		return false
	}
	why := l.overwritten(o.used, n.size)
	if why != "" {
		o.verdict, o.why, o.since = Corrupt, why, n.written
	}
	return why != ""
}

func (l *visit) comparePair(o *outcome) (c comparison, keep bool) {
	has := l.content(o.node, o.area)
	h, _ := l.headOf(o.next)
	if has != nil {
		c.hasID = has.buildID
	}
	if h.elf != nil {
		c.nextID = h.elf.buildID
	}
	a, err := l.openMapped(o.node, o.area)
	if err != nil { // without the right to, the kernel tells at least the build id
		if has == nil && !l.areas.text {
			c.hasID = hex.EncodeToString(l.ask.buildID(l.areas.maps, o.start))
		}
		c.same = c.hasID != "" && c.hasID == c.nextID
		return c, !gone(err)
	}
	defer unix.Close(a)
	c.sure = true
	if o.node.known && o.node.size != o.next.size || c.hasID != c.nextID {
		return c, true
	}
	if o.next.size > mostRead {
		c.same, c.sure = c.hasID != "", false
		return c, true
	}
	b, err := o.next.open()
	if err != nil {
		return c, true
	}
	defer unix.Close(b)
	c.same = equalFiles(a, b)
	return c, true
}

// mostRead is the size in bytes of the largest files of which every byte is
// compared. Anybody can map a file of terabytes that takes no space, and put
// another in its place.
const mostRead = 512 << 20

// equalFiles compares the bytes of two files. A file that cannot be read is
// equal to none.
func equalFiles(a, b int) bool {
	const size = 256 << 10
	x, y := make([]byte, size), make([]byte, size)
	for at := int64(0); ; {
		n, err := readAll(a, x, at)
		if err != nil {
			return false
		}
		m, err := readAll(b, y, at)
		if err != nil || !bytes.Equal(x[:n], y[:m]) {
			return false
		}
		if n < size {
			return true
		}
		at += size
	}
}

// readAll reads until b is full or the file ends.
func readAll(fd int, b []byte, at int64) (n int, err error) {
	for n < len(b) {
		m, err := unix.Pread(fd, b[n:], at+int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return n, err
		}
		if m == 0 {
			break
		}
		n += m
	}
	return n, nil
}

// sinceOf says when another file came into the place of one: when the new one
// was put there or, if it was there before the process began, when the old one
// lost its name, or when a link on the way was changed. Zero if no time tells.
func (l *visit) sinceOf(o *outcome) int64 {
	start, err := l.started()
	if err != nil {
		return 0
	}
	if o.next.changed > start {
		return o.next.changed
	}
	if o.node.known && o.node.changed > start {
		return o.node.changed
	}
	if fd, err := o.next.root.open(o.next.path, unix.O_PATH|unix.O_NOFOLLOW); err == nil {
		defer unix.Close(fd)
		if f, err := inspect(fd, "", unix.AT_SYMLINK_NOFOLLOW); err == nil && f.changed > start {
			return f.changed
		}
	}
	return 0
}
