package stale

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// holding is one deleted file that a process keeps.
type holding struct {
	facts
	text    string
	unknown bool // whether it is deleted
}

// holdings finds the deleted files that the process keeps: those with code and,
// if that was asked for, all that it has mapped or open.
func (l *visit) holdings(all []outcome) (held []holding) {
	add := func(f facts, text string) {
		if !f.regular() || shared(text) || strings.HasPrefix(text, "/dev/shm/") || slices.ContainsFunc(held, func(h holding) bool { return h.id == f.id }) {
			return
		}
		held = append(held, holding{facts: f, text: text})
	}
	for _, o := range all {
		if n := o.node; n.known && n.nlink > 0 && (o.verdict == Stale || o.verdict == Gone) && l.onOverlay(o.used) {
			held = append(held, holding{n.facts, l.printed(o.used), true})
		}
	}
	for i := range l.files {
		u := &l.files[i]
		if u.node.known && u.node.nlink == 0 {
			add(u.node.facts, l.printed(u))
		}
	}
	if !l.Open {
		return held
	}
	last := area{}
	_ = l.areas.lines(func(line []byte) bool {
		m, ok := parseMapping(line)
		if !ok || m.ino == 0 || !m.deleted() {
			return true
		}
		a := m.area()
		if a.ino == last.ino && a.dev == last.dev {
			return true
		}
		last = a
		if f, err := inspect(l.p.dir, a.mapFile(), 0); err == nil && f.nlink == 0 {
			add(f, a.text)
		}
		return true
	})
	n := 0
	for fd, err := range l.p.numbers("fd") {
		if n++; err != nil || n > 1<<20 {
			break
		}
		name := "fd/" + strconv.Itoa(fd)
		f, err := inspect(l.p.dir, name, 0)
		if err != nil || f.nlink != 0 || !f.regular() {
			continue
		}
		text, _ := l.p.link(name)
		add(f, text)
	}
	return held
}

// onOverlay says that a file is on an overlay, where a file of a lower layer
// keeps its number of names when it is replaced or removed.
func (l *visit) onOverlay(u *used) bool {
	if unix.Major(u.node.id.Dev) != 0 {
		return false
	}
	fd, err := l.openMapped(u.node, u.area)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return isOverlay(fd)
}

func isOverlay(fd int) bool {
	const magic = 0x794c7630 // OVERLAYFS_SUPER_MAGIC
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && uint64(fs.Type) == magic
}

// hold adds up what all processes keep, each inode once.
func (s *search) hold(rep *Report, results []result) {
	at := map[Inode]int{}
	for _, r := range results {
		for _, h := range r.held {
			i, ok := at[h.id]
			if !ok {
				i = len(rep.Held)
				at[h.id] = i
				f := HeldFile{Path: h.text, ID: h.id, Bytes: int64(h.blocks) * 512, Since: clock(h.changed)}
				if h.unknown {
					f.Bytes, f.Unknown = 0, true
				}
				rep.Held = append(rep.Held, f)
			}
			rep.Held[i].PIDs = append(rep.Held[i].PIDs, r.pid)
		}
	}
	for _, h := range rep.Held {
		rep.HeldBytes += h.Bytes
	}
	slices.SortFunc(rep.Held, func(a, b HeldFile) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Path, b.Path), cmp.Compare(a.ID.Ino, b.ID.Ino))
	})
}
