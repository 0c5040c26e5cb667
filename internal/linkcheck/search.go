package linkcheck

import (
	"errors"
	"io/fs"
	"path"
	"strings"
)

// loaded is a file in the load set of a program.
type loaded struct {
	o      *object // nil: it is needed and was not found
	name   string  // the path by which it was opened
	loader *loaded // whose DT_NEEDED brought it; nil for the program and what is preloaded
	depth  int
}

// origin is what $ORIGIN stands for in a file's run paths: the directory of the
// program's real file, and of the path by which a library was found.
// It is not cleaned: the loader does not, and a link may be on the way.
func (l *loaded) origin() string {
	if i := strings.LastIndexByte(l.name, '/'); i > 0 {
		return l.name[:i]
	}
	return "/"
}

// found is where a library is.
type found struct {
	o    *object
	path string
	bad  error // it is there, and the loader stops at it
}

// directories is the order in which the loader looks for a name without a
// slash, as one list. The name of the place where the cache is consulted is
// cachePlace.
func (s *loadSet) directories(loader *loaded) []string {
	if s.sys.musl {
		return s.muslDirectories(loader)
	}
	var dirs []string
	if loader == nil || !loader.o.image.hasRunpath {
		main := false
		for l := loader; l != nil; l = l.loader {
			dirs = append(dirs, s.runPath(l, l.rpath())...)
			main = main || l == s.main
		}
		if !main {
			dirs = append(dirs, s.runPath(s.main, s.main.rpath())...)
		}
	}
	if !s.main.o.secure {
		for _, d := range s.c.o.LibraryPath {
			dirs = s.appendDir(dirs, d, s.main)
		}
	}
	noDefaults := s.main.o.image.flags1&flagNoDefaults != 0
	if loader != nil {
		dirs = append(dirs, s.runPath(loader, loader.o.image.runpath)...)
		noDefaults = loader.o.image.flags1&flagNoDefaults != 0
	}
	if noDefaults {
		return append(dirs, cacheWithoutDefaults)
	}
	dirs = append(dirs, cachePlace)
	return append(dirs, s.sys.defaults...)
}

const (
	cachePlace           = "ld.so.cache"
	cacheWithoutDefaults = "ld.so.cache, but for the default directories"
	flagNoDefaults       = 0x800 // DF_1_NODEFLIB
)

// rpath is DT_RPATH, which counts only where there is no DT_RUNPATH.
func (l *loaded) rpath() string {
	if l.o == nil || l.o.image.hasRunpath {
		return ""
	}
	return l.o.image.rpath
}

// muslDirectories: musl knows no difference of RPATH and RUNPATH, both are
// inherited, and LD_LIBRARY_PATH comes first (ldso/dynlink.c).
func (s *loadSet) muslDirectories(loader *loaded) []string {
	var dirs []string
	if !s.main.o.secure {
		for _, d := range s.c.o.LibraryPath {
			dirs = s.appendDir(dirs, d, nil)
		}
	}
	if loader == nil {
		loader = s.main
	}
	for l := loader; l != nil; l = l.loader {
		text := l.o.image.rpath
		if l.o.image.hasRunpath {
			text = l.o.image.runpath
		}
		dirs = append(dirs, s.runPath(l, text)...)
	}
	return append(dirs, s.sys.defaults...)
}

// runPath splits a run path of a file.
func (s *loadSet) runPath(l *loaded, text string) (dirs []string) {
	if text == "" {
		return nil
	}
	for d := range strings.SplitSeq(text, ":") {
		if len(dirs) == maxRunPaths {
			break
		}
		dirs = s.appendDir(dirs, d, l)
	}
	return dirs
}

const maxRunPaths = 1024 // directories of one run path

// appendDir appends a directory with what it stands for. Relative ones depend on
// where a program is started, which nobody knows: they are left out. A program
// that gains privileges takes $ORIGIN only to default directories.
func (s *loadSet) appendDir(dirs []string, d string, l *loaded) []string {
	if strings.Contains(d, "$") {
		expanded, ok := s.expand(d, l)
		if !ok {
			return dirs
		}
		if l != nil && l == s.main && s.main.o.secure && strings.Contains(d, "ORIGIN") && !s.isDefault(expanded) {
			return dirs
		}
		d = expanded
	}
	if !path.IsAbs(d) {
		return dirs
	}
	if d != "/" {
		d = strings.TrimRight(d, "/")
	}
	return append(dirs, d)
}

func (s *loadSet) isDefault(dir string) bool {
	for _, d := range s.sys.defaults {
		if path.Clean(dir) == d {
			return true
		}
	}
	return false
}

// expand replaces $ORIGIN, $LIB and $PLATFORM, with braces or without.
func (s *loadSet) expand(text string, l *loaded) (string, bool) {
	var b strings.Builder
	for {
		i := strings.IndexByte(text, '$')
		if i < 0 || b.Len() > maxName {
			b.WriteString(text)
			return b.String(), b.Len() <= maxName
		}
		b.WriteString(text[:i])
		text = text[i+1:]
		value, rest, ok := s.token(text, l)
		if !ok {
			b.WriteByte('$')
			continue
		}
		if value == "" {
			return "", false
		}
		b.WriteString(value)
		text = rest
	}
}

