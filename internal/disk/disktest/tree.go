package disktest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Tree is everything below a directory at one moment.
type Tree struct {
	// Entries are by slash-separated name; "." is the directory itself. Names
	// of one inode have one Entry.
	Entries map[string]*Entry
}

// Entry is what one inode holds.
type Entry struct {
	Mode     uint32 // type and permissions, as in stat(2)
	UID, GID int
	Size     int64
	Sum      [sha256.Size]byte // of a regular file's bytes
	Data     []byte            // the bytes, unless it was CaptureSums that looked
	Text     string            // of a symbolic link
	Rdev     uint64            // of a device
	Xattrs   map[string]string
	MTime    time.Time
}

// Capture reads the tree below dir, with all bytes of all files, mounted ones
// too.
func Capture(dir string) (*Tree, error) { return capture(dir, true) }

// CaptureSums is [Capture] without the bytes, for large trees: it can be
// compared, but not made again.
func CaptureSums(dir string) (*Tree, error) { return capture(dir, false) }

func capture(dir string, withData bool) (*Tree, error) {
	t := &Tree{Entries: map[string]*Entry{}}
	type inode struct{ dev, ino uint64 }
	inodes := map[inode]*Entry{}
	err := filepath.WalkDir(dir, func(full string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(full, &st); err != nil {
			return &fs.PathError{Op: "lstat", Path: full, Err: err}
		}
		name, err := filepath.Rel(dir, full)
		if err != nil {
			return err
		}
		id := inode{st.Dev, st.Ino}
		if inodes[id] == nil {
			if inodes[id], err = captureEntry(full, &st, withData); err != nil {
				return err
			}
		}
		t.Entries[name] = inodes[id]
		return nil
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

func captureEntry(full string, st *unix.Stat_t, withData bool) (*Entry, error) {
	e := &Entry{
		Mode: st.Mode, UID: int(st.Uid), GID: int(st.Gid),
		MTime: time.Unix(st.Mtim.Sec, st.Mtim.Nsec),
	}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.Size = st.Size
		err = e.readFile(full, withData)
	case unix.S_IFLNK:
		e.Text, err = os.Readlink(full)
	case unix.S_IFBLK, unix.S_IFCHR:
		e.Rdev = st.Rdev
	}
	if err == nil {
		e.Xattrs, err = readXattrs(full)
	}
	return e, err
}

func (e *Entry) readFile(full string, withData bool) error {
	f, err := os.Open(full)
	if err != nil {
		return err
	}
	defer f.Close()
	if withData {
		if e.Data, err = io.ReadAll(f); err != nil {
			return err
		}
		e.Sum = sha256.Sum256(e.Data)
		return nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	h.Sum(e.Sum[:0])
	return nil
}

func readXattrs(full string) (map[string]string, error) {
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(full, list)
	if err == unix.EOPNOTSUPP || n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "llistxattr", Path: full, Err: err}
	}
	xattrs := map[string]string{}
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		n, err := unix.Lgetxattr(full, name, value)
		if err != nil {
			return nil, &fs.PathError{Op: "lgetxattr " + name, Path: full, Err: err}
		}
		xattrs[name] = string(value[:n])
	}
	return xattrs, nil
}

// Names returns the names in the tree, sorted, a directory before what is in it.
func (t *Tree) Names() []string {
	names := make([]string, 0, len(t.Entries))
	for name := range t.Entries {
		if name != "." {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if t.Entries["."] != nil {
		names = slices.Insert(names, 0, ".") // "!" is before it
	}
	return names
}

// Sub returns the tree below one name of this tree, or nil if there is nothing.
func (t *Tree) Sub(name string) *Tree {
	sub := &Tree{Entries: map[string]*Entry{}}
	for n, e := range t.Entries {
		if n == name {
			sub.Entries["."] = e
		} else if rest, ok := strings.CutPrefix(n, name+"/"); ok {
			sub.Entries[rest] = e
		}
	}
	if len(sub.Entries) == 0 {
		return nil
	}
	return sub
}

// Without returns the tree without the names that match a pattern of
// [path.Match] and without what lies below them.
func (t *Tree) Without(patterns ...string) *Tree {
	rest := &Tree{Entries: map[string]*Entry{}}
	for name, e := range t.Entries {
		if !matchesUp(name, patterns) {
			rest.Entries[name] = e
		}
	}
	return rest
}

func matchesUp(name string, patterns []string) bool {
	for ; name != "."; name = path.Dir(name) {
		for _, p := range patterns {
			if ok, err := path.Match(p, name); err != nil {
				panic(err)
			} else if ok {
				return true
			}
		}
	}
	return false
}

// Equal says whether two trees hold the same: names, types, bytes, link texts,
// modes, owners, attributes, and which names are one inode. Times do not count.
func (t *Tree) Equal(u *Tree) bool { return t.Diff(u) == "" }

// Diff says in what u differs from t, a line for each difference, or nothing.
// Times do not count.
func (t *Tree) Diff(u *Tree) string {
	var b strings.Builder
	names := maps.Clone(t.Entries)
	maps.Copy(names, u.Entries)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		a, c := t.Entries[name], u.Entries[name]
		switch {
		case a == nil:
			fmt.Fprintf(&b, "+ %s  %s\n", quote(name), c)
		case c == nil:
			fmt.Fprintf(&b, "- %s  %s\n", quote(name), a)
		default:
			for _, d := range a.diff(c) {
				fmt.Fprintf(&b, "~ %s  %s\n", quote(name), d)
			}
		}
	}
	ta, tb := t.linkGroups(names), u.linkGroups(names)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if t.Entries[name] != nil && u.Entries[name] != nil && ta[name] != tb[name] {
			fmt.Fprintf(&b, "~ %s  one inode with %q, want with %q\n", quote(name), tb[name], ta[name])
		}
	}
	return b.String()
}

