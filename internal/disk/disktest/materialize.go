package disktest

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Materialize makes the tree of the state in an empty directory.
func (s State) Materialize(dir string) error { return s.Tree().Materialize(dir) }

// Materialize makes the tree in an empty directory: bytes, modes, link texts,
// names of one inode, times where they are known, attributes; owners and
// devices as far as the user may.
func (t *Tree) Materialize(dir string) error {
	made := map[*Entry]string{}
	names := t.Names()
	for _, name := range names {
		e, full := t.Entries[name], filepath.Join(dir, name)
		if first, ok := made[e]; ok {
			if err := os.Link(first, full); err != nil {
				return err
			}
			continue
		}
		made[e] = full
		if err := e.make(full, name == "."); err != nil {
			return fmt.Errorf("make %s: %w", full, err)
		}
		if e.Mode&unix.S_IFMT != unix.S_IFDIR {
			if err := e.dress(full); err != nil {
				return err
			}
		}
	}
	for _, name := range slices.Backward(names) { // modes and times once the directory is full
		if e := t.Entries[name]; e.Mode&unix.S_IFMT == unix.S_IFDIR {
			if err := e.dress(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *Entry) make(full string, isRoot bool) error {
	switch e.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return os.WriteFile(full, e.Data, 0o600)
	case unix.S_IFLNK:
		return os.Symlink(e.Text, full)
	case unix.S_IFDIR:
		if isRoot {
			return nil
		}
		return os.Mkdir(full, 0o700)
	}
	return unix.Mknod(full, e.Mode&unix.S_IFMT|0o600, int(e.Rdev))
}

// dress gives what was made its metadata, in the order of disk.File.SetMeta. It
// does only what is not so yet: most files are the user's, without attributes.
func (e *Entry) dress(full string) error {
	wrap := func(op string, err error) error {
		if err == nil {
			return nil
		}
		return &fs.PathError{Op: op, Path: full, Err: err}
	}
	if e.UID != os.Geteuid() || e.GID != os.Getegid() {
		if err := unix.Lchown(full, e.UID, e.GID); err != nil && os.Geteuid() == 0 {
			return wrap("lchown", err)
		}
	}
	isLink := e.Mode&unix.S_IFMT == unix.S_IFLNK
	for _, name := range slices.SortedFunc(maps.Keys(e.Xattrs), aclFirst) {
		if isLink && strings.HasPrefix(name, "user.") {
			continue
		}
		err := unix.Lsetxattr(full, name, []byte(e.Xattrs[name]), 0)
		if err != nil && !(err == unix.EPERM && os.Geteuid() != 0) {
			return wrap("lsetxattr "+name, err)
		}
	}
	if !isLink {
		if err := unix.Chmod(full, e.Mode&0o7777); err != nil {
			return wrap("chmod", err)
		}
		if value, ok := e.Xattrs["security.capability"]; ok && os.Geteuid() == 0 {
			// chmod leaves it alone, but the order of names need not have.
			if err := unix.Lsetxattr(full, "security.capability", []byte(value), 0); err != nil {
				return wrap("lsetxattr", err)
			}
		}
	}
	if e.MTime.IsZero() {
		return nil
	}
	ts := unix.NsecToTimespec(e.MTime.UnixNano())
	return wrap("utimensat", unix.UtimesNanoAt(unix.AT_FDCWD, full, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
}

// aclFirst sorts the ACLs to the front, since they change modes.
func aclFirst(a, b string) int {
	rank := func(s string) string {
		if strings.HasPrefix(s, "system.posix_acl") {
			return "0" + s
		}
		return "1" + s
	}
	return strings.Compare(rank(a), rank(b))
}
