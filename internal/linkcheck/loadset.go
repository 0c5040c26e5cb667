package linkcheck

import (
	"errors"
	"maps"
	"strings"
)

// loadSet is what the loader maps for a program, in its order: breadth first.
type loadSet struct {
	c      *checker
	sys    *system
	asked  string  // the path that was asked for
	main   *loaded // the program, or a library in its place
	list   []*loaded
	names  map[string]*loaded // by every name under which it would be found
	known  map[string]*loaded // by those under which it was asked for: versions go by these
	files  map[*object]*loaded
	fakes  map[string]bool // needed and not found
	strict bool            // glibc before 2.30: a symbol is where its version is wanted of
	failed bool            // the loader stops at something: nothing more is known
	unread error           // something could not be read
	probes int
	start  int     // of list: what is to be judged; a plugin's host is not
	plugin *loaded // what main loads by name, if that is what is judged
	called string  // the path that was asked for as a plugin
}

// room is what one load set leaves to the next: there are thousands, one after
// the other.
type room struct {
	names, known map[string]*loaded
	files        map[*object]*loaded
}

// done gives the room of a load set back. Nothing of it may be used any more.
func (s *loadSet) done() {
	clear(s.names)
	clear(s.known)
	clear(s.files)
	s.c.room = room{s.names, s.known, s.files}
	s.names, s.known, s.files = nil, nil, nil
}

const maxLoaded = 4096 // files that one program loads

var errTooMuch = errors.New("needs more files than anything does")

// load builds the load set of a program or library.
func (c *checker) load(asked string, o *object) *loadSet {
	s := &loadSet{
		c: c, sys: c.systemOf(o), asked: asked,
		names: c.room.names, known: c.room.known, files: c.room.files, fakes: map[string]bool{},
	}
	c.room = room{}
	if s.names == nil {
		s.names, s.known, s.files = make(map[string]*loaded, 64), make(map[string]*loaded, 64), make(map[*object]*loaded, 32)
	}
	s.main = &loaded{o: o, name: o.path}
	if o == s.sys.interp {
		s.failed = true // the loader itself: it loads nothing
		return s
	}
	s.add(s.main)
	if i := s.sys.interp; i != nil && i.bad == nil {
		// The kernel has mapped it: it is found by its names, before any search,
		// and has its place where it is needed first.
		l := &loaded{o: i, name: s.sys.interpPath}
		s.know(l, l.name)
		s.know(l, i.image.soname)
		if s.sys.musl {
			for _, name := range muslOwnNames {
				s.name(l, name)
			}
			s.name(l, "libc.musl-"+muslArch[s.sys.machine]+".so.1")
		}
	}
	for _, name := range s.preloads() {
		if l, _ := s.need(name, nil); l == nil && !s.failed {
			s.c.report(s, Finding{Problem: MissingLibrary, Severity: Warning, Object: asked, Needs: name, Detail: "it is to be preloaded"})
		}
	}
	s.follow(0)
	s.strict = s.oldLibc()
	return s
}

// oldLibc says whether the loader is that of glibc before 2.30, which gives up
// where the file that a version is wanted of has no such symbol, even if another
// one has (glibc bug 24741). Of those without glibc-hwcaps/, which came with 2.33,
// the C library beside it tells.
func (s *loadSet) oldLibc() bool {
	libc := s.names["libc.so.6"]
	if s.sys.musl || s.sys.levels || libc == nil || s.files[libc.o] == nil {
		return false
	}
	glibc := false
	for _, d := range libc.o.image.defines {
		if d.name == "GLIBC_2.30" {
			return false
		}
		glibc = glibc || strings.HasPrefix(d.name, "GLIBC_2.")
	}
	return glibc
}

// muslOwnNames are names that musl never looks for: all of it is in its loader.
var muslOwnNames = []string{"libc.so", "libpthread.so", "librt.so", "libm.so", "libdl.so", "libutil.so", "libxnet.so"}

func (s *loadSet) preloads() []string {
	if s.main.o.image.interp == "" {
		return nil
	}
	var names []string
	for _, name := range s.c.o.Preload {
		if !s.main.o.secure || !strings.Contains(name, "/") {
			names = append(names, name)
		}
	}
	if s.sys.musl {
		return names
	}
	return append(names, s.sys.preload...)
}

// add puts a file at the end of the list.
func (s *loadSet) add(l *loaded) {
	s.list = append(s.list, l)
	s.files[l.o] = l
	s.know(l, l.name)
	if !s.sys.musl { // which does not look at it
		s.name(l, l.o.image.soname)
	}
}

