package release

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Limits of what a release may hold. They are the kernel's, or far beyond what
// anyone ships, and there so that a hostile release cannot ask for everything.
const (
	maxEntries  = 1 << 20
	maxManifest = 64 << 20         // bytes
	maxPath     = unix.PathMax - 1 // without the NUL
	maxName     = 255              // NAME_MAX
	maxText     = unix.PathMax - 1 // of a symbolic link
	maxSize     = 1 << 50          // of one file, in bytes; and 1<<60 for all
	maxXattr    = 64 << 10         // of one value: XATTR_SIZE_MAX
	maxOwner    = 256
	maxTitle    = 256 // of version
	maxHook     = 64 << 10

	// Own is the name at the top of a target that holds moult's own state, and
	// in a packed release the manifest: a release may not use it.
	Own = ".moult"
)

// Check says what is wrong with the manifest, if anything: the first entry that
// escapes the release, is out of order or there twice, has no parent directory,
// or is not possible. Digests may be missing.
func (m *Manifest) Check() error {
	if err := m.checkHeader(); err != nil {
		return err
	}
	if len(m.Entries) > maxEntries {
		return fmt.Errorf("%d entries are more than the %d that a release can have", len(m.Entries), maxEntries)
	}
	c := newChecker(m)
	for i := range m.Entries {
		if err := c.check(i); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manifest) checkHeader() error {
	if m.Name != "" && !productName(m.Name) {
		return fmt.Errorf("name %.80q: a name has up to 64 letters, digits and . _ + -, and begins with a letter or digit", m.Name)
	}
	if len(m.Version) > maxTitle || !printable(m.Version) {
		return fmt.Errorf("version %.80q: a version is up to %d bytes of text without control characters", m.Version, maxTitle)
	}
	for _, h := range []string{m.Hooks.Before, m.Hooks.After} {
		if len(h) > maxHook || strings.IndexByte(h, 0) >= 0 {
			return fmt.Errorf("hook %.40q: a hook is a command of up to %d bytes", h, maxHook)
		}
	}
	if m.Hooks.Timeout < 0 {
		return errors.New("the time limit of the hooks is negative")
	}
	if _, key, err := checkRules(m.Restart); err != nil {
		return fmt.Errorf("restart: %s: %w", key, err)
	}
	if n := len(encodeRules(m.Restart)); n > maxRuleBytes {
		return fmt.Errorf("restart: %d bytes are more than the %d that rules can have", n, maxRuleBytes)
	}
	if _, key, err := checkPlugins(m.Plugins); err != nil {
		return fmt.Errorf("plugins: %s: %w", key, err)
	}
	if n := len(encodeRules(m.Plugins)); n > maxRuleBytes {
		return fmt.Errorf("plugins: %d bytes are more than the %d that rules can have", n, maxRuleBytes)
	}
	return nil
}

// productName says that s can be a product's name: it becomes the name of a
// directory, and is typed on command lines.
func productName(s string) bool {
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || strings.IndexByte("._+-", c) < 0) {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

func printable(s string) bool {
	for _, r := range s {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return false
		}
	}
	return utf8.ValidString(s)
}

// A checker checks the entries of a manifest one after the other.
type checker struct {
	m    *Manifest
	dirs map[string]bool
	last string // the parent of the entry before, which is often the parent of the next
	size int64  // of all files so far
}

func newChecker(m *Manifest) *checker {
	return &checker{m: m, dirs: map[string]bool{}}
}

// check checks entry i, after those before it.
func (c *checker) check(i int) error {
	e := &c.m.Entries[i]
	if err := checkPath(e.Path); err != nil {
		return fmt.Errorf("%.200q: %w", e.Path, err)
	}
	if i > 0 && e.Path <= c.m.Entries[i-1].Path {
		if e.Path == c.m.Entries[i-1].Path {
			return fmt.Errorf("%q is there twice", e.Path)
		}
		return fmt.Errorf("%q is out of order", e.Path)
	}
	if at := strings.LastIndexByte(e.Path, '/'); at >= 0 && e.Path[:at] != c.last {
		parent := e.Path[:at]
		if !c.dirs[parent] {
			return fmt.Errorf("%q: %q is not a directory of the release", e.Path, parent)
		}
		c.last = parent
	}
	if err := c.checkEntry(i, e); err != nil {
		return fmt.Errorf("%q: %w", e.Path, err)
	}
	return nil
}

func (c *checker) checkEntry(i int, e *Entry) error {
	switch e.Type {
	case File:
		if e.Size < 0 || e.Size > maxSize {
			return fmt.Errorf("a size of %d bytes is not possible", e.Size)
		}
		if c.size += e.Size; c.size > 1<<60 {
			return errors.New("the release is too large")
		}
	case Dir:
		c.dirs[e.Path] = true
	case Symlink:
		if e.Text == "" || len(e.Text) > maxText || strings.IndexByte(e.Text, 0) >= 0 {
			return errors.New("the text of a symbolic link has 1 to 4095 bytes and no NUL")
		}
	default:
		return fmt.Errorf("type %q is not known", byte(e.Type))
	}
	if e.Type != File && (e.Size != 0 || !e.Digest.IsZero() || e.HardLink != "" || e.Sparse || e.Keep) {
		return errors.New("only a file has a size, a digest and hard links, is sparse or kept")
	}
	if e.Type != Symlink && e.Text != "" {
		return errors.New("only a symbolic link has a text")
	}
	if e.Mode&^0o7777 != 0 || e.Type == Symlink && e.Mode != 0 {
		return fmt.Errorf("mode %#o is not possible", e.Mode)
	}
	for _, s := range []string{e.Owner, e.Group} {
		if !ownerName(s) {
			return fmt.Errorf("%.80q is no name of a user or group", s)
		}
	}
	for name, value := range e.Xattrs {
		if err := checkXattr(e, name, value); err != nil {
			return fmt.Errorf("attribute %.80q: %w", name, err)
		}
	}
	if e.HardLink != "" {
		return c.checkLink(i, e)
	}
	return nil
}

// checkLink checks that the names of a group of hard links say the same of
// their one inode.
func (c *checker) checkLink(i int, e *Entry) error {
	first := find(c.m.Entries[:i], e.HardLink)
	if first == nil || first.Type != File || first.HardLink != "" {
		return fmt.Errorf("its hard link %q is not the first name of a file before it", e.HardLink)
	}
	if e.Size != first.Size || e.Digest != first.Digest || e.Mode != first.Mode ||
		e.Owner != first.Owner || e.Group != first.Group || e.MTime != first.MTime ||
		e.Sparse != first.Sparse || e.Keep != first.Keep || !maps.Equal(e.Xattrs, first.Xattrs) {
		return fmt.Errorf("it is a hard link of %q, but differs from it in more than its name", e.HardLink)
	}
	return nil
}

var (
	errEmptyName = errors.New("a part of the path is empty")
	errDotName   = errors.New("a path may not have . or .. in it")
)

// checkPath says what is wrong with the path of an entry.
func checkPath(path string) error {
	switch {
	case path == "":
		return errors.New("the path is empty")
	case path[0] == '/':
		return errors.New("the path is absolute")
	case len(path) > maxPath:
		return fmt.Errorf("the path has more than %d bytes", maxPath)
	case strings.IndexByte(path, 0) >= 0:
		return errors.New("the path has a NUL in it")
	}
	start := 0
	for i := 0; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		switch name := path[start:i]; {
		case name == "":
			return errEmptyName
		case name == "." || name == "..":
			return errDotName
		case len(name) > maxName:
			return fmt.Errorf("a part of the path has more than %d bytes", maxName)
		case start == 0 && name == Own:
			return errOwn
		}
		start = i + 1
	}
	return nil
}

var errOwn = errors.New("the name " + Own + " at the top belongs to moult's own state: this is a target, or a part of one, not a release")

func ownerName(s string) bool {
	return len(s) <= maxOwner && !strings.ContainsAny(s, "\x00\n:/")
}
