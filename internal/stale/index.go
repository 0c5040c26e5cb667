package stale

import (
	"io/fs"
	"iter"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// index knows which trees (or single files) hold an inode.
//
// It is asked by inode number first, which is what /proc/PID/maps prints
// reliably, and only then by device, which takes a stat of the mapping.
type index struct {
	entries []entry
	heads   map[uint64]int32 // inode number -> 1 + position of its first entry
	roots   []string         // the trees' paths as the kernel prints them
}

type entry struct {
	id   Inode
	of   int32
	next int32 // 1 + position of the next entry with this number; 0 is the end
}

func indexFiles(files []Inode) *index {
	x := &index{heads: make(map[uint64]int32, len(files))}
	for i, id := range files {
		x.add(i, id)
	}
	return x
}

func indexTrees(trees []Tree) (*index, error) {
	n := 0 // of those that are known already: to grow step by step costs more than to count
	for _, t := range trees {
		if t.Inodes != nil {
			for range t.Inodes {
				n++
			}
		}
	}
	x := &index{heads: make(map[uint64]int32, n), entries: make([]entry, 0, n)}
	for i, t := range trees {
		if err := x.addTree(i, t); err != nil {
			return nil, err
		}
	}
	return x, nil
}

func (x *index) addTree(of int, t Tree) error {
	dir, err := openDir(unix.AT_FDCWD, t.Dir, t.Dir, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	root, err := pathOf(dir)
	if err != nil {
		return err
	}
	x.roots = append(x.roots, root)
	if t.Inodes != nil {
		for id := range t.Inodes {
			x.add(of, id)
		}
		return nil
	}
	st, err := statAt(dir, "")
	if err != nil {
		return &fs.PathError{Op: "statx", Path: t.Dir, Err: err}
	}
	x.add(of, st.id)
	return x.walk(of, dir, st.id.Dev, t.Dir)
}

// walk adds everything below the directory. It stops at mounts of other file
// systems, which are no part of the tree, but not at btrfs subvolumes, which
// are: they have a device of their own, too, and their root is inode 256.
func (x *index) walk(of, dir int, dev uint64, path string) error {
	var below []string
	for e, err := range entries(dir) {
		if err != nil {
			return &fs.PathError{Op: "getdents", Path: path, Err: err}
		}
		name := string(e.name)
		st, err := statAt(dir, name)
		if err == unix.ENOENT {
			continue // removed since it was listed
		}
		if err != nil {
			return &fs.PathError{Op: "statx", Path: path + "/" + name, Err: err}
		}
		if st.id.Dev != dev && st.dir && st.id.Ino != 256 {
			continue
		}
		x.add(of, st.id)
		if st.dir {
			below = append(below, name)
		}
	}
	for _, name := range below {
		full := path + "/" + name
		sub, err := openDir(dir, name, full, unix.O_NOFOLLOW)
		if err != nil {
			return err
		}
		st, err := statAt(sub, "")
		if err == nil {
			err = x.walk(of, sub, st.id.Dev, full)
		}
		unix.Close(sub)
		if err != nil {
			return err
		}
	}
	return nil
}

func (x *index) add(of int, id Inode) {
	x.entries = append(x.entries, entry{id, int32(of), x.heads[id.Ino]})
	x.heads[id.Ino] = int32(len(x.entries))
}

// hasNumber says that some file with this inode number is wanted, on whichever
// device.
func (x *index) hasNumber(ino uint64) bool {
	_, ok := x.heads[ino]
	return ok
}

// byNumber yields the entries with this inode number.
func (x *index) byNumber(ino uint64) iter.Seq[entry] {
	return func(yield func(entry) bool) {
		for i := x.heads[ino]; i != 0; i = x.entries[i-1].next {
			if !yield(x.entries[i-1]) {
				return
			}
		}
	}
}

// holders are the trees that hold the inode.
func (x *index) holders(id Inode) []int {
	var of []int
	for e := range x.byNumber(id.Ino) {
		if e.id == id && !slices.Contains(of, int(e.of)) {
			of = append(of, int(e.of))
		}
	}
	return of
}

// maybeHolders are the trees that hold an inode with this number.
func (x *index) maybeHolders(ino uint64) []int {
	var of []int
	for e := range x.byNumber(ino) {
		if !slices.Contains(of, int(e.of)) {
			of = append(of, int(e.of))
		}
	}
	return of
}

// covers says that a path as the kernel prints it is in one of the trees.
func (x *index) covers(path string) bool {
	for _, root := range x.roots {
		rest, ok := strings.CutPrefix(path, root)
		if ok && (root == "/" || strings.HasPrefix(rest, "/")) {
			return true
		}
	}
	return false
}
