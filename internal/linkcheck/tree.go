package linkcheck

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// tree is the file system of the checked host: a root directory, with the
// overlay laid over it. Links are followed as that host would, so that none
// leads out of the root. Paths in it are called logical; where the bytes are is
// the real path.
type tree struct {
	root    string            // "" is /
	overlay map[string]string // logical to real; "" is removed
	virtual map[string]bool   // directories that hold something of the overlay
	dirs    map[string]place  // what was found of directories, by the path asked for
	links   map[string]place  // likewise of files
}

// place is where a file is.
type place struct {
	logical, real string // real is "" for a directory that exists only by the overlay
	err           error
	stat          unix.Stat_t
}

const maxLinks = 40 // as the kernel's

// linkPrefix marks the text of a symbolic link in the overlay. No path has a NUL.
const linkPrefix = "\x00"

func newTree(root string, overlay, links map[string]string) (*tree, error) {
	t := &tree{dirs: map[string]place{}, links: map[string]place{}}
	if root != "" && path.Clean(root) != "/" {
		t.root = path.Clean(root)
	}
	if len(overlay)+len(links) == 0 {
		return t, nil
	}
	t.overlay, t.virtual = make(map[string]string, len(overlay)+len(links)), map[string]bool{}
	lay := func(staged map[string]string, prefix string) error {
		for p, to := range staged {
			if !path.IsAbs(p) || p == "/" {
				return &fs.PathError{Op: "overlay", Path: p, Err: errors.New("not an absolute path of a file")}
			}
			t.overlay[path.Clean(p)] = prefix + to
		}
		return nil
	}
	if err := errors.Join(lay(overlay, ""), lay(links, linkPrefix)); err != nil {
		return nil, err
	}
	// A path may lead through links of the host (/lib is /usr/lib): what counts
	// is where it really will be. Parents are looked up with the overlay as far
	// as it is there.
	settled := make(map[string]string, len(overlay))
	for p, staged := range t.overlay {
		settled[t.settle(p)] = staged
	}
	t.overlay = settled
	clear(t.dirs)
	clear(t.links)
	for p, staged := range t.overlay {
		if staged == "" {
			continue
		}
		for d := path.Dir(p); d != "/" && !t.virtual[d]; d = path.Dir(d) {
			t.virtual[d] = true
		}
	}
	return t, nil
}

// settle is a path with the links of its directories followed as far as there
// are any.
func (t *tree) settle(p string) string {
	dir, rest := path.Dir(p), path.Base(p)
	for {
		if d := t.dir(dir, 0); d.err == nil {
			return path.Join(d.logical, rest)
		}
		if dir == "/" {
			return p
		}
		dir, rest = path.Dir(dir), path.Base(dir)+"/"+rest
	}
}

// dir finds a directory.
func (t *tree) dir(p string, hops int) place {
	if p == "/" || p == "" {
		return place{logical: "/", real: t.root + "/"}
	}
	if d, ok := t.dirs[p]; ok {
		return d
	}
	d := t.step(p, hops)
	if d.err == nil && d.real != "" && d.stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		d = place{logical: d.logical, err: unix.ENOTDIR}
	}
	t.dirs[p] = d
	return d
}

// find finds what is at a path, at the end of all links.
func (t *tree) find(p string) place {
	if at, ok := t.links[p]; ok {
		return at
	}
	at := t.step(p, 0)
	t.links[p] = at
	return at
}

