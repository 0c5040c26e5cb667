package stale

import (
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// look is what is found out about one process.
type look struct {
	*scan
	p    *process
	v    *view
	uses []Use
}

func (l *look) view() *view {
	if l.v == nil {
		l.v = l.r.viewOf(l.p)
	}
	return l.v
}

// link looks at what a link of /proc/PID leads to.
func (l *look) link(by By, name string) error {
	st, err := l.p.stat(name)
	if err != nil {
		return err
	}
	held := l.x.holders(st.id)
	if len(held) == 0 && (by != ByExe || l.byInode) {
		return nil
	}
	text, err := l.p.link(name)
	switch {
	case err == unix.ENAMETOOLONG: // a path longer than PATH_MAX decides nothing
		l.add(held, by, "")
	case err != nil:
		return err
	case st.dir || l.byInode: // a directory has no other names
		l.add(held, by, text)
	case len(held) > 0 || strings.HasSuffix(text, deletedSuffix) || l.x.covers(text):
		l.add(l.named(text, st.id, by == ByExe), by, text)
	}
	return nil
}

// named says in which trees the file is used that a process got as the path
// text: in the one that the path leads through, or if it leads to the file no
// more, in all that hold it. What was loaded from there may load more.
func (l *look) named(text string, id Inode, loads bool) []int {
	v := l.view()
	if file, parent, ok := v.file(text); ok && file == id {
		return l.x.holders(parent)
	}
	of := l.x.holders(id)
	if loads {
		of = append(of, l.deletedFrom(text)...)
	}
	return of
}

// deletedFrom says which trees a deleted file was in.
func (l *look) deletedFrom(text string) []int {
	name, deleted := strings.CutSuffix(text, deletedSuffix)
	if !deleted {
		return nil
	}
	if d := l.view().nearest(name); d.ok {
		return l.x.holders(d.id)
	}
	return nil
}

func (l *look) add(of []int, by By, path string) {
	for _, i := range of {
		if u := (Use{i, by, path}); !slices.Contains(l.uses, u) {
			l.uses = append(l.uses, u)
		}
	}
}

// rest looks at everything but the executable.
func (l *look) rest() error {
	if err := l.maps(); err != nil || l.byInode {
		return err
	}
	if err := l.directories(""); err != nil {
		return err
	}
	if err := l.files(""); err != nil {
		return err
	}
	return l.threads()
}

// directories looks at the working and the root directory; prefix is "" or
// that of a thread.
func (l *look) directories(prefix string) error {
	if err := l.link(ByCwd, prefix+"cwd"); err != nil {
		return err
	}
	return l.link(ByRoot, prefix+"root")
}

// files looks at what is open. Our own descriptors are the caller's work.
func (l *look) files(prefix string) error {
	if l.p.pid == l.self {
		return nil
	}
	for fd, err := range l.p.numbers(prefix + "fd") {
		if err != nil {
			return err
		}
		err := l.link(ByFD, prefix+"fd/"+strconv.Itoa(fd))
		if err != nil && err != unix.ENOENT { // closed meanwhile
			return err
		}
	}
	return nil
}

// threads looks at the threads that have a directory or descriptors of their
// own; the mappings are common to all.
func (l *look) threads() error {
	st, err := statAt(l.p.dir, "task")
	if err != nil {
		return err
	}
	if st.nlink == 3 { // ".", ".." and one thread
		return nil
	}
	for tid, err := range l.p.numbers("task") {
		if err != nil {
			return err
		}
		if tid == l.p.pid {
			continue
		}
		prefix := "task/" + strconv.Itoa(tid) + "/"
		if !l.live || !shares(l.p.pid, tid, kcmpFS) {
			err = l.directories(prefix)
		}
		if err == nil && (!l.live || !shares(l.p.pid, tid, kcmpFiles)) {
			err = l.files(prefix)
		}
		if err != nil && !gone(err) {
			return err
		}
	}
	return nil
}

// maps looks at the mappings. Only those are looked up that may matter: the
// inode number is one that is wanted, or the file was deleted, or its path is
// in one of the trees, which it may have entered after we listed them.
func (l *look) maps() error {
	var last []byte
	seen := map[string]bool{}
	for m, err := range l.p.mapped() {
		if err != nil {
			return err
		}
		if string(m.file) == string(last) {
			continue // the next part of the same file
		}
		last = append(last[:0], m.file...)
		if !l.x.hasNumber(m.ino) && (l.byInode || !m.deleted() && !l.x.covers(string(m.path))) {
			continue
		}
		if seen[string(m.file)] {
			continue
		}
		seen[string(m.file)] = true
		l.mapping(m)
	}
	return nil
}

// mapping looks at one mapping. The link in map_files leads to the very inode.
// Where it cannot be followed, maps has the number and the path: only root may
// follow it, and it is gone when mprotect(2) has split the mapping since.
func (l *look) mapping(m mapping) {
	name := m.mapFile()
	st, err := l.p.stat(name)
	if err != nil {
		l.byText(m)
		return
	}
	text, err := l.p.link(name)
	switch {
	case err != nil:
		l.byText(m)
	case l.byInode:
		l.add(l.x.holders(st.id), ByMap, text)
	default:
		l.add(l.named(text, st.id, true), ByMap, text)
	}
}

// byText decides by the inode number and the path that maps prints. What is
// not certain is a use.
func (l *look) byText(m mapping) {
	for _, text := range m.names() {
		file, parent, ok := l.view().file(text)
		if !ok || file.Ino != m.ino {
			continue
		}
		if l.byInode {
			l.add(l.x.holders(file), ByMap, text)
		} else {
			l.add(l.x.holders(parent), ByMap, text)
		}
		return
	}
	text := m.names()[0]
	l.add(l.x.maybeHolders(m.ino), ByMap, text)
	if !l.byInode {
		l.add(l.deletedFrom(text), ByMap, text)
	}
}
