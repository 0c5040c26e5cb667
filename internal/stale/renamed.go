package stale

import "strings"

// Renamer is a Places that knows the names of files which have been put aside.
// It is optional.
type Renamer interface {
	// Public says under which path of the host people know this inode, which the
	// kernel calls by the path of a temporary that is gone: RENAME_EXCHANGE gave
	// it that name before it was unlinked. False if path is no such name, or it
	// is not known. It is called for names of the caller's own mounts only.
	Public(path string, id Inode) (string, bool)
}

// public is the name that a deleted file had for people, if it had another one
// than the kernel remembers.
func (l *visit) public(r *root, name string, u *used) string {
	p, ok := l.Places.(Renamer)
	if !ok || !r.own || r.text != "" || !strings.Contains(name, "/.") {
		return name
	}
	id := u.node.id
	if !u.node.known && u.kind == KindExe { // without root its link can be followed, others cannot
		if f, err := inspect(l.p.dir, "exe", 0); err == nil {
			id = f.id
		}
	}
	if public, ok := p.Public(name, id); ok {
		return public
	}
	return name
}