func (s *loadSet) token(text string, l *loaded) (value, rest string, ok bool) {
	for _, name := range []string{"ORIGIN", "LIB", "PLATFORM"} {
		rest, ok := strings.CutPrefix(text, name)
		if ok && rest != "" && (rest[0] == '_' || rest[0]|0x20 >= 'a' && rest[0]|0x20 <= 'z' || rest[0] >= '0' && rest[0] <= '9') {
			continue
		}
		if !ok {
			if rest, ok = strings.CutPrefix(text, "{"+name+"}"); !ok {
				continue
			}
		}
		switch name {
		case "ORIGIN":
			if l == nil {
				l = s.main
			}
			return l.origin(), rest, true
		case "LIB":
			return s.sys.lib, rest, true
		default:
			return s.sys.platform, rest, true
		}
	}
	return "", text, false
}

// search finds the file for a name that a file needs. The list of places is
// only for a name that is not found.
func (s *loadSet) search(name string, loader *loaded) (f found, searched []string) {
	if strings.Contains(name, "/") {
		if path.IsAbs(name) {
			f, _ = s.try(name)
		}
		return f, []string{path.Dir(name)}
	}
	plain := s.plain(loader)
	if plain {
		if f, ok := s.c.plain[plainKey{s.sys, name}]; ok {
			return f, nil
		}
	}
	dirs := s.directories(loader)
	f = s.searchIn(name, dirs)
	if plain && f.o != nil {
		s.c.plain[plainKey{s.sys, name}] = f
	}
	return f, dirs
}

type plainKey struct {
	sys  *system
	name string
}

// plain says that no file on the way has a run path or flag of its own.
func (s *loadSet) plain(loader *loaded) bool {
	if len(s.c.o.LibraryPath) > 0 {
		return false
	}
	for l := loader; l != nil; l = l.loader {
		if !l.o.isPlain() {
			return false
		}
	}
	return s.main.o.isPlain()
}

func (o *object) isPlain() bool {
	return o.image.rpath == "" && o.image.runpath == "" && o.image.flags1&flagNoDefaults == 0
}

func (s *loadSet) searchIn(name string, dirs []string) found {
	for _, d := range dirs {
		switch d {
		case cachePlace, cacheWithoutDefaults:
			p, ok := s.cached(name)
			if !ok || d == cacheWithoutDefaults && s.isDefault(path.Dir(p)) {
				continue
			}
			if f, ok := s.try(p); ok {
				return f
			}
		default:
			if f, ok := s.tryDir(d, name); ok {
				return f
			}
		}
	}
	return found{}
}

// cached asks the cache, or what ldconfig will put there for the overlay.
func (s *loadSet) cached(name string) (string, bool) {
	if s.sys.cache != nil {
		hwcaps := s.c.hwcaps(s.sys.machine)
		if p, ok := s.sys.cache.lookup(name, s.sys.cacheFlags, hwcaps); ok {
			if at := s.c.tree.find(p); at.err == nil {
				return p, true
			}
		}
	}
	p, ok := s.sys.laid[name]
	return p, ok
}

// tryDir tries a directory, its subdirectories for kinds of processors first.
func (s *loadSet) tryDir(dir, name string) (found, bool) {
	if !s.sys.musl {
		for _, sub := range s.c.subdirs(s.sys, dir) {
			if f, ok := s.try(sub + "/" + name); ok {
				return f, true
			}
		}
	}
	return s.try(dir + "/" + name)
}

// try says whether the loader takes this file, or stops at it. One of another
// class or machine is passed over, as one that is not there.
func (s *loadSet) try(p string) (found, bool) {
	s.probes++
	s.c.probes++
	if s.tooMuch() {
		return found{}, false
	}
	o, err := s.c.objects.open(p)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			s.unread = err
		}
		return found{}, false
	}
	if o.bad != nil && (o.image.machine == 0 || o.image.kind == NotELF) {
		return found{path: p, bad: o.bad}, true
	}
	if o.image.kind != NotELF && o.image.wide == s.sys.wide && o.image.big != s.sys.big {
		return found{path: p, bad: errByteOrder}, true
	}
	if o.image.kind != NotELF && o.image.wide == s.sys.wide && o.image.ident != "" && !s.sys.musl {
		return found{path: p, bad: &FormatError{o.image.ident}}, true
	}
	if o.image.wide != s.sys.wide || o.image.machine != s.sys.machine {
		if s.sys.musl { // it does not look, and takes the file for one of its own
			return found{path: p, bad: errMachine}, true
		}
		return found{}, false
	}
	switch {
	case o.bad != nil:
		return found{path: p, bad: o.bad, o: o}, true
	case o.image.kind == Other:
		return found{path: p, bad: errNotLoadable, o: o}, true
	}
	return found{o: o, path: p}, true
}

var errMachine = &FormatError{"for another machine"}
var errByteOrder = &FormatError{"the other byte order"}
var errNotLoadable = &FormatError{"neither a program nor a shared library"}

// tooMuch says that no more is looked for: in this program, or in all together.
func (s *loadSet) tooMuch() bool { return s.probes > maxProbes || s.c.probes > s.c.mostProbes }

// maxProbes is how many files are tried for one program: some hundreds are
// usual, and a hostile file can ask for any number.
const maxProbes = 200_000

// probesEach is how many files are tried for each of the files that are checked,
// on average, beside twenty times maxProbes for all.
const probesEach = 5000
