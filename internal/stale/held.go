package stale

import (
	"cmp"
	"slices"
	"strconv"
)

// holding is one deleted file that a process keeps.
type holding struct {
	facts
	text string
}

// holdings finds the deleted files that the process keeps: those with code and,
// if that was asked for, all that it has mapped or open.
func (l *visit) holdings() (held []holding) {
	add := func(f facts, text string) {
		if !f.regular() || shared(text) || slices.ContainsFunc(held, func(h holding) bool { return h.id == f.id }) {
			return
		}
		held = append(held, holding{facts: f, text: text})
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

// hold adds up what all processes keep, each inode once.
func (s *search) hold(rep *Report, results []result) {
	at := map[Inode]int{}
	for _, r := range results {
		for _, h := range r.held {
			i, ok := at[h.id]
			if !ok {
				i = len(rep.Held)
				at[h.id] = i
				rep.Held = append(rep.Held, HeldFile{Path: h.text, ID: h.id, Bytes: int64(h.blocks) * 512, Since: clock(h.changed)})
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