// step goes from a directory to the entry that p names there.
func (t *tree) step(p string, hops int) place {
	p = strings.TrimRight(p, "/")
	slash := strings.LastIndexByte(p, '/')
	parent, name := p[:max(slash, 0)], p[slash+1:]
	d := t.dir(parent, hops)
	if d.err != nil {
		return d
	}
	switch name {
	case "", ".":
		return t.asDir(d)
	case "..":
		return t.asDir(t.dir(path.Dir(d.logical), hops))
	}
	at := t.entry(d, name)
	if at.err != nil || at.stat.Mode&unix.S_IFMT != unix.S_IFLNK {
		return at
	}
	if hops++; hops > maxLinks {
		return place{logical: at.logical, err: unix.ELOOP}
	}
	to, isText := strings.CutPrefix(at.real, linkPrefix)
	if !isText {
		var err error
		if to, err = os.Readlink(at.real); err != nil {
			return place{logical: at.logical, err: reason(err)}
		}
	}
	if !strings.HasPrefix(to, "/") {
		to = strings.TrimSuffix(d.logical, "/") + "/" + to
	}
	return t.step(to, hops)
}

func (t *tree) asDir(d place) place {
	d.stat.Mode = unix.S_IFDIR
	return d
}

// entry is what a directory has under a name, link or not.
func (t *tree) entry(d place, name string) place {
	at := place{logical: strings.TrimSuffix(d.logical, "/") + "/" + name}
	staged, laid := t.overlay[at.logical]
	switch {
	case laid && staged == "":
		return place{logical: at.logical, err: unix.ENOENT}
	case laid && strings.HasPrefix(staged, linkPrefix):
		return place{logical: at.logical, real: staged, stat: unix.Stat_t{Mode: unix.S_IFLNK}}
	case laid:
		at.real = staged
	case d.real == "":
		at.err = unix.ENOENT
	default:
		at.real = strings.TrimSuffix(d.real, "/") + "/" + name
	}
	if at.err == nil {
		at.err = unix.Lstat(at.real, &at.stat)
	}
	if at.err != nil && t.virtual[at.logical] {
		return place{logical: at.logical, stat: unix.Stat_t{Mode: unix.S_IFDIR}}
	}
	return at
}

// names are the names in a directory, with those of the overlay; nil if it
// cannot be read.
func (t *tree) names(p string) []string {
	d := t.dir(p, 0)
	if d.err != nil {
		return nil
	}
	var names []string
	if d.real != "" {
		if f, err := os.Open(d.real); err == nil {
			names, _ = f.Readdirnames(maxDirNames)
			f.Close()
		}
	}
	for laid, staged := range t.overlay {
		if path.Dir(laid) != d.logical {
			continue
		}
		name := path.Base(laid)
		names = slices.DeleteFunc(names, func(n string) bool { return n == name })
		if staged != "" {
			names = append(names, name)
		}
	}
	return names
}

const maxDirNames = 1 << 20

// read reads a small file.
func (t *tree) read(p string, limit int64) ([]byte, error) {
	f, at, err := t.open(p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if at.stat.Size > limit {
		return nil, &fs.PathError{Op: "read", Path: p, Err: unix.EFBIG}
	}
	b := make([]byte, at.stat.Size)
	n, err := f.ReadAt(b, 0)
	if n < len(b) && err != nil && n == 0 {
		return nil, err
	}
	return b[:n], nil
}

// open opens a regular file for reading; at.stat is that of the open file.
func (t *tree) open(p string) (*os.File, place, error) {
	at := t.find(p)
	if at.err == nil && at.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		at.err = errNotRegular
	}
	if at.err != nil {
		return nil, at, &fs.PathError{Op: "open", Path: p, Err: at.err}
	}
	// It was a regular file a moment ago; a pipe or device must not hold us up.
	fd, err := unix.Open(at.real, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err == nil {
		if err = unix.Fstat(fd, &at.stat); err == nil && at.stat.Mode&unix.S_IFMT != unix.S_IFREG {
			err = errNotRegular
		}
		if err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		at.err = err
		return nil, at, &fs.PathError{Op: "open", Path: p, Err: err}
	}
	return os.NewFile(uintptr(fd), at.real), at, nil
}

var errNotRegular = errors.New("not a regular file")

// reason is the error without its path, which is told elsewhere.
func reason(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
