package linkcheck

import (
	"path"
	"slices"
	"strings"

	"github.com/ianlancetaylor/demangle"
)

// How much is looked for what is near: it helps, but is not the verdict.
const (
	maxNear     = 4
	maxNearWork = 2 << 20 // symbols looked at for similar names, in one check
)

// demangled is a symbol as a programmer writes it: C++ by the Itanium ABI, Rust.
// "" if it is no other.
func demangled(symbol string) string {
	if len(symbol) > maxName || !strings.HasPrefix(symbol, "_Z") && !strings.HasPrefix(symbol, "_R") {
		return ""
	}
	name, err := demangle.ToString(symbol, demangle.MaxLength(12), demangle.LLVMStyle)
	if err != nil || name == symbol {
		return ""
	}
	return name
}

// readable is a symbol as a programmer writes it, or as it is.
func readable(symbol string) string {
	if name := demangled(symbol); name != "" {
		return name
	}
	return symbol
}

// nearLibrary are files beside the places that were searched whose names differ
// only in what follows ".so", and those of another class.
func (c *checker) nearLibrary(name string, searched []string, sys *system) (near []string) {
	base := stem(path.Base(name))
	dirs := searched
	if sys.cache != nil {
		for n, entries := range sys.cache.entries {
			if stem(n) == base && n != name && len(entries) > 0 {
				near = append(near, entries[0].path)
			}
		}
		slices.Sort(near)
	}
	for _, d := range dirs {
		if !path.IsAbs(d) || len(near) >= maxNear {
			continue
		}
		for _, n := range c.dirNames(d) {
			if p := d + "/" + n; stem(n) == base && !slices.Contains(near, p) && c.tree.find(p).err == nil {
				near = append(near, p)
			}
		}
	}
	return near[:min(len(near), maxNear)]
}

// dirNames are the names of a directory, sorted, read once.
func (c *checker) dirNames(d string) []string {
	if names, ok := c.listed[d]; ok {
		return names
	}
	names := c.tree.names(d)
	slices.Sort(names)
	c.listed[d] = names
	return names
}

// nearVersions are the versions of a file that are like one that it has not:
// of the same family, the last ones.
func (im *image) nearVersions(name string) (near []string) {
	family := versionFamily(name)
	for _, d := range im.defines {
		if versionFamily(d.name) == family && d.name != name {
			near = append(near, d.name)
		}
	}
	if len(near) > maxNear {
		near = near[len(near)-maxNear:]
	}
	return near
}

// versionFamily is a version without its number: GLIBC_ of GLIBC_2.34.
func versionFamily(name string) string {
	if i := strings.IndexAny(name, "0123456789"); i >= 0 {
		return name[:i]
	}
	return name
}

// nearSymbol is what the files of the set have in place of a symbol: the same
// with another version, or similar names.
func (s *loadSet) nearSymbol(l *loaded, w *wanted) (near []string) {
	any := wanted{name: w.name, gnu: w.gnu}
	for _, p := range s.list {
		if p == l || len(near) >= maxNear {
			continue
		}
		p.o.image.same(&any, func(v *version) {
			text := readable(string(w.name))
			if v != nil && v.name != "" {
				text += "@" + v.name
			}
			near = append(near, text+" in "+p.o.path)
		})
	}
	if len(near) > 0 {
		return near[:min(len(near), maxNear)]
	}
	for _, p := range s.expected(l, w) {
		names, spent := p.o.image.similar(w.name, maxNearWork-s.c.nearWork)
		s.c.nearWork += spent
		for _, name := range names {
			if len(near) < maxNear {
				near = append(near, readable(name)+" in "+p.o.path)
			}
		}
	}
	return near
}

// expected are the files that a symbol was to come from.
func (s *loadSet) expected(l *loaded, w *wanted) (files []*loaded) {
	if w.version != nil && w.version.file != "" {
		if p := s.names[w.version.file]; p != nil && p.o != nil {
			return []*loaded{p}
		}
	}
	for _, name := range l.o.image.needed {
		if p := s.names[name]; p != nil && p.o != nil {
			files = append(files, p)
		}
	}
	return files
}

// same calls f for every definition of a name, whatever its version.
func (im *image) same(w *wanted, f func(v *version)) {
	try := func(index uint32) bool {
		if sym, ok := im.symbol(index); ok && im.is(sym.name, w.name) && sym.section != 0 && !sym.local() {
			v, _, _ := im.versionOf(index)
			f(v)
		}
		return false
	}
	switch {
	case im.gnu.buckets != nil:
		im.gnu.each(im, w.gnu, try)
	case im.sysv.buckets != nil:
		im.sysv.each(im, sysvHashOf(w.name), try)
	}
}

// similar are defined names that differ little from one: by some characters, or
// in what follows a long common beginning, as the parameters of a C++ function.
func (im *image) similar(name []byte, budget int) (near []string, spent int) {
	type candidate struct {
		name  string
		score int
	}
	var best []candidate
	count := min(im.symbolCount(), budget)
	if im.gnu.buckets != nil { // the table has no end of its own: the chains have
		count = min(count, int(im.gnu.first)+len(im.gnu.chain)/4)
	}
	for i := 1; i < count; i++ {
		sym, ok := im.symbol(uint32(i))
		if !ok || uint64(sym.name) >= uint64(len(im.strtab)) {
			break
		}
		if sym.section == 0 || sym.local() || sym.bind() == 0 {
			continue
		}
		if score := alike(name, im.strtab[sym.name:]); score > 0 {
			text := string(im.text(sym.name))
			best = append(best, candidate{text, score})
			if len(best) > 64 {
				break
			}
		}
	}
	slices.SortStableFunc(best, func(a, b candidate) int { return b.score - a.score })
	for _, b := range best {
		if b.name != "" && !slices.Contains(near, b.name) && len(near) < maxNear {
			near = append(near, b.name)
		}
	}
	return near, count
}

// alike compares a name with the one that begins at b: 0 is not alike.
func alike(name, b []byte) int {
	n := 0
	for n < len(name) && n < len(b) && b[n] == name[n] {
		n++
	}
	end := n
	for end < len(b) && b[end] != 0 && end < len(name)+32 {
		end++
	}
	if end == len(b) || b[end] != 0 {
		return 0
	}
	other := b[:end]
	tail := 0
	for tail < len(name)-n && tail < len(other)-n && name[len(name)-1-tail] == other[len(other)-1-tail] {
		tail++
	}
	longer := max(len(name), len(other))
	changed := longer - n - tail
	switch {
	case len(name) < 3 || changed > 8 && n*3 < longer*2:
		return 0
	case changed <= 2 && n+tail >= 3, n*4 >= longer*3:
		return 1000 - changed
	}
	return 0
}
