package stale

import (
	"bytes"
	"io"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Tags of the dynamic section that name libraries.
const (
	dtNeeded = 1
	dtStrtab = 5
	dtStrsz  = 10
)

const mostNeeded = 512

// needed lists the libraries that a file asks for, by name.
func (f *elfFile) needed(r io.ReaderAt) (names []string) {
	word := f.word()
	if f.dynamic.kind == 0 || f.dynamic.offset > 1<<62 {
		return nil
	}
	raw := upTo(r, f.dynamic.offset, min(f.dynamic.filesz, mostDynamic*2*word))
	var at []uint64
	var table [2]uint64
	for ; uint64(len(raw)) >= 2*word; raw = raw[2*word:] {
		value := f.at(raw, 1)
		switch f.at(raw, 0) {
		case dtNeeded:
			if len(at) < mostNeeded {
				at = append(at, value)
			}
		case dtStrtab:
			table[0] = value
		case dtStrsz:
			table[1] = value
		}
	}
	text := f.bytesAt(r, table[0], min(table[1], 16<<20))
	for _, i := range at {
		if i >= uint64(len(text)) {
			continue
		}
		name, _, ended := bytes.Cut(text[i:min(i+unix.PathMax, uint64(len(text)))], []byte{0})
		if ended && len(name) > 0 {
			names = append(names, string(name))
		}
	}
	return names
}

// weighGone looks at libraries that are gone while the program that asked for
// them may be another one by now: what nobody would ask for is not missed.
func (l *visit) weighGone(all []outcome) {
	for i := range all {
		if o := &all[i]; o.verdict == Gone && o.kind == KindLibrary {
			l.weigh(o, all)
		}
	}
}

func (l *visit) weigh(o *outcome, all []outcome) {
	name := path.Base(o.name)
	had, has, changed := false, false, false
	for i := range l.files {
		u := &l.files[i]
		if u.node == o.node {
			continue
		}
		before := l.needs(u, nil)
		after := before
		if j := slices.IndexFunc(all, func(x outcome) bool { return x.node == u.node }); j >= 0 {
			switch {
			case all[j].verdict == Gone:
				after = nil
			case all[j].verdict == Stale:
				after, changed = l.needs(u, all[j].next), true
			}
		}
		had = had || slices.Contains(before, name)
		has = has || slices.Contains(after, name)
	}
	switch other := ""; {
	case has:
		if other = l.elsewhere(name); other != "" {
			o.verdict, o.why = Stale, "nothing is there any more; a fresh start would find "+other
		}
	case had && changed:
		o.verdict, o.why = Stale, "nothing is there any more, and what would be loaded now does not ask for it"
	case changed:
		o.verdict, o.why = Stale, "nothing is there any more, and the program is another one, too"
		o.note = "the process has loaded it by itself; whether the new program would is not known"
	}
}

// needs are the libraries that a file asks for: the one that is mapped or, if
// it is given, the one that would be loaded in its place.
func (l *visit) needs(u *used, next *target) []string {
	names, _ := l.asks.get(pair{u.node, next}, l.patience, func() ([]string, bool) {
		var fd int
		var err error
		if next != nil {
			fd, err = next.open()
		} else {
			fd, err = l.openMapped(u.node, u.area)
		}
		if err != nil {
			return nil, !gone(err)
		}
		defer unix.Close(fd)
		f, ok := readELF(descriptorAt(fd))
		if !ok {
			return nil, true
		}
		return f.needed(descriptorAt(fd)), true
	})
	return names
}

// elsewhere is the path of a library in the directories that are always
// searched; those of the C library are among them. "" if it is in none.
func (l *visit) elsewhere(name string) string {
	dirs := []string{"/lib64", "/usr/lib64", "/lib", "/usr/lib"}
	for i := range l.files {
		if u := &l.files[i]; strings.HasPrefix(path.Base(u.name), "libc.so.") {
			dirs = append(dirs, path.Dir(u.name))
		}
	}
	for _, dir := range dirs {
		if t, ok := l.lookUp(l.root, dir+"/"+name); ok && t.err == nil && t.regular() {
			return t.path
		}
	}
	return ""
}
