package disktest

import (
	"math"
	"slices"

	"moult.example/internal/disk"
)

// An effect is one thing that an operation does to a disk, all of it or
// nothing: it may reach the disk when others do not.
type effect struct {
	op      int // index in the log
	what    effectKind
	clear   []place // names: that vanish
	set     []nameSet
	inode   inode // bytes and meta: whose
	off     int64
	data    []byte
	resize  bool // bytes: a truncate to off
	meta    disk.Meta
	durable int // the number of operations done after which it is on the disk for good
}

type effectKind byte

const (
	nameEffect effectKind = iota
	byteEffect
	metaEffect
)

// nameSet puts a name at a place.
type nameSet struct {
	place
	ref nameRef
}

const never = math.MaxInt

// dirs are the directories that a name effect changes. All of them must be
// synced before it is durable.
func (e *effect) dirs() []inode {
	var dirs []inode
	for _, p := range e.clear {
		dirs = append(dirs, p.dir)
	}
	for _, s := range e.set {
		dirs = append(dirs, s.dir)
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// moves says whether the effect is the rename of one name. That of a file is not
// all or nothing: btrfs, when only the directory that it came to is synced, keeps
// the old name too. That of a directory is, and so is every exchange.
func (e *effect) moves(im *image) bool {
	return e.what == nameEffect && len(e.clear) == 1 && len(e.set) == 1 && !im.nodes[e.set[0].ref.to].isDir()
}

// A choice is how much of an effect is on the disk.
type choice byte

const (
	lost choice = iota
	full
	torn   // bytes: the first half; meta: the owner, but not yet the mode; a moved file: its old name is left
	zeroed // bytes: the size, but zeros
)

// apply does to an image what of the effect is chosen. Names are put where the
// operation put them even if earlier operations were lost; only what would make
// a directory lie below itself is left out.
func (e *effect) apply(im *image, c choice) {
	if c == lost {
		return
	}
	switch e.what {
	case nameEffect:
		for _, s := range e.set {
			if im.nodes[s.ref.to].isDir() && im.holds(s.ref.to, s.dir) {
				return
			}
		}
		for _, p := range e.clear {
			if c != torn || p.dir == e.set[0].dir {
				im.clearName(p)
			}
		}
		for _, s := range e.set {
			if c == torn {
				im.leaveName(s.ref, s.dir)
			}
			im.setName(s.place, s.ref)
		}
	case byteEffect:
		data := e.data
		switch {
		case e.resize:
			im.truncate(e.inode, e.off)
			return
		case c == torn:
			data = data[:len(data)/2]
		case c == zeroed:
			data = make([]byte, len(data))
		}
		im.write(e.inode, e.off, data)
	case metaEffect:
		im.setMeta(e.inode, e.meta, c == torn)
	}
}
