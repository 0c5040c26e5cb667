package disktest

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
)

// An image is a disk in memory: a table of inodes, of which directories hold
// names. Images share what has not changed between them.
//
// A name is a thing of its own here, with a number: rename(2) moves a name and
// link(2) makes one. So a rename that survives moves its name from wherever the
// lost operations have left it, and never makes a second one.
type image struct {
	nodes map[inode]*node
	where map[nameID]place
	own   map[inode]bool // nodes that no other image shares
}

type (
	inode  int
	nameID int // negative: what was left of a name
)

// rootInode is the directory at the top.
const rootInode inode = 1

// place is where a name stands.
type place struct {
	dir  inode
	base string
}

// node is what one inode holds.
type node struct {
	Entry
	names map[string]nameRef // of a directory
	sum   *[sha256.Size]byte // digest of all but the names, once it was needed
}

type nameRef struct {
	id nameID
	to inode
}

func (n *node) isDir() bool { return n.Mode&unix.S_IFMT == unix.S_IFDIR }

func newImage() *image {
	return &image{nodes: map[inode]*node{}, where: map[nameID]place{}, own: map[inode]bool{}}
}

// clone returns an image that can be changed by itself. From here on neither
// owns a node.
func (im *image) clone() *image {
	if len(im.own) > 0 {
		clear(im.own)
	}
	return &image{nodes: maps.Clone(im.nodes), where: maps.Clone(im.where), own: map[inode]bool{}}
}

// change returns the node of an inode, to be changed.
func (im *image) change(i inode) *node {
	n := im.nodes[i]
	if !im.own[i] {
		c := *n
		c.names = maps.Clone(n.names)
		n = &c
		im.nodes[i] = n
		im.own[i] = true
	}
	n.sum = nil
	return n
}

// clearName makes a name vanish, whoever stands there.
func (im *image) clearName(p place) {
	if ref, ok := im.nodes[p.dir].names[p.base]; ok {
		delete(im.change(p.dir).names, p.base)
		delete(im.where, ref.id)
	}
}

// setName puts a name at a place, from wherever it was, and in the stead of
// whatever is there.
func (im *image) setName(p place, ref nameRef) {
	if old, ok := im.where[ref.id]; ok {
		im.clearName(old)
	}
	im.clearName(p)
	im.change(p.dir).names[p.base] = ref
	im.where[ref.id] = p
}

// leaveName lets a name that stands in another directory than dir stay there as
// a name of its own, when the one that is known goes away.
func (im *image) leaveName(ref nameRef, dir inode) {
	at, ok := im.where[ref.id]
	if !ok || at.dir == dir {
		return
	}
	left := nameRef{-ref.id, ref.to} // numbers of names are positive, and one is left once
	im.clearName(at)
	im.setName(at, left)
}

// holds says whether directory i is below directory top, or is it.
func (im *image) holds(top, i inode) bool {
	if top == i {
		return true
	}
	for _, ref := range im.nodes[top].names {
		if im.nodes[ref.to].isDir() && im.holds(ref.to, i) {
			return true
		}
	}
	return false
}

// hasName says whether a directory holds a name of an inode.
func (im *image) hasName(dir, i inode) bool {
	for _, ref := range im.nodes[dir].names {
		if ref.to == i {
			return true
		}
	}
	return false
}

// write puts bytes at an offset; what was not there before reads as zeros.
func (im *image) write(i inode, off int64, data []byte) {
	n := im.change(i)
	size := max(int64(len(n.Data)), off+int64(len(data)))
	d := make([]byte, size)
	copy(d, n.Data)
	copy(d[off:], data)
	n.Data = d
	if len(data) > 0 { // what the kernel does on any write
		n.dropXattr("security.capability")
		if os.Geteuid() != 0 {
			n.dropSetID()
		}
	}
}

func (im *image) truncate(i inode, size int64) {
	n := im.change(i)
	d := make([]byte, size)
	copy(d, n.Data)
	n.Data = d
}

// setMeta does to an inode what disk.Meta says. With half it stops after the
// owner, as a kill in the middle can.
func (im *image) setMeta(i inode, m disk.Meta, half bool) {
	n := im.change(i)
	if m.UID >= 0 {
		n.UID = m.UID
	}
	if m.GID >= 0 {
		n.GID = m.GID
	}
	if (m.UID >= 0 || m.GID >= 0) && n.Mode&unix.S_IFMT == unix.S_IFREG {
		n.dropSetID()
		n.dropXattr("security.capability")
	}
	if half {
		return
	}
	if n.Mode&unix.S_IFMT == unix.S_IFLNK {
		m.Xattrs = maps.Clone(m.Xattrs)
		maps.DeleteFunc(m.Xattrs, func(name, _ string) bool { return name != "security.selinux" })
	} else {
		n.dropXattr("system.posix_acl_access")
		n.dropXattr("system.posix_acl_default")
		if !m.KeepMode {
			n.Mode = n.Mode&unix.S_IFMT | m.Mode&0o7777
		}
	}
	if len(m.Xattrs) > 0 {
		n.Xattrs = maps.Clone(n.Xattrs)
		if n.Xattrs == nil {
			n.Xattrs = map[string]string{}
		}
		maps.Copy(n.Xattrs, m.Xattrs)
	}
	if !m.MTime.IsZero() {
		n.MTime = m.MTime
	}
}