// know notes a name by which a file was asked for (l_libname in glibc).
func (s *loadSet) know(l *loaded, name string) {
	s.name(l, name)
	// The loader gives way as long as nobody needs it.
	if k := s.known[name]; name != "" && (k == nil || s.files[k.o] == nil) {
		s.known[name] = l
	}
}

func (s *loadSet) name(l *loaded, name string) {
	if _, ok := s.names[name]; !ok && name != "" {
		s.names[name] = l
	}
}

// follow loads what the files of the list need, from one of them on.
func (s *loadSet) follow(from int) {
	for i := from; i < len(s.list) && !s.failed; i++ {
		l := s.list[i]
		for _, name := range l.o.image.needed {
			if strings.Contains(name, "$") {
				if expanded, ok := s.expand(name, l); ok {
					name = expanded
				}
			}
			n, searched := s.need(name, l)
			if s.failed {
				return
			}
			if n == nil && !s.fakes[name] {
				s.fakes[name] = true
				s.missing(l, name, searched)
			}
		}
	}
}

// need finds what is needed by a name, loaded already or not.
func (s *loadSet) need(name string, loader *loaded) (*loaded, []string) {
	if l := s.names[name]; l != nil {
		s.know(l, name)
		s.place(l)
		return l, nil
	}
	f, searched := s.search(name, loader)
	if f.bad != nil {
		s.failed = true
		who := s.asked
		if loader != nil && loader != s.main {
			who = loader.o.path
		}
		s.c.report(s, Finding{
			Problem: BadFile, Severity: Break, Object: f.path, Detail: f.bad.Error() + "; needed by " + who + " as " + name,
		})
		return nil, nil
	}
	if f.o == nil && !s.tooMuch() {
		return nil, searched
	}
	if f.o == nil {
		s.giveUp()
		return nil, nil
	}
	// The main file is there by its names alone: the loader does not know its inode
	// (__RTLD_OPENEXEC in elf/dl-load.c, or the kernel has mapped it).
	if l := s.files[f.o]; l != nil && l != s.main {
		s.know(l, name)
		return l, nil
	}
	l := &loaded{o: f.o, name: f.path, loader: loader}
	if loader != nil {
		l.depth = loader.depth + 1
	}
	if l.depth > maxDepth || len(s.list) >= maxLoaded || s.tooMuch() {
		s.giveUp()
		return nil, nil
	}
	s.know(l, name)
	s.add(l)
	return l, nil
}

// giveUp ends a load set that asks for more than is looked for.
func (s *loadSet) giveUp() {
	s.failed = true
	s.c.report(s, Finding{Problem: BadFile, Severity: Break, Object: s.asked, Detail: errTooMuch.Error()})
}

// maxDepth bounds the chain of loaders whose run paths count.
const maxDepth = 256

// place gives the loader its place, which was mapped before all else.
func (s *loadSet) place(l *loaded) {
	if s.files[l.o] == nil {
		s.list = append(s.list, l)
		s.files[l.o] = l
	}
}

func (s *loadSet) missing(l *loaded, name string, searched []string) {
	if s.unread != nil {
		return // it may be where we may not look
	}
	s.c.report(s, Finding{
		Problem: MissingLibrary, Severity: s.doubt(Break), Object: s.path(l), Needs: name,
		Searched: searched, Near: s.c.nearLibrary(name, searched, s.sys),
	})
}

// path is how a file of the set is called in a report.
func (s *loadSet) path(l *loaded) string {
	switch l {
	case s.main:
		return s.asked
	case s.plugin:
		return s.called
	}
	return l.o.path
}

// doubt is a severity in a library that is checked on its own: what it lacks
// may come from the program that loads it.
func (s *loadSet) doubt(severity Severity) Severity {
	if severity == Break && s.main.o.image.kind == Library && s.plugin == nil {
		return Warning
	}
	return severity
}

// plug is the load set of a host with a plugin that it loads by name: symbols
// come from the host's files, then from the plugin's own (dlopen(3)).
func (s *loadSet) plug(asked string, o *object) *loadSet {
	p := *s
	p.list = append([]*loaded(nil), s.list...)
	p.names, p.known = maps.Clone(s.names), maps.Clone(s.known)
	p.files, p.fakes = maps.Clone(s.files), map[string]bool{}
	p.start, p.unread, p.called = len(p.list), nil, asked
	if p.files[o] != nil {
		return &p // the host has it anyway
	}
	p.plugin = &loaded{o: o, name: o.path, loader: s.main, depth: 1}
	p.add(p.plugin)
	p.follow(p.start)
	return &p
}
