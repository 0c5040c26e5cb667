package linkcheck

import (
	"errors"
	"io/fs"
	"path"

	"golang.org/x/sys/unix"
)

// searchIn looks for a name in one directory after the other.
func (s *loadSet) searchIn(name string, dirs []string) found {
	ended := false
	for _, d := range dirs {
		if ended && d != listEnd {
			continue
		}
		switch d {
		case listEnd:
			ended = false
		case cachePlace, cacheWithoutDefaults:
			p, ok := s.cached(name)
			if !ok || d == cacheWithoutDefaults && s.isDefault(path.Dir(p)) {
				continue
			}
			if f, ok := s.try(p); ok {
				return f
			}
		default:
			f, ok := s.tryDir(d, name)
			if ok {
				return f
			}
			if ended = s.ends(f.err, d); ended && s.sys.musl {
				return found{}
			}
		}
	}
	return found{}
}

// ends says whether the loader gives up a list of directories because of an error
// of opening a file in one of them, such as a link that leads to itself (open_path
// in elf/dl-load.c): glibc goes on with the next list, musl with nothing.
func (s *loadSet) ends(err error, dir string) bool {
	var errno unix.Errno
	if !errors.As(err, &errno) || errno == unix.ENOENT || errno == unix.EACCES || errno == unix.EFBIG {
		return false
	}
	if s.sys.musl {
		return errno != unix.ENOTDIR && errno != unix.ENAMETOOLONG
	}
	return s.c.tree.dir(dir, 0).err == nil
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
		if errors.Is(err, errNotRegular) && s.c.tree.find(p).stat.Mode&unix.S_IFMT == unix.S_IFDIR {
			return found{path: p, bad: errDirectory}, true // it can be opened, and not be read
		}
		return found{err: err}, false
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
var errDirectory = errors.New("is a directory")
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
