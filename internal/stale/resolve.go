package stale

import (
	"path"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// resolver finds out what the paths lead to that the kernel prints for files
// of a process. A path is printed as seen from our own root directory if the
// file is on one of our mounts, and else as seen from the root of the mount
// namespace that it is in.
type resolver struct {
	self string // our own mount namespace, as its link prints it

	mu   sync.Mutex
	dirs map[string]directory // in our own namespace
}

// directory is the answer to "which directory has this path?".
type directory struct {
	id Inode
	ok bool // it is there, and no symbolic link led to it
}

// view is the resolver for the files of one process.
type view struct {
	r    *resolver
	p    *process
	own  bool                 // it has our mounts
	root string               // if not: its root directory as printed, "" for "/"
	dirs map[string]directory // if not
}

func (r *resolver) viewOf(p *process) *view {
	ns, err := p.link("ns/mnt")
	if err == nil && ns == r.self || err != nil && r.self == "" {
		return &view{r: r, p: p, own: true}
	}
	root, err := p.link("root")
	if err != nil {
		root = "?" // begins no path
	}
	return &view{r: r, p: p, root: strings.TrimSuffix(root, "/"), dirs: map[string]directory{}}
}

// reach turns a printed path into what openat(2) and its like take: our own
// path as it is, another by way of the process's root directory. Below that it
// must be, or there is no way to it.
func (v *view) reach(text string) (at int, name string, ok bool) {
	if v.own {
		return unix.AT_FDCWD, text, strings.HasPrefix(text, "/")
	}
	rest, ok := strings.CutPrefix(text, v.root)
	return v.p.dir, "root" + rest, ok
}

// directory looks a printed path up, once for all processes with our mounts.
func (v *view) directory(dir string) directory {
	if !v.own {
		d, ok := v.dirs[dir]
		if !ok {
			d = v.lookUp(dir)
			v.dirs[dir] = d
		}
		return d
	}
	v.r.mu.Lock()
	d, ok := v.r.dirs[dir]
	v.r.mu.Unlock()
	if !ok {
		d = v.lookUp(dir) // unlocked: a dead mount may hold us up here, but nobody else
		v.r.mu.Lock()
		v.r.dirs[dir] = d
		v.r.mu.Unlock()
	}
	return d
}

// lookUp opens the directory. It counts only if the kernel prints the same
// path for it: then no symbolic link has led us elsewhere.
func (v *view) lookUp(dir string) directory {
	at, name, ok := v.reach(dir)
	if !ok {
		return directory{}
	}
	fd, err := openAt(at, name, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return directory{}
	}
	defer unix.Close(fd)
	text, err := pathOf(fd)
	if err != nil || text != dir {
		return directory{}
	}
	st, err := statAt(fd, "")
	return directory{st.id, err == nil}
}

// file finds the file that a path leads to, and the directory that it is in.
func (v *view) file(text string) (file, parent Inode, ok bool) {
	at, name, ok := v.reach(text)
	if !ok {
		return Inode{}, Inode{}, false
	}
	d := v.directory(path.Dir(text))
	if !d.ok {
		return Inode{}, Inode{}, false
	}
	st, err := statAt(at, name)
	return st.id, d.id, err == nil
}

// nearest is the directory that a deleted file was in, or if that is deleted,
// too, the nearest one above that is still there.
func (v *view) nearest(text string) directory {
	if !strings.HasPrefix(text, "/") {
		return directory{}
	}
	for dir := path.Dir(text); ; dir = path.Dir(dir) {
		if d := v.directory(dir); d.ok || dir == "/" {
			return d
		}
	}
}
