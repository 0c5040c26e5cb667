package release

import (
	"slices"
	"strings"
	"sync/atomic"
)

// find returns where the entry of a path is, or -1.
func (c *Cache) find(path string) int {
	if c.index != nil {
		if i, ok := c.index[path]; ok {
			return i
		}
		return -1
	}
	i := c.search(path)
	if i == len(c.entries) || c.entries[i].path != path {
		return -1
	}
	atomic.StoreInt64(&c.hint, int64(i))
	return i
}

// search returns where path is, or would be, among sorted entries. Who asks goes
// through a tree in order, so it looks near the last one first: that is faster
// than a map, which moreover would have to be made for each command.
func (c *Cache) search(path string) int {
	n := len(c.entries)
	before := func(i int) bool { return c.entries[i].path < path }
	lo, hi := 0, n // before(lo-1), !before(hi)
	at := min(int(atomic.LoadInt64(&c.hint)), n)
	if at < n && before(at) {
		lo = at + 1
		for step := 1; lo+step <= n; step *= 2 {
			if !before(lo + step - 1) {
				hi = lo + step - 1
				break
			}
			lo += step
		}
	} else {
		hi = at
		for step := 1; hi-step >= 0; step *= 2 {
			if before(hi - step) {
				lo = hi - step + 1
				break
			}
			hi -= step
		}
	}
	for lo < hi {
		if mid := int(uint(lo+hi) >> 1); before(mid) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// mix makes the map that entries need which are not sorted any more.
func (c *Cache) mix() {
	if c.index != nil {
		return
	}
	c.index = make(map[string]int, len(c.entries))
	for i := range c.entries {
		if path := c.entries[i].path; path != "" { // else it is forgotten
			c.index[path] = i
		}
	}
}

// sorted returns the entries by path.
func (c *Cache) sorted() []*cacheEntry {
	all := make([]*cacheEntry, 0, len(c.entries))
	for i := range c.entries {
		if c.entries[i].path != "" {
			all = append(all, &c.entries[i])
		}
	}
	if c.index != nil {
		slices.SortFunc(all, func(a, b *cacheEntry) int { return strings.Compare(a.path, b.path) })
	}
	return all
}