// DiffTimes says which files that are in both trees differ in time.
func (t *Tree) DiffTimes(u *Tree) string {
	var b strings.Builder
	for _, name := range t.Names() {
		a, c := t.Entries[name], u.Entries[name]
		if c != nil && a.Mode&unix.S_IFMT == unix.S_IFREG && !a.MTime.Equal(c.MTime) {
			fmt.Fprintf(&b, "~ %s  mtime %v, want %v\n", quote(name), c.MTime, a.MTime)
		}
	}
	return b.String()
}

// linkGroups tells for each name the first name of its inode.
func (t *Tree) linkGroups(names map[string]*Entry) map[string]string {
	first, groups := map[*Entry]string{}, map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		e := t.Entries[name]
		if e == nil {
			continue
		}
		if first[e] == "" {
			first[e] = name
		}
		groups[name] = first[e]
	}
	return groups
}

// diff lists in what c differs from e.
func (e *Entry) diff(c *Entry) []string {
	if e.Mode&unix.S_IFMT != c.Mode&unix.S_IFMT {
		return []string{fmt.Sprintf("is %s, want %s", c, e)}
	}
	var d []string
	add := func(what string, got, want any) { d = append(d, fmt.Sprintf("%s %v, want %v", what, got, want)) }
	if e.Mode != c.Mode {
		add("mode", fmt.Sprintf("%04o", c.Mode&0o7777), fmt.Sprintf("%04o", e.Mode&0o7777))
	}
	if e.UID != c.UID || e.GID != c.GID {
		add("owner", fmt.Sprintf("%d:%d", c.UID, c.GID), fmt.Sprintf("%d:%d", e.UID, e.GID))
	}
	if e.Size != c.Size || e.Sum != c.Sum {
		add("holds", c.content(), e.content())
	}
	if e.Text != c.Text {
		add("points to", quote(c.Text), quote(e.Text))
	}
	if e.Rdev != c.Rdev {
		add("device", c.Rdev, e.Rdev)
	}
	all := maps.Clone(e.Xattrs)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, c.Xattrs)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		want, inE := e.Xattrs[name]
		got, inC := c.Xattrs[name]
		if inE != inC || got != want {
			add(name, fmt.Sprintf("%q (%v)", got, inC), fmt.Sprintf("%q (%v)", want, inE))
		}
	}
	return d
}

func (e *Entry) content() string {
	if len(e.Data) > 0 && len(e.Data) <= 40 && bytes.IndexByte(e.Data, 0) < 0 {
		return fmt.Sprintf("%q", e.Data)
	}
	return fmt.Sprintf("%d bytes %x", e.Size, e.Sum[:6])
}

var typeNames = map[uint32]string{
	unix.S_IFREG: "file", unix.S_IFDIR: "directory", unix.S_IFLNK: "link", unix.S_IFIFO: "fifo",
	unix.S_IFSOCK: "socket", unix.S_IFBLK: "block device", unix.S_IFCHR: "character device",
}

// String describes an entry in a few words.
func (e *Entry) String() string {
	s := typeNames[e.Mode&unix.S_IFMT]
	switch e.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return s + " -> " + quote(e.Text)
	case unix.S_IFREG:
		return fmt.Sprintf("%s %04o, %s", s, e.Mode&0o7777, e.content())
	}
	return fmt.Sprintf("%s %04o", s, e.Mode&0o7777)
}

// String lists the tree, a line for each name.
func (t *Tree) String() string {
	var b strings.Builder
	for _, name := range t.Names() {
		fmt.Fprintf(&b, "%s  %s\n", quote(name), t.Entries[name])
	}
	return b.String()
}
