package linkcheck

import (
	"errors"
	"io/fs"
	"reflect"

	"golang.org/x/sys/unix"
)

// object is a file that was opened to be checked. There is one for each inode.
type object struct {
	path    string // where it was found first, at the end of all links
	id      fileID
	mode    uint32
	image   *image
	bad     error // why the loader would refuse it: a *FormatError
	secure  bool  // started with more privileges than its user has
	epoch   uint32
	refs    []reference
	refsErr error
	refsOK  bool
	// What its references were resolved to, by provider, and what nothing
	// provides: see resolve.go.
	groups    []group
	leftovers []reference
	resolved  bool
}

type fileID struct{ dev, ino uint64 }

// objects are all files that were opened. They stay mapped until close.
type objects struct {
	tree   *tree
	byID   map[fileID]*object
	byPath map[string]opened
	shrunk map[fileID]bool // files that lost pages while they were read
	maps   []mapping
}

type opened struct {
	o   *object
	err error
}

// mapping is a mapped file.
type mapping struct {
	data []byte
	o    *object
}

func newObjects(t *tree, shrunk map[fileID]bool) *objects {
	return &objects{tree: t, byID: map[fileID]*object{}, byPath: map[string]opened{}, shrunk: shrunk}
}

// open opens a file once. The error is one of the file system; what is wrong
// with the file is the object's.
func (s *objects) open(path string) (*object, error) {
	if r, ok := s.byPath[path]; ok {
		return r.o, r.err
	}
	o, err := s.openNew(path)
	s.byPath[path] = opened{o, err}
	return o, err
}

func (s *objects) openNew(path string) (*object, error) {
	at := s.tree.find(path)
	if at.err == nil && at.real != "" {
		if o := s.byID[fileID{at.stat.Dev, at.stat.Ino}]; o != nil && at.stat.Mode&unix.S_IFMT == unix.S_IFREG {
			return o, nil
		}
	}
	f, at, err := s.tree.open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	o := &object{path: at.logical, id: fileID{at.stat.Dev, at.stat.Ino}, mode: at.stat.Mode}
	if known := s.byID[o.id]; known != nil {
		return known, nil
	}
	o.secure = at.stat.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 && at.stat.Mode&0o111 != 0
	var data []byte
	if at.stat.Size > maxFile {
		return nil, &fs.PathError{Op: "mmap", Path: path, Err: unix.EFBIG}
	}
	if at.stat.Size > 0 {
		data, err = unix.Mmap(int(f.Fd()), 0, int(at.stat.Size), unix.PROT_READ, unix.MAP_PRIVATE)
		if err != nil {
			return nil, &fs.PathError{Op: "mmap", Path: path, Err: err}
		}
		s.maps = append(s.maps, mapping{data, o})
	}
	s.byID[o.id] = o
	if s.shrunk[o.id] {
		o.image, o.bad = &image{}, &FormatError{"it is shorter than its segments"}
		return o, nil
	}
	o.image, o.bad = parseImage(data)
	if o.bad != nil && !errors.As(o.bad, new(*FormatError)) {
		return nil, o.bad
	}
	return o, nil
}

// maxFile is larger than any program. A sparse file can say that it has any size,
// and costs nobody anything but who reads it.
const maxFile = 8 << 30

// at is the file in whose mapping an address is.
func (s *objects) at(addr uintptr) (*object, bool) {
	for _, m := range s.maps {
		start := reflect.ValueOf(m.data).Pointer()
		if addr >= start && addr-start < uintptr(len(m.data)) {
			return m.o, true
		}
	}
	return nil, false
}

func (s *objects) close() {
	for _, m := range s.maps {
		unix.Munmap(m.data)
	}
	s.maps = nil
}
