package stale

import (
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// node is a file that some process has mapped.
type node struct {
	facts
	known bool   // the facts are of the very inode; else only number and device as maps prints them
	root  *root  // of the process that it was first seen in
	text  string // the path as the kernel printed it when it was first seen
	code  bool   // a file of code, not shared memory and its like
	head  atomic.Pointer[elfHead]
	next  atomic.Pointer[target] // what was found last in its place
}

// elfHead is what content found of a file, nil if that is no ELF file.
type elfHead struct{ *elfFile }

type areaKey struct {
	dev, ino uint64
	text     string // only where the inode itself cannot be looked at
}

// inodeOf finds the inode of an area. The device that maps prints names a file
// system, but on btrfs not a subvolume, and on overlay it may be another one
// than stat(2) gives: such devices are not trusted, and each process's mapping
// is looked at.
func (l *visit) inodeOf(a *area) (*node, error) {
	s := l.search
	if n := l.known[Inode{a.dev, a.ino}]; n != nil && !s.mixed.Load() {
		return n, nil
	}
	if s.trusted(a.dev) {
		var err error
		n, ok := s.inodes.get(areaKey{dev: a.dev, ino: a.ino}, s.patience, func() (n *node, keep bool) {
			n, err = l.followed(a)
			if n != nil && n.id != (Inode{a.dev, a.ino}) {
				return nil, false // the process has executed another program meanwhile
			}
			return n, err == nil
		})
		if !ok || err == errHangs {
			return nil, errHangs
		}
		if n != nil {
			l.keep(n)
			return n, nil
		}
	} else {
		n, err := l.followed(a)
		if n != nil {
			return n, nil
		}
		if err != unix.EPERM && err != unix.EACCES && err != unix.ENOENT {
			return nil, err
		}
	}
	if a.text == "" {
		b, ok := l.areas.at(a.start)
		if !ok || b.ino != a.ino || b.dev != a.dev {
			return nil, unix.ESRCH // changed meanwhile
		}
		a.text = b.text
	}
	if !l.answers(strings.TrimSuffix(a.text, deletedSuffix), a.dev) {
		return nil, errHangs
	}
	n, ok := s.inodes.get(areaKey{a.dev, a.ino, a.text}, s.patience, func() (*node, bool) {
		return &node{facts: facts{id: Inode{a.dev, a.ino}}, text: a.text, code: !shared(a.text)}, true
	})
	if !ok {
		return nil, errHangs
	}
	return n, nil
}

// keep remembers a file of a device that is trusted, for this worker, which then
// asks nobody.
func (l *visit) keep(n *node) {
	if l.known == nil {
		l.known = map[Inode]*node{}
	}
	l.known[n.id] = n
}

// followed looks at the inode by the link in map_files.
func (l *visit) followed(a *area) (*node, error) {
	name := a.mapFile()
	f, err := inspect(l.p.dir, name, 0)
	if err != nil {
		return nil, err
	}
	if f.id.Ino == a.ino {
		l.search.learn(a.dev, f.id.Dev)
	}
	if !l.answers(l.search.proc+"/"+strconv.Itoa(l.p.pid)+"/"+name, f.id.Dev) {
		return nil, errHangs
	}
	n, ok := l.search.byID.get(f.id, l.search.patience, func() (*node, bool) {
		n := &node{facts: f, known: true, root: l.root}
		var sure bool
		n.text, sure = l.textOf(a, f.id)
		n.code = f.regular() && !(f.nlink == 0 && shared(n.text))
		// What one process says is believed of all that have the file.
		return n, sure || l.same()
	})
	if !ok {
		return nil, errHangs
	}
	return n, nil
}

// textOf is the path of a mapped file as the kernel prints it, and says whether
// it is that file's for sure. The memory that was looked at tells, which may not
// be the process's any more, where the area is one of the inode that the link in
// map_files led to; else the link does.
func (l *visit) textOf(a *area, id Inode) (text string, sure bool) {
	if !l.areas.text && id == (Inode{a.dev, a.ino}) {
		if b, err := l.ask.at(l.areas.maps, a.start); err == nil && b.dev == a.dev && b.ino == a.ino {
			return b.text, true
		}
	}
	text, _ = l.p.link(a.mapFile())
	return text, false
}

// shared says that a path is none of a directory, but a name that the kernel
// gives to memory.
func shared(text string) bool {
	name, deleted := strings.CutSuffix(text, deletedSuffix)
	if !deleted {
		return false
	}
	for _, p := range []string{"/memfd:", "/SYSV", "/dev/zero", "/anon_hugepage", "/[aio]", "/i915", "/drm mm object", "/dmabuf:"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// trusted says that a device number of maps is that of stat(2), so that with
// the inode's number it names one file.
func (s *search) trusted(dev uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.devices[dev] == deviceSame
}

// learn remembers what a device of maps is to stat(2).
func (s *search) learn(printed, stat uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.devices == nil {
		s.devices = map[uint64]deviceKind{}
	}
	switch {
	case printed != stat:
		if s.devices[printed] == deviceSame {
			s.mixed.Store(true)
		}
		s.devices[printed] = deviceOther
	case s.devices[printed] == deviceUnknown:
		s.devices[printed] = deviceSame
	}
}

type deviceKind uint8

const (
	deviceUnknown deviceKind = iota
	deviceSame
	deviceOther
)

// content reads the head of the file, as the process has it mapped. It returns
// nil if that is no ELF file, or cannot be read.
func (l *visit) content(n *node, a area) *elfFile {
	if h := n.head.Load(); h != nil {
		return h.elfFile
	}
	f, _ := l.search.heads.get(n, l.search.patience, func() (*elfFile, bool) {
		fd, err := l.openMapped(n, a)
		if err != nil {
			return nil, !gone(err)
		}
		defer unix.Close(fd)
		f, _ := readELF(descriptorAt(fd))
		n.head.Store(&elfHead{f})
		return f, true
	})
	return f
}

// openMapped opens the file that is mapped, not the one that has its name now.
func (l *visit) openMapped(n *node, a area) (int, error) {
	flags := unix.O_RDONLY | unix.O_NONBLOCK
	fd, err := openAt(l.p.dir, a.mapFile(), flags)
	if err == nil && n.known {
		if f, e := inspect(fd, "", 0); e != nil || f.id != n.id {
			unix.Close(fd)
			return -1, unix.ESRCH // the process has executed another program meanwhile
		}
	}
	if err == nil {
		return fd, nil
	}
	// Without the right to map_files there is the link to the executable.
	if st, e := inspect(l.p.dir, "exe", 0); e == nil && st.id.Ino == n.id.Ino && (n.known && st.id == n.id || !n.known && a.contains(l.aux.entry)) {
		return openAt(l.p.dir, "exe", flags)
	}
	// Or the path, if it still leads to the file.
	u := used{area: a, node: n}
	if r, name := l.named(&u); r != nil {
		if t, ok := l.lookUp(r, name); ok && t.err == nil && u.is(t) {
			return t.open()
		}
	}
	return -1, err
}
