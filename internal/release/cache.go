package release

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Cache remembers the digests of files by what stat(2) said of them, in the
// manner of git's index, so that what has not changed is not read again. It is
// for one goroutine at a time.
//
// # When it is right
//
// A write gives a file a new change time, which no program can set: putting the
// size and the modification time back does not help. But the clock of change
// times has ticks, so a write in the same tick as an earlier one, and after the
// look at the file, would go unseen (git calls such entries racily clean). So
// [Cache.Store] takes an entry only if the file had last changed in an earlier
// tick than that in which it was looked at. A file that has just been written is
// read again the next time, or stored a tick later.
//
// One writer is never seen: one that has mapped the file, writes to a page that
// it has already made dirty, and has not been written back in between; the
// kernel moves the times on the first such write only. No stat cache can know
// better. Where that matters, do without the cache.
type Cache struct {
	root    cacheRoot
	entries []cacheEntry
	index   map[string]int // nil as long as entries are sorted by path, as they are in a file
	hint    int64          // atomic: where the last one was found; the next is near
	changed bool
}

// cacheRoot is the directory that the paths of a cache are relative to.
type cacheRoot struct {
	path     string
	dev, ino uint64
}

type cacheEntry struct {
	path   string
	stat   Stat
	digest Digest
	bare   bool // it had no extended attribute to ship
	used   bool // since the last sweep
}

const (
	cacheMagic = "moult-cache "
	cacheFixed = 5*8 + sha256.Size + 1 // bytes of an entry after its path
)

// NewCache returns an empty cache.
func NewCache() *Cache { return &Cache{} }

// Grow makes room for so many files.
func (c *Cache) Grow(n int) { c.entries = slices.Grow(c.entries, n) }

// Bind says which directory the paths are relative to. A cache of another one
// is emptied.
func (c *Cache) Bind(path string, dev, ino uint64) {
	root := cacheRoot{path, dev, ino}
	if c.root != root {
		*c = Cache{root: root}
	}
}

// Lookup returns the digest of the file at path, whose stat(2) is st now, if the
// cache knows it.
func (c *Cache) Lookup(path string, st Stat) (Digest, bool) {
	i := c.find(path)
	if i < 0 || c.entries[i].stat != st {
		return Digest{}, false
	}
	c.entries[i].used = true
	return c.entries[i].digest, true
}

// Store remembers that the file at path has that digest. Its stat(2) was st at
// the moment seen, by [Now], or later, before its bytes were read, and still
// is; or the caller has written the bytes, and knows that nobody else has, until
// it looked.
// What could change unseen is not remembered (see [Cache]).
func (c *Cache) Store(path string, st Stat, d Digest, seen time.Time) {
	if !st.Settled(seen) || d.IsZero() {
		c.Forget(path)
		return
	}
	i := c.find(path)
	if i < 0 {
		i = c.add(strings.Clone(path))
	}
	c.entries[i].stat, c.entries[i].digest, c.entries[i].used, c.entries[i].bare = st, d, true, false
	c.changed = true
}

// add makes an entry of a path that has none.
func (c *Cache) add(path string) int {
	i := len(c.entries)
	if c.index == nil && i > 0 && c.entries[i-1].path > path {
		c.mix()
	}
	c.entries = append(c.entries, cacheEntry{path: path})
	if c.index != nil {
		c.index[path] = i
	}
	return i
}

// Changed says whether anything was stored since the cache was made or loaded.
func (c *Cache) Changed() bool { return c.changed }

// Forget drops what is remembered of a file.
func (c *Cache) Forget(path string) {
	if i := c.find(path); i >= 0 {
		c.mix()
		delete(c.index, path)
		c.entries[i] = cacheEntry{}
	}
}

// Sweep ends a pass over all files: it drops those that were neither found nor
// stored since the cache was made, loaded or swept.
func (c *Cache) Sweep() {
	n := len(c.entries)
	c.entries = slices.DeleteFunc(c.entries, func(e cacheEntry) bool { return !e.used })
	for i := range c.entries {
		c.entries[i].used = false
	}
	if c.index != nil && len(c.entries) < n {
		c.index = nil
		c.mix()
	}
}

// Len is the number of files that are remembered.
func (c *Cache) Len() int {
	if c.index == nil {
		return len(c.entries)
	}
	return len(c.index)
}

