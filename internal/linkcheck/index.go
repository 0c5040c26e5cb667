package linkcheck

import (
	"context"
	"path"
	"slices"
	"strings"
)

// Index knows the programs and libraries of a host and what each needs. It is
// refreshed by looking whether directories and files are still the same, and
// reads only what is not. Its zero value is empty. It is not safe for concurrent
// use.
type Index struct {
	dirs    map[string]*indexDir // by logical path
	changes uint64               // how often something had changed
	memory  memory

	// made when they are needed, from dirs
	paths []string
	by    map[string][]*indexFile // by needed name
	links map[string][]string     // names of links, by the path that they lead to
	files map[string]*indexFile
}

// indexDir is a directory as it was when it was read.
type indexDir struct {
	id    stamp
	subs  []string     // directories in it
	files []*indexFile // what could be a program or library, by its mode or name
	links []indexLink  // links whose names are those of libraries
}

// indexFile is a file as it was when it was read.
type indexFile struct {
	path   string // logical
	id     stamp
	kind   Kind
	class  uint16 // class and machine
	soname string
	needed []string
}

type indexLink struct{ name, to string }

// stamp tells whether a file or directory is still the same. Whatever changes a
// file changes its ctime, which no program can set.
type stamp struct {
	dev, ino   uint64
	ctime      int64 // nanoseconds
	mtime      int64 // of directories
	size, mode uint64
}

// Dependant is a file that needs a library.
type Dependant struct {
	Path   string // as seen in Root
	Kind   Kind   // Program or Library
	Needs  string // the name by which it needs the library, or the one on the way to it
	Direct bool   // it needs the library itself, not something that does
}

// DefaultDirs are where programs and libraries of a host are.
func DefaultDirs() []string {
	return []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/srv"}
}

// Refresh brings the index up to date with the files below these directories, as
// seen in o.Root, and says whether anything had changed since it was written.
// Directories that are not there are no error. No dirs are DefaultDirs.
//
// A file counts if it may be executed or its name has ".so", ".node" or ".cmxs"
// in it, unless the name ends as that of a text, picture or archive does. Of a
// target that moult owns, what is live counts, below its public names. Whether a
// directory has other files is known by its times: a file that was made executable
// where it is, and had not been, is seen when anything else in its directory
// changes. Files below o.Overlay are not looked at.
func (ix *Index) Refresh(ctx context.Context, o Options, dirs ...string) (changed bool, err error) {
	if len(dirs) == 0 {
		dirs = DefaultDirs()
	}
	t, err := newTree(o.Root, nil, nil)
	if err != nil {
		return false, err
	}
	w := walk{ctx: ctx, tree: t, old: ix.dirs, dirs: make(map[string]*indexDir, len(ix.dirs)+1)}
	for _, d := range dirs {
		if at := t.dir(d, 0); at.err == nil {
			if err := w.dir(at.logical, at.real, 0); err != nil {
				return false, err
			}
		}
	}
	changed = w.changed || len(w.dirs) != len(ix.dirs)
	ix.dirs = w.dirs
	if changed {
		ix.changes++
		ix.paths, ix.by, ix.links, ix.files = nil, nil, nil, nil
	}
	return changed, nil
}

// Paths are the programs and libraries of the index, sorted.
func (ix *Index) Paths() []string {
	ix.prepare()
	return ix.paths
}

// prepare makes the tables by which is looked up.
func (ix *Index) prepare() {
	if ix.by != nil {
		return
	}
	ix.by, ix.links, ix.files = map[string][]*indexFile{}, map[string][]string{}, map[string]*indexFile{}
	ix.paths = ix.paths[:0]
	for dir, d := range ix.dirs {
		for _, f := range d.files {
			if f.kind != Program && f.kind != Library {
				continue
			}
			ix.paths = append(ix.paths, f.path)
			ix.files[f.path] = f
			for _, name := range f.needed {
				ix.by[name] = append(ix.by[name], f)
			}
		}
		for _, l := range d.links {
			to := l.to
			if !path.IsAbs(to) {
				to = path.Join(dir, to)
			}
			ix.links[to] = append(ix.links[to], path.Join(dir, l.name))
		}
	}
	slices.Sort(ix.paths)
}

// Dependants are the files of the index that load one of these libraries, given
// by their paths (as seen in Root), directly or by way of other libraries,
// sorted by path. It goes by names: those of the file and of the links to it,
// and its SONAME. So the libraries need not exist, and who loads another library
// of the same name is among them: Check tells who really does.
func (ix *Index) Dependants(libraries ...string) []Dependant {
	ix.prepare()
	found := map[string]*Dependant{}
	seen := map[string]bool{} // names that were looked up, by class
	type level struct {
		path   string
		class  uint16
		direct bool
	}
	var todo []level
	for _, lib := range libraries {
		l := level{path: path.Clean(lib), direct: true}
		if f := ix.files[l.path]; f != nil {
			l.class = f.class
		}
		todo = append(todo, l)
	}
	for len(todo) > 0 {
		l := todo[0]
		todo = todo[1:]
		for _, name := range ix.namesOf(l.path) {
			key := name + string([]byte{0, byte(l.class), byte(l.class >> 8)})
			if seen[key] {
				continue
			}
			seen[key] = true
			for _, f := range ix.by[name] {
				if l.class != 0 && f.class != l.class {
					continue
				}
				if d := found[f.path]; d != nil {
					d.Direct = d.Direct || l.direct
					continue
				}
				found[f.path] = &Dependant{Path: f.path, Kind: f.kind, Needs: name, Direct: l.direct}
				if f.kind == Library {
					todo = append(todo, level{path: f.path, class: f.class})
				}
			}
		}
	}
	all := make([]Dependant, 0, len(found))
	for _, p := range sortedKeys(found) {
		all = append(all, *found[p])
	}
	return all
}

// namesOf are the names by which others may need a library: its own, those of
// links to it, and its SONAME; paths, too, for those who name them.
func (ix *Index) namesOf(p string) []string {
	names := []string{path.Base(p), p}
	if f := ix.files[p]; f != nil && f.soname != "" {
		names = append(names, f.soname)
	}
	todo := []string{p}
	for hops := 0; len(todo) > 0 && hops < maxLinks; hops++ {
		for _, link := range ix.links[todo[0]] {
			names = append(names, path.Base(link), link)
			todo = append(todo, link)
		}
		todo = todo[1:]
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// libraryName says whether a file of this name may be a library, whatever its
// mode.
func libraryName(name string) bool {
	return strings.Contains(name, ".so") || strings.HasSuffix(name, ".node") || strings.HasSuffix(name, ".cmxs")
}