func (n *node) dropSetID() {
	n.Mode &^= unix.S_ISUID
	if n.Mode&unix.S_IXGRP != 0 {
		n.Mode &^= unix.S_ISGID
	}
}

func (n *node) dropXattr(name string) {
	if _, ok := n.Xattrs[name]; ok {
		n.Xattrs = maps.Clone(n.Xattrs)
		delete(n.Xattrs, name)
	}
}

// imageOf makes an image of a tree. It returns the numbers that are free.
func imageOf(t *Tree) (im *image, nextInode inode, nextName nameID) {
	im = newImage()
	nextInode, nextName = rootInode, 1
	inodes := map[*Entry]inode{}
	at := map[string]inode{}
	for _, name := range t.Names() {
		e := t.Entries[name]
		i, known := inodes[e]
		if !known {
			i = nextInode
			nextInode++
			inodes[e] = i
			if int64(len(e.Data)) != e.Size {
				panic("disktest: no bytes in the tree: use Capture, not CaptureSums")
			}
			n := &node{Entry: *e}
			if n.isDir() {
				n.names = map[string]nameRef{}
			}
			im.nodes[i] = n
		}
		at[name] = i
		if name != "." {
			dir, base := splitName(name)
			im.setName(place{at[dir], base}, nameRef{nextName, i})
			nextName++
		}
	}
	return im, nextInode, nextName
}

// tree makes a tree of what can be reached in the image.
func (im *image) tree() *Tree {
	t := &Tree{Entries: map[string]*Entry{}}
	entries := map[inode]*Entry{}
	im.walk(func(name string, i inode) {
		e := entries[i]
		if e == nil {
			c := im.nodes[i].Entry
			e = &c
			e.Size, e.Sum = int64(len(e.Data)), sha256.Sum256(e.Data)
			if e.Mode&unix.S_IFMT != unix.S_IFREG {
				e.Sum = [sha256.Size]byte{}
			}
			entries[i] = e
		}
		t.Entries[name] = e
	})
	return t
}

// walk visits every name that can be reached, in a fixed order, directories
// before what is in them.
func (im *image) walk(visit func(name string, i inode)) {
	var down func(name string, i inode)
	down = func(name string, i inode) {
		visit(name, i)
		n := im.nodes[i]
		for _, base := range slices.Sorted(maps.Keys(n.names)) {
			full := base
			if name != "." {
				full = name + "/" + base
			}
			down(full, n.names[base].to)
		}
	}
	down(".", rootInode)
}

type digest [sha256.Size]byte

// hash is the same for two images exactly if they hold the same tree.
func (im *image) hash() digest {
	h := sha256.New()
	first := map[inode]uint64{}
	im.walk(func(name string, i inode) {
		writeString(h, name)
		if n, ok := first[i]; ok {
			writeUint(h, n)
			return
		}
		first[i] = uint64(len(first)) + 1
		writeUint(h, 0)
		sum := im.nodes[i].digest()
		h.Write(sum[:])
	})
	var d digest
	h.Sum(d[:0])
	return d
}

// digest is that of everything but the names.
func (n *node) digest() [sha256.Size]byte {
	if n.sum != nil {
		return *n.sum
	}
	h := sha256.New()
	for _, v := range []uint64{uint64(n.Mode), uint64(n.UID), uint64(n.GID), n.Rdev, mtimeNumber(n.MTime), uint64(len(n.Xattrs))} {
		writeUint(h, v)
	}
	writeString(h, n.Text)
	for _, name := range slices.Sorted(maps.Keys(n.Xattrs)) {
		writeString(h, name)
		writeString(h, n.Xattrs[name])
	}
	h.Write(n.Data)
	n.sum = new([sha256.Size]byte)
	h.Sum(n.sum[:0])
	return *n.sum
}

func mtimeNumber(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixNano())
}

func writeUint(h hash.Hash, v uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	h.Write(b[:])
}

func writeString(h hash.Hash, s string) {
	writeUint(h, uint64(len(s)))
	h.Write([]byte(s))
}
