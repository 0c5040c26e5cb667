package release

import (
	"archive/tar"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The keys of PAX records that tar(1) has for extended attributes and ACLs.
const (
	paxXattr = "SCHILY.xattr."
	paxACL   = "SCHILY.acl."
)

// tar(1) writes "=" and "%" in the name of an attribute so.
var (
	paxEscape   = strings.NewReplacer("%", "%25", "=", "%3D")
	paxUnescape = strings.NewReplacer("%3D", "=", "%25", "%")
)

// entry makes an entry of a member's header.
func (t *tarReader) entry(hdr *tar.Header, path string) (member, error) {
	m := member{Entry: Entry{Path: path, Mode: uint32(hdr.Mode & 0o7777), MTime: unixNano(hdr.ModTime)}}
	if t.owners != OwnersNone {
		m.Owner, m.Group = t.owner(hdr.Uname, hdr.Uid), t.owner(hdr.Gname, hdr.Gid)
	}
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		m.Type, m.Size = File, hdr.Size
		m.Sparse = hdr.Typeflag == tar.TypeGNUSparse || isPAXSparse(hdr)
	case tar.TypeDir:
		m.Type = Dir
	case tar.TypeSymlink:
		m.Type, m.Text, m.Mode = Symlink, hdr.Linkname, 0
	case tar.TypeLink:
		return t.hardLink(path, hdr.Linkname)
	case tar.TypeFifo:
		m.refused = errors.New("a FIFO does not belong in a release")
	case tar.TypeChar, tar.TypeBlock:
		m.refused = errors.New("a device does not belong in a release")
	default:
		m.refused = fmt.Errorf("members of type %q are not known", hdr.Typeflag)
	}
	if m.Type == File && (m.Size < 0 || m.Size > maxSize) {
		return m, fmt.Errorf("a size of %d bytes is not possible", m.Size)
	}
	if err := t.attributes(hdr, &m); err != nil {
		return m, err
	}
	// What is kept of a member is as long as its line in a manifest.
	t.text += len(path) + len(m.Text) + 32
	for name, value := range m.Xattrs {
		t.text += len(name) + len(value)
	}
	if t.text > maxManifest {
		return m, fmt.Errorf("its names and attributes have more than %d bytes", maxManifest)
	}
	return m, nil
}

func isPAXSparse(hdr *tar.Header) bool {
	for key := range hdr.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func (t *tarReader) owner(name string, id int) string {
	if t.owners == OwnersNames && name != "" && ownerName(name) {
		return name
	}
	return strconv.Itoa(max(id, 0))
}

// unixNano is 0, "not known", for a time that an int64 cannot hold.
func unixNano(t time.Time) int64 {
	if sec := t.Unix(); sec > math.MaxInt64/1_000_000_000-1 || sec < math.MinInt64/1_000_000_000+1 {
		return 0
	}
	return t.UnixNano()
}

// attributes takes the extended attributes that a release carries.
func (t *tarReader) attributes(hdr *tar.Header, m *member) error {
	for key, value := range hdr.PAXRecords {
		if strings.HasPrefix(key, paxACL) && strings.Contains(value, "mask") {
			// Leaving it out would give the mask's rights to the group.
			return errors.New("its ACL is given as text: make the tar with --xattrs --xattrs-include='*' instead of --acls")
		}
		name, ok := strings.CutPrefix(key, paxXattr)
		if name = paxUnescape.Replace(name); !ok || !shipped(name) || m.refused != nil {
			continue
		}
		if err := checkXattr(&m.Entry, name, value); err != nil {
			return fmt.Errorf("attribute %.80q: %w", name, err)
		}
		if m.Xattrs == nil {
			m.Xattrs = map[string]string{}
		}
		m.Xattrs[name] = value
	}
	return nil
}

// hardLink makes another name of a file that was there before.
func (t *tarReader) hardLink(path, linkname string) (member, error) {
	target, err := memberPath(linkname)
	if err != nil {
		return member{}, fmt.Errorf("its hard link %.200q: %w", linkname, err)
	}
	i, ok := t.byPath[target]
	if !ok || t.members[i].Type != File {
		return member{}, fmt.Errorf("its hard link %q is not a file before it", linkname)
	}
	m := t.members[i]
	m.Path = path
	t.text += len(path) + 32
	return m, nil
}

// assemble makes the sorted entries of a release, and the numbers of their
// bytes beside them. Directories that the archive does not name are added.
func (t *tarReader) assemble(c *Config) ([]Entry, []int, error) {
	members := slices.DeleteFunc(t.members, func(m member) bool { return c.excludesBelow(m.Path) })
	files := 0
	seen := make(map[string]bool, len(members))
	for i := range members {
		if m := &members[i]; m.refused != nil {
			return nil, nil, fmt.Errorf("%q: %w", m.Path, m.refused)
		} else if m.Type != Dir {
			files++
		}
		seen[members[i].Path] = true
	}
	if files == 0 {
		return nil, nil, errEmpty
	}
	for i := range members { // of those that are there now
		path := members[i].Path
		for at := strings.LastIndexByte(path, '/'); at >= 0; at = strings.LastIndexByte(path, '/') {
			if path = path[:at]; seen[path] {
				break
			}
			seen[path] = true
			members = append(members, member{Entry: Entry{Path: path, Type: Dir, Mode: 0o755}})
		}
	}
	slices.SortFunc(members, func(a, b member) int { return strings.Compare(a.Path, b.Path) })

	entries, bytes := make([]Entry, len(members)), make([]int, len(members))
	first := map[int]string{}
	for i := range members {
		m := &members[i]
		entries[i], bytes[i] = m.Entry, m.bytes
		if m.Type != File {
			continue
		}
		if path, ok := first[m.bytes]; ok {
			entries[i].HardLink = path
		} else {
			first[m.bytes] = m.Path
		}
	}
	return entries, bytes, nil
}

// sameBytes compares what a packed release holds with its manifest.
func sameBytes(m *Manifest, got []Entry) error {
	for i := range m.Entries {
		want := &m.Entries[i]
		if i == len(got) || got[i].Path > want.Path {
			return fmt.Errorf("%q is in the manifest, but not in the archive", want.Path)
		}
		if got[i].Path < want.Path {
			return fmt.Errorf("%q is not in its manifest", got[i].Path)
		}
		if got[i].Type != want.Type || got[i].Size != want.Size || got[i].Digest != want.Digest || got[i].Text != want.Text {
			return fmt.Errorf("%q: its bytes are not those that the manifest names", want.Path)
		}
	}
	if len(got) > len(m.Entries) {
		return fmt.Errorf("%q is not in its manifest", got[len(m.Entries)].Path)
	}
	return nil
}

// packedOptions refuses what would change a release that is already made.
func packedOptions(m *Manifest, opt Options) error {
	if opt.Config != "" || opt.Owners != OwnersNone || opt.Times && !m.Times ||
		opt.Name != "" && opt.Name != m.Name || opt.Version != "" && opt.Version != m.Version {
		return errors.New("a packed release is what its manifest says: its name, version, owners, times and moult.toml are set when it is packed")
	}
	return nil
}
