package disk

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Root is the real [FS]: the tree below one directory, held by descriptor.
type Root struct {
	path string
	fd   int

	// Descriptors of directories below the root, so that renaming back to back
	// costs one system call a name. A directory that is renamed or removed is
	// forgotten with all that lies below it.
	mu    sync.Mutex
	dirs  map[string]*dirHandle
	above map[string]int // how many of dirs are at or below a name
}

type dirHandle struct {
	fd    int
	users int
	stale bool
}

// maxDirs bounds the descriptors that are held; 1024 is the usual soft limit of
// open files for a process.
const maxDirs = 256

var _ FS = (*Root)(nil)

// Open holds the directory at path, which may be reached through symbolic
// links, as the root of an [FS]. Close gives it up.
func Open(path string) (*Root, error) {
	fd, err := open(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &Root{path: path, fd: fd, dirs: map[string]*dirHandle{}, above: map[string]int{}}, nil
}

// Close gives up the root. Files that were created through it stay usable.
func (r *Root) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetAll()
	if r.fd < 0 {
		return nil
	}
	err := unix.Close(r.fd)
	r.fd = -1
	return err
}

// Lookup opens the directory called name below the root for reading, under the
// rules of the names of an [FS]: for reads that must not be led astray either.
func (r *Root) Lookup(name string) (*os.File, error) {
	if err := checkName(name); err != nil {
		return nil, r.pathError("open", name, err)
	}
	fd, err := r.openBeneath(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return nil, r.pathError("open", name, err)
	}
	return os.NewFile(uintptr(fd), r.full(name)), nil
}

func (r *Root) full(name string) string {
	if name == "." {
		return r.path
	}
	return r.path + "/" + name
}

func (r *Root) pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: r.full(name), Err: err}
}

func (r *Root) linkError(op, oldname, newname string, err error) error {
	return &os.LinkError{Op: op, Old: r.full(oldname), New: r.full(newname), Err: err}
}

// checkName refuses what is not a clean relative name below the root.
func checkName(name string) error {
	if name == "" || name[0] == '/' || strings.IndexByte(name, 0) >= 0 || path.Clean(name) != name ||
		name == ".." || strings.HasPrefix(name, "../") {
		return unix.EINVAL
	}
	return nil
}

// parent returns the directory of name, held until release is called, and the
// last component.
func (r *Root) parent(name string) (fd int, base string, release func(), err error) {
	if err := checkName(name); err != nil || name == "." {
		return -1, "", nil, unix.EINVAL
	}
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return r.fd, name, func() {}, nil
	}
	h, err := r.dir(name[:i])
	if err != nil {
		return -1, "", nil, err
	}
	return h.fd, name[i+1:], func() { r.release(h) }, nil
}

func (r *Root) dir(name string) (*dirHandle, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.dirs[name]; h != nil {
		h.users++
		return h, nil
	}
	fd, err := r.openBeneath(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if len(r.dirs) >= maxDirs {
		r.forgetAll()
	}
	h := &dirHandle{fd: fd, users: 1}
	r.dirs[name] = h
	r.count(name, 1)
	return h, nil
}

// count adds n to the counts of a directory and of all that it lies below.
func (r *Root) count(dir string, n int) {
	for {
		if r.above[dir] += n; r.above[dir] == 0 {
			delete(r.above, dir)
		}
		i := strings.LastIndexByte(dir, '/')
		if i < 0 {
			return
		}
		dir = dir[:i]
	}
}

func (r *Root) release(h *dirHandle) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h.users--
	if h.stale && h.users == 0 {
		unix.Close(h.fd)
	}
}

// forget drops the held descriptors of a directory and of all below it.
func (r *Root) forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.above[name] == 0 {
		return // a file, mostly
	}
	for dir, h := range r.dirs {
		if dir == name || (len(dir) > len(name) && dir[len(name)] == '/' && dir[:len(name)] == name) {
			r.drop(dir, h)
		}
	}
}

func (r *Root) forgetAll() {
	for dir, h := range r.dirs {
		r.drop(dir, h)
	}
}

func (r *Root) drop(dir string, h *dirHandle) {
	delete(r.dirs, dir)
	r.count(dir, -1)
	h.stale = true
	if h.users == 0 {
		unix.Close(h.fd)
	}
}

// openBeneath opens an existing name, with no symbolic link on the way
// (openat2(2), Linux 5.6; older kernels and seccomp filters that do not know it
// get the walk by hand).
func (r *Root) openBeneath(name string, flags int) (int, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	}
	for {
		fd, err := unix.Openat2(r.fd, name, &how)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
			continue
		case err == unix.ENOSYS || err == unix.EPERM:
			return r.walk(name, flags)
		}
		return fd, err
	}
}

func (r *Root) walk(name string, flags int) (int, error) {
	at := r.fd
	parts := strings.Split(name, "/")
	for i, part := range parts {
		how := flags | unix.O_NOFOLLOW
		if i < len(parts)-1 {
			how = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
		}
		fd, err := open(at, part, how, 0)
		if at != r.fd {
			unix.Close(at)
		}
		if err != nil {
			return -1, err
		}
		at = fd
	}
	return at, nil
}

func open(at int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(at, name, flags, mode)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