// Encode returns the cache as bytes for [LoadCache].
func (c *Cache) Encode() []byte {
	b := make([]byte, 0, 128+len(c.root.path)+(cacheFixed+64)*c.Len())
	b = fmt.Appendf(b, "%s%d\n", cacheMagic, formatNumber)
	b = appendString(b, c.root.path)
	b = binary.LittleEndian.AppendUint64(b, c.root.dev)
	b = binary.LittleEndian.AppendUint64(b, c.root.ino)
	b = binary.LittleEndian.AppendUint64(b, uint64(c.Len()))
	for _, e := range c.sorted() {
		b = appendString(b, e.path)
		for _, n := range [...]uint64{e.stat.Dev, e.stat.Ino, uint64(e.stat.Size), uint64(e.stat.MTime), uint64(e.stat.CTime)} {
			b = binary.LittleEndian.AppendUint64(b, n)
		}
		b = append(b, e.digest[:]...)
		b = append(b, bit(e.bare))
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// LoadCache reads what [Cache.Encode] has written. Damaged bytes, or those of a
// newer moult ([ErrNewer]), are an error and an empty cache, which works as
// well, only slower.
func LoadCache(b []byte) (*Cache, error) {
	c := NewCache()
	if err := c.load(b); err != nil {
		return NewCache(), fmt.Errorf("cache: %w", err)
	}
	return c, nil
}

var errCache = errors.New("it is damaged")

func (c *Cache) load(b []byte) error {
	first, _, ok := bytes.Cut(b[:min(len(b), 40)], []byte("\n"))
	if !ok {
		return errCache
	}
	if err := checkFormat(string(first), cacheMagic); err != nil {
		return err
	}
	if len(b) < len(first)+1+sha256.Size {
		return errCache
	}
	body, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if got := sha256.Sum256(body); !bytes.Equal(got[:], sum) {
		return errCache
	}
	r := cacheReader{b: body[len(first)+1:]}
	c.root = cacheRoot{string(r.string()), r.uint64(), r.uint64()}
	n := r.uint64()
	if r.bad || n > uint64(len(r.b)/(cacheFixed+1)) {
		return errCache
	}
	c.entries = make([]cacheEntry, n)
	c.index = nil
	var paths strings.Builder // one piece of memory for all
	paths.Grow(len(r.b) - int(n)*cacheFixed)
	sorted := true
	for i := range c.entries {
		e := &c.entries[i]
		start := paths.Len()
		paths.Write(r.string())
		e.path = paths.String()[start:]
		sorted = sorted && (i == 0 || c.entries[i-1].path < e.path)
		e.stat = Stat{r.uint64(), r.uint64(), int64(r.uint64()), int64(r.uint64()), int64(r.uint64())}
		copy(e.digest[:], r.take(sha256.Size))
		e.bare = r.bit()
		if e.path == "" || e.digest.IsZero() {
			return errCache
		}
	}
	if !sorted { // by an earlier moult
		c.mix()
	}
	if r.bad || len(r.b) != 0 || c.Len() != len(c.entries) {
		return errCache
	}
	return nil
}

// cacheReader takes pieces from the front of b; once one is missing, bad.
type cacheReader struct {
	b   []byte
	bad bool
}

func (r *cacheReader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.b, r.bad = nil, true
		return nil
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func (r *cacheReader) bit() bool {
	p := r.take(1)
	if p == nil || p[0] > 1 {
		r.bad = true
		return false
	}
	return p[0] == 1
}

func (r *cacheReader) uint64() uint64 {
	if p := r.take(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

func (r *cacheReader) string() []byte {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.bad = true
		return nil
	}
	r.b = r.b[size:]
	return r.take(n)
}

// setBare remembers that a file which was just stored has no extended attribute
// to ship: while its change time stays, it gets none.
func (c *Cache) setBare(path string) {
	if i := c.find(path); i >= 0 {
		c.entries[i].bare = true
	}
}

// isBare says whether the file at path, whose stat(2) is st now, is known to
// have no extended attribute to ship. Several goroutines may ask at once.
func (c *Cache) isBare(path string, st Stat) bool {
	i := c.find(path)
	return i >= 0 && c.entries[i].bare && c.entries[i].stat == st
}

// Known returns what is remembered of the file at path, whatever its stat(2) is
// now.
func (c *Cache) Known(path string) (Stat, Digest, bool) {
	i := c.find(path)
	if i < 0 {
		return Stat{}, Digest{}, false
	}
	return c.entries[i].stat, c.entries[i].digest, true
}
