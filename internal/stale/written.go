package stale

import (
	"golang.org/x/sys/unix"
)

const pageSize = 4096 // the smallest that Linux has; a larger one makes us report less

// written is the outcome for a file that is the very one that is mapped, which
// somebody may have written to since.
//
// Its pages with code are the page cache's: the process sees what was written,
// so that neither they nor the build id can show it. But the loader has made
// private copies of other pages and entered addresses into them, and made them
// read-only (RELRO). If these are not what the loader would make of the file as
// it is, then the file is another one than the loader saw. If the file was cut
// to nothing in between, as cp(1) does, the copies are lost, and the process
// has the bare bytes, even if they are the same as before.
func (l *visit) written(o *outcome) {
	t := o.next
	if t.changed <= l.boot.UnixNano() {
		return
	}
	start, err := l.started()
	if err != nil || t.changed <= start {
		return
	}
	if l.copiedUp(o) {
		o.verdict, o.why, o.since = Stale, "the process has the lower layer's file, a copy with other bytes has come into the upper one", t.changed
		return
	}
	if why := l.overwritten(o.used, t.size); why != "" {
		o.verdict, o.why, o.since = Corrupt, why, t.written
		if t.written <= start { // somebody has set it back
			o.since = t.changed
		}
		return
	}
	switch {
	case t.written <= start: // only its names, its mode or the like have changed
	case t.born > start: // it was made before it was mapped, and that was after the start
	case l.settled(o, start):
	case len(l.entries) > 0 && l.noCode(o.used): // nor has the loader loaded it
	default:
		o.note = "the file was written to after the start of the process, and nothing shows whether before it was loaded"
		o.since = t.written
	}
}

// settled says that moult knows the bytes to be those that it has put there,
// before the process began.
func (l *visit) settled(o *outcome, start int64) bool {
	s, ok := l.Places.(Settler)
	if !ok {
		return false
	}
	path := ""
	if o.next.root.own {
		path = l.resolved(o.next)
	}
	if path == "" {
		return false
	}
	intact, since, ok := s.Intact(path)
	return ok && intact && since.UnixNano() <= start
}

// overwritten says in which way a mapped file was overwritten in place; "" if
// that is not proven.
func (l *visit) overwritten(u *used, size uint64) string {
	f := l.content(u.node, u.area)
	if f == nil {
		if u.name != "" && u.kind != KindExe && l.readable(u) {
			return "it was overwritten in place: it is no ELF file any more"
		}
		return ""
	}
	if end := u.offset + u.end - u.start; u.code && (size+pageSize-1)&^(pageSize-1) < end {
		return "it was cut short in place: code that is mapped is not in the file any more"
	}
	base := u.base
	if !u.placed {
		var ok bool
		if base, ok = f.baseOf(u.area); !ok {
			return ""
		}
	} else if found, ok := f.baseOf(u.area); u.code && (!ok || found != base) || l.aux.trim(base+f.dynamic.addr) != u.dynamic {
		return "it was overwritten in place: its parts are not where they were when it was loaded"
	}
	return l.private(u, f, base)
}

// readable says that the mapped file can be read at all.
func (l *visit) readable(u *used) bool {
	fd, err := l.openMapped(u.node, u.area)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var one [1]byte
	_, err = unix.Pread(fd, one[:], 0)
	return err == nil
}

// copiedUp says that the process maps a file of an overlay's lower layer while
// the path leads to a copy in the upper one. The kernel gives both the same
// number; only the bytes tell.
func (l *visit) copiedUp(o *outcome) bool {
	fd, err := o.next.open()
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if !isOverlay(fd) || !l.openMemory() {
		return false
	}
	const most = 64 << 20
	var has, next [64 << 10]byte
	for _, a := range l.areas.of(o.area) {
		if a.writable {
			continue
		}
		for at := a.start; at < min(a.end, a.start+most); at += uint64(len(has)) {
			want := has[:min(uint64(len(has)), a.end-at)]
			n, err := l.mem.ReadAt(want, int64(at))
			if n == 0 && err != nil {
				break
			}
			m, err := readAll(fd, next[:n], int64(a.offset+at-a.start))
			if err != nil {
				break
			}
			clear(next[m:n]) // the rest of the last page
			if l.areaCode(a, o.area) && string(has[:n]) != string(next[:n]) {
				return true
			}
		}
	}
	return false
}

// areaCode says that an area is shared with the page cache for sure: code is,
// what the loader has written to is not.
func (l *visit) areaCode(a, code area) bool { return a.code || a.start < code.start }
