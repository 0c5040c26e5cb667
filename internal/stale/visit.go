package stale

import (
	"cmp"
	"io"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// scratch is what a worker uses again for each process.
type scratch struct {
	ask     asker
	memory  memory
	text    []byte
	codes   []area
	entries []loaded
	files   []used // by address
	more    []used // of which no code is mapped
	auxv    [1024]byte
	pid     pidInfo
	page    [16 << 10]byte
	known   map[Inode]*node
}

// result is what a visit gave.
type result struct {
	pid        int
	seen       bool // a process, and not a thread of the kernel
	unreadable bool
	found      *Process // nil if there is nothing to tell
	held       []holding
	user       *FileUser // for FileUsers
	loads      *Loads    // for Loaded
}

// visit is what is found out about one process.
type visit struct {
	*search
	*scratch
	p      *process // the process, or a thread of it that has not ended
	first  *process // its first thread
	areas  areas
	mem    descriptorAt // -1 if it is not open
	root   *root
	aux    vector
	script *target // that the executable was started for
	state  status  // read when it is asked for
	stated bool

	blind bool // something could not be read, so that the answer may not be whole
}

// used is a file that the process runs code from.
type used struct {
	area
	node *node
	name string // by which it was loaded; "" if only the kernel's is known
	kind Kind

	placed        bool   // what follows is known, from the loader's list
	base, dynamic uint64 // as there
}

// look visits one process, and again if it executes another program meanwhile.
func (w *worker) look(pid int) result {
	for range 3 {
		r, changed := w.once(pid)
		if !changed {
			return r
		}
	}
	return result{pid: pid, seen: true, unreadable: true}
}

func (w *worker) once(pid int) (r result, changed bool) {
	r.pid = pid
	p, err := openProcess(w.proc, pid)
	if err != nil {
		r.unreadable = !gone(err)
		return r, false
	}
	defer p.close()
	l := &visit{search: w.search, scratch: w.scratch, p: p, first: p, mem: -1}
	if l.UIDs != nil && !slices.Contains(l.UIDs, l.uid()) {
		return r, false
	}
	ok, err := l.open()
	if l.p != p {
		defer l.p.close()
	}
	if !ok {
		r.unreadable = err != nil && !gone(err) && !p.over()
		r.seen = r.unreadable
		return r, false
	}
	defer l.close()
	r.seen = true
	if err := l.collect(); err != nil {
		r.unreadable = !gone(err) && !p.over()
		return r, gone(err) && l.running()
	}
	all := l.judgeAll()
	l.describe(&r, all)
	r.held = l.holdings(all)
	r.unreadable = l.blind
	if (r.found != nil || l.blind) && !l.same() {
		return result{pid: pid}, l.running()
	}
	return r, false
}

// same says that the process still has the memory that was looked at: neither
// has it ended nor has it executed another program. Where vfork(2) had lent it
// that memory it lives on without the process, so the process is asked again.
func (l *visit) same() bool {
	fd, err := openAt(l.p.dir, "maps", unix.O_RDONLY)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if l.areas.text {
		// The kernel makes no more lines than are asked for.
		var was, is [128]byte
		n, err := unix.Pread(l.areas.maps, was[:], 0)
		m, _ := unix.Pread(fd, is[:], 0)
		return err == nil && n > 0 && n == m && was == is
	}
	first := l.codes[0]
	a, err := l.ask.nextCode(fd, first.start)
	return err == nil && a.start == first.start && a.ino == first.ino && a.dev == first.dev && l.areas.alive()
}

// running says that the process has not ended.
func (l *visit) running() bool {
	st, err := l.first.status()
	return err == nil && (!st.ended() || st.threads > 1)
}

// open opens the process's memory map and finds what of it has code. It says
// false if there is none: a thread of the kernel, or a process that has ended.
func (l *visit) open() (bool, error) {
	switch err := l.openMaps(); {
	case err == nil && len(l.codes) > 0:
		return true, nil
	case err == nil:
		unix.Close(l.areas.maps)
	case !gone(err):
		return false, err
	}
	st, err := l.status()
	if err != nil || st.kernel || !st.ended() || st.threads < 2 {
		return false, err
	}
	// The first thread has ended, others run on, and the kernel shows what they
	// have under their own numbers only.
	if l.p, err = runningThread(l.proc, l.first); err != nil {
		l.p = l.first
		return false, err
	}
	if err := l.openMaps(); err != nil {
		return false, err
	}
	if len(l.codes) == 0 {
		unix.Close(l.areas.maps)
		return false, nil
	}
	return true, nil
}

func (l *visit) openMaps() error {
	fd, err := openAt(l.p.dir, "maps", unix.O_RDONLY)
	if err != nil {
		return err
	}
	l.areas = areas{maps: fd, ask: &l.ask, buf: l.text, text: !l.live || l.textOnly}
	l.codes, err = l.areas.code(l.codes[:0])
	l.text = l.areas.buf
	if err != nil {
		unix.Close(fd)
	}
	return err
}

// status is what /proc/PID/stat says, read once.
func (l *visit) status() (status, error) {
	if l.stated {
		return l.state, nil
	}
	text, err := l.read("stat", 4096)
	if err != nil {
		return status{}, err
	}
	st, ok := parseStatus(text)
	if !ok {
		return st, unix.EIO
	}
	l.state, l.stated = st, err == nil
	return st, err
}

// collect finds the inodes of all files, and the names by which they were
// loaded.
func (l *visit) collect() error {
	var err error
	if l.root, err = l.rootOf(l.p); err != nil {
		return err
	}
	l.files, l.more, l.entries = l.files[:0], l.more[:0], l.entries[:0]
	for i := range l.codes {
		a := &l.codes[i]
		if i > 0 && a.follows(l.codes[i-1]) && a.text == l.codes[i-1].text {
			continue
		}
		n, err := l.inodeOf(a)
		if err != nil {
			if gone(err) || err == errHangs { // it hangs for whatever is asked next, too
				return err
			}
			l.blind = true
			continue
		}
		if !n.code {
			continue
		}
		same := func(u used) bool { return u.node == n }
		if slices.ContainsFunc(l.files, same) {
			continue
		}
		l.files = append(l.files, used{area: *a, node: n, kind: KindLibrary})
	}
	l.readAuxv()
	if !l.MapsOnly {
		l.readLinkMap()
	}
	return nil
}

// readAuxv finds the executable, the loader, and the name by which the program
// was executed.
func (l *visit) readAuxv() {
	fd, err := openAt(l.p.dir, "auxv", unix.O_RDONLY)
	if err != nil {
		return
	}
	n, err := descriptor(fd).Read(l.auxv[:])
	unix.Close(fd)
	if err != nil && err != io.EOF {
		return
	}
	v, ok := parseAuxv(l.auxv[:n])
	if !ok {
		return
	}
	l.aux = v
	for i := range l.files {
		if l.files[i].contains(v.entry) {
			l.files[i].kind = KindExe
		}
	}
	if u := l.above(v.base); v.base != 0 && u != nil && u.kind == KindLibrary {
		u.kind = KindLoader
	}
}

// above is the first file with code at or above an address.
func (l *visit) above(addr uint64) *used {
	i, _ := slices.BinarySearchFunc(l.files, addr, func(u used, addr uint64) int { return cmp.Compare(u.start, addr) })
	if i == len(l.files) {
		return nil
	}
	return &l.files[i]
}

// readLinkMap finds the names by which the files were loaded, from the memory
// of the process.
func (l *visit) readLinkMap() {
	if l.live {
		l.memory.reset(memoryOf(l.p.pid))
	} else if !l.openMemory() {
		return
	}
	if l.aux.execfn != 0 {
		if name, err := l.memory.text(l.aux.execfn); err == nil {
			for i := range l.files {
				if l.files[i].kind == KindExe {
					l.files[i].name = name
				}
			}
		}
	}
	l.entries = l.entries[:0]
	dynamic, ok := l.aux.dynamicOf(&l.memory)
	if !ok {
		return
	}
	debug, ok := l.aux.debugOf(&l.memory, dynamic)
	if !ok {
		return
	}
	l.entries, _ = l.aux.lists(&l.memory, debug, l.entries)
	for _, e := range l.entries {
		if strings.Contains(e.name, "/") {
			l.name(e)
		}
	}
	l.files = append(l.files, l.more...)
}

// name gives a name from the loader's list to the file that it belongs to: the
// one that was loaded at that place. Where the headers do not say that, the
// kernel is asked what is there.
func (l *visit) name(e loaded) {
	if u := l.above(e.base); u != nil && u.name == "" && u.kind != KindExe {
		f := l.content(u.node, u.area)
		if f != nil {
			if base, ok := f.baseOf(u.area); ok && base == e.base && l.aux.trim(base+f.dynamic.addr) == e.dynamic {
				u.name, u.placed, u.base, u.dynamic = e.name, true, e.base, e.dynamic
				return
			}
		}
	}
	a, ok := l.areas.at(e.dynamic)
	if !ok {
		return
	}
	n, err := l.inodeOf(&a)
	if err != nil || !n.code {
		return
	}
	for i := range l.files {
		if u := &l.files[i]; u.node == n {
			if u.name == "" && u.kind != KindExe {
				u.name, u.placed, u.base, u.dynamic = e.name, true, e.base, e.dynamic
			}
			return
		}
	}
	l.more = append(l.more, used{area: a, node: n, name: e.name, kind: KindLibrary, placed: true, base: e.base, dynamic: e.dynamic})
}

// openMemory opens the memory of the process, once.
func (l *visit) openMemory() bool {
	if l.mem < 0 {
		fd, err := openAt(l.p.dir, "mem", unix.O_RDONLY)
		if err != nil {
			return false
		}
		l.mem = descriptorAt(fd)
		l.memory.reset(l.mem)
	}
	return true
}

func (l *visit) close() {
	if l.mem >= 0 {
		unix.Close(int(l.mem))
	}
	unix.Close(l.areas.maps)
}
