package release

import (
	"crypto/sha256"
	"encoding/hex"
	"iter"
	"slices"
	"strings"
)

// Digest is the SHA-256 of some bytes. The zero Digest means "not known yet".
type Digest [sha256.Size]byte

// String is the digest in lowercase hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Short is enough of the digest for a person to tell releases apart.
func (d Digest) Short() string { return d.String()[:12] }

// IsZero says that the digest is not known yet.
func (d Digest) IsZero() bool { return d == Digest{} }

// Type is what an entry of a manifest is. There are no others: devices,
// sockets and FIFOs do not belong in a release.
type Type byte

// The types of an entry, as the letters that stand for them in a manifest.
const (
	File    Type = 'f'
	Dir     Type = 'd'
	Symlink Type = 'l'
)

// Manifest says everything about a release but its bytes.
type Manifest struct {
	Name    string // the product; "" if the release does not say
	Version string // free text for people; "" if the release does not say

	// Times says that modification times are part of what the release is, so
	// that they count for its id and a file whose time alone differs is
	// replaced. Otherwise times are kept when a file is copied, and a rebuilt
	// tree of equal bytes is the same release.
	Times bool

	Hooks   Hooks
	Restart []RestartRule // how its processes are brought to new code; the first that matches counts
	Plugins []PluginRule  // what its programs load by name
	Entries []Entry       // sorted by Path, bytewise; parents stand before children
}

// Hooks are the commands that the engine runs around a commit, by sh -c, as
// the user who commits, in the target's directory.
type Hooks struct {
	Before  string // a failure refuses the commit; nothing has changed
	After   string // a failure is reported with status 4
	Timeout int64  // in nanoseconds, for each; 0 means 60 seconds
}

// Entry is one file, directory or symbolic link of a release.
type Entry struct {
	Path   string // slash-separated, relative, clean; any byte but NUL
	Type   Type
	Mode   uint32 // permission, set-id and sticky bits; 0 for a symbolic link
	Owner  string // user name or decimal number; "" is whoever applies
	Group  string // group name or decimal number; "" is the group of whoever applies
	Size   int64  // bytes of a File
	Digest Digest // of a File's bytes
	Text   string // of a Symlink

	// HardLink is the path of the first entry, in order, of the group of hard
	// links that this File belongs to; "" for that first one and for files
	// with one name.
	HardLink string

	// Xattrs are the extended attributes by full name: user.*,
	// system.posix_acl_access, system.posix_acl_default and
	// security.capability. Labels are not here: they are the host's policy.
	Xattrs map[string]string

	MTime  int64 // modification time, nanoseconds since 1970; 0 is not known
	Sparse bool  // has holes, which are to stay
	Keep   bool  // the user may change this file: never overwrite such a change
}

// Find returns the entry with that path, or nil. The entries must be sorted, as
// [Manifest.Check] demands.
func (m *Manifest) Find(path string) *Entry { return find(m.Entries, path) }

// Beside yields what has the same path in m and in old, by path; what one of them
// does not have is nil. It is faster than a Find for each. Both must be sorted.
func (m *Manifest) Beside(old *Manifest) iter.Seq2[*Entry, *Entry] {
	return func(yield func(e, was *Entry) bool) {
		a, b := m.Entries, old.Entries
		for len(a)+len(b) > 0 {
			var e, was *Entry
			if len(b) == 0 || len(a) > 0 && a[0].Path <= b[0].Path {
				e = &a[0]
			}
			if len(a) == 0 || len(b) > 0 && b[0].Path <= a[0].Path {
				was = &b[0]
			}
			if e != nil {
				a = a[1:]
			}
			if was != nil {
				b = b[1:]
			}
			if !yield(e, was) {
				return
			}
		}
	}
}

func find(entries []Entry, path string) *Entry {
	if i := search(entries, path); i < len(entries) && entries[i].Path == path {
		return &entries[i]
	}
	return nil
}

// search returns where path is or would be. (slices.BinarySearchFunc would copy
// an entry for each step.)
func search(entries []Entry, path string) int {
	lo, hi := 0, len(entries)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if entries[mid].Path < path {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

func sortEntries(entries []Entry) {
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
}
