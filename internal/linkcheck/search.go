package linkcheck

import (
	"path"
	"slices"
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
	err  error // why it could not be opened
}

// directories is the order in which the loader looks for a name without a
// slash, as one list; listEnd stands between its parts. The name of the place
// where the cache is consulted is cachePlace.
func (s *loadSet) directories(loader *loaded) []string {
	if s.sys.musl {
		return s.muslDirectories(loader)
	}
	var dirs []string
	if loader == nil || !loader.o.image.hasRunpath {
		main := false
		for l := loader; l != nil; l = l.loader {
			dirs = append(append(dirs, s.runPath(l, l.rpath())...), listEnd)
			main = main || l == s.main
		}
		if !main {
			dirs = append(append(dirs, s.runPath(s.main, s.main.rpath())...), listEnd)
		}
	}
	if !s.main.o.secure {
		for _, d := range s.c.o.LibraryPath {
			dirs = s.appendDir(dirs, d, s.main)
		}
		dirs = append(dirs, listEnd)
	}
	noDefaults := s.main.o.image.flags1&flagNoDefaults != 0
	if loader != nil {
		dirs = append(dirs, s.runPath(loader, loader.o.image.runpath)...)
		noDefaults = loader.o.image.flags1&flagNoDefaults != 0
	}
	if noDefaults {
		return append(dirs, cacheWithoutDefaults)
	}
	dirs = append(dirs, listEnd, cachePlace)
	return append(dirs, s.sys.defaults...)
}

const (
	listEnd              = ""
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
	return f, slices.DeleteFunc(dirs, func(d string) bool { return d == listEnd })
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
