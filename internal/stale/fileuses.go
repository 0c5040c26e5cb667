package stale

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// uses finds in which ways one process uses a file.
func (w *worker) uses(pid int, id Inode) (r result) {
	r.pid = pid
	p, err := openProcess(w.proc, pid)
	if err != nil {
		r.unreadable = !gone(err)
		return r
	}
	defer p.close()
	l := &visit{search: w.search, scratch: w.scratch, p: p, first: p, mem: -1}
	l.files = l.files[:0]
	if l.UIDs != nil && !slices.Contains(l.UIDs, l.uid()) {
		return r
	}
	st, err := l.status()
	if err != nil || st.kernel || st.ended() && st.threads < 2 {
		r.unreadable = err != nil && !gone(err)
		return r
	}
	if st.ended() {
		q, err := runningThread(w.proc, p)
		if err != nil {
			r.unreadable = !gone(err)
			return r
		}
		defer q.close()
		l.p = q
	}
	uses, err := l.usesOf(id)
	r.unreadable = err != nil && !gone(err) && !p.over()
	if len(uses) == 0 {
		return r
	}
	var about Process
	ok := l.about(&about)
	if !ok {
		return result{pid: pid}
	}
	slices.SortStableFunc(uses, func(a, b FileUse) int { return cmp.Compare(a.Way.weight(), b.Way.weight()) })
	r.user = &FileUser{
		PID: about.PID, Ticks: about.Ticks, Start: about.Start, UID: about.UID, User: about.User, Comm: about.Comm,
		Exe: about.Exe, Command: about.Command, Unit: about.Unit, Container: about.Container, Uses: uses,
	}
	return r
}

var ways = []Way{WayExe, WayLibrary, WayShared, WayMap, WayWrite, WayRead, WayCwd, WayRoot}

func (w Way) weight() int { return slices.Index(ways, w) }

func (l *visit) usesOf(id Inode) (uses []FileUse, err error) {
	for _, link := range []Way{WayExe, WayCwd, WayRoot} {
		st, err := l.p.stat(string(link))
		if err != nil {
			if link == WayExe && err == unix.ENOENT {
				continue
			}
			return uses, err
		}
		if st.id == id {
			text, _ := l.p.link(string(link))
			uses = append(uses, FileUse{Way: link, Path: text, FD: -1})
		}
	}
	exe := len(uses) > 0 && uses[0].Way == WayExe
	maps, err := l.mapUses(id, exe)
	uses = append(uses, maps...)
	if err != nil || l.p.pid == l.self {
		return uses, err
	}
	n := 0
	for fd, err := range l.p.numbers("fd") {
		if n++; err != nil || n > 1<<20 {
			return uses, err
		}
		st, err := l.p.stat("fd/" + strconv.Itoa(fd))
		if err == nil && st.id == id {
			uses = append(uses, l.openUse(fd))
		}
	}
	return uses, nil
}

// mapUses finds the mappings of a file, one of each way.
func (l *visit) mapUses(id Inode, exe bool) (uses []FileUse, err error) {
	for m, err := range l.p.mappings() {
		if err != nil {
			return uses, err
		}
		if m.ino != id.Ino {
			continue
		}
		way := WayMap
		switch {
		case m.perms[2] == 'x':
			way = WayLibrary
		case m.perms[3] == 's':
			way = WayShared
		}
		if way == WayLibrary && exe || slices.ContainsFunc(uses, func(u FileUse) bool { return u.Way == way }) {
			continue
		}
		a := m.area()
		if st, err := l.p.stat(a.mapFile()); err == nil && st.id != id {
			continue
		} else if err != nil && a.dev != id.Dev && unix.Major(id.Dev) != 0 {
			continue // by the numbers that maps prints
		}
		uses = append(uses, FileUse{Way: way, Path: a.text, FD: -1})
	}
	if len(uses) > 1 || exe { // the parts of a program that are no code
		uses = slices.DeleteFunc(uses, func(u FileUse) bool { return u.Way == WayMap })
	}
	return uses, nil
}

// openUse describes an open descriptor.
func (l *visit) openUse(fd int) FileUse {
	n := strconv.Itoa(fd)
	u := FileUse{Way: WayRead, FD: fd}
	u.Path, _ = l.p.link("fd/" + n)
	info, err := l.readOf(l.p, "fdinfo/"+n, 16<<10)
	if err != nil {
		return u
	}
	for line := range bytes.Lines(info) {
		word, rest, _ := bytes.Cut(line, []byte(":"))
		switch string(word) {
		case "flags": // octal
			flags, err := strconv.ParseUint(string(bytes.TrimSpace(rest)), 8, 64)
			if err == nil && flags&unix.O_ACCMODE != unix.O_RDONLY && flags&unix.O_PATH == 0 {
				u.Way = WayWrite
			}
		case "lock": // "1: FLOCK  ADVISORY  WRITE 4711 …"
			if f := bytes.Fields(rest); len(f) > 3 && u.Lock == "" {
				u.Lock = string(f[1]) + " " + string(f[3])
			}
		}
	}
	return u
}
