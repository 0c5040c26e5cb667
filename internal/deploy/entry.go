package deploy

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
	"moult.example/internal/release"
)

// A found entry is what really is at a path: a [release.Entry] whose owners are
// numbers.

// entryTypeOther is what no release can hold: a FIFO, a socket, a device.
const entryTypeOther release.Type = 'o'

// lstat describes what is at an absolute path, without the digest and the
// extended attributes.
func lstat(path string) (release.Entry, unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return release.Entry{}, st, &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	e := release.Entry{
		Owner: strconv.Itoa(int(st.Uid)), Group: strconv.Itoa(int(st.Gid)),
		Mode: uint32(st.Mode) & 0o7777, MTime: st.Mtim.Nano(),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.Type, e.Size = release.File, st.Size
		e.Sparse = st.Blocks*512 < st.Size
	case unix.S_IFDIR:
		e.Type = release.Dir
	case unix.S_IFLNK:
		e.Type, e.Mode = release.Symlink, 0
		text, err := os.Readlink(path)
		if err != nil {
			return e, st, err
		}
		e.Text = text
	default:
		e.Type = entryTypeOther
	}
	return e, st, nil
}

// find describes what is at an absolute path in full. A digest that the cache
// knows for key is not computed anew; cache may be nil.
func find(path, key string, cache *known) (release.Entry, error) {
	e, st, err := lstat(path)
	if err != nil {
		return e, err
	}
	if e.Xattrs, err = xattrs(path, e.Type); err != nil {
		return e, err
	}
	if e.Type != release.File {
		return e, nil
	}
	if digest, ok := cache.lookup(key, statOf(&st)); ok {
		e.Digest = digest
		return e, nil
	}
	seen := release.Now()
	if e.Digest, err = hashFile(path); err != nil {
		return e, err
	}
	cache.learn(path, key, &st, e.Digest, seen)
	return e, nil
}

func statOf(st *unix.Stat_t) release.Stat {
	return release.Stat{Dev: uint64(st.Dev), Ino: st.Ino, Size: st.Size, MTime: st.Mtim.Nano(), CTime: st.Ctim.Nano()}
}

// hashFile digests a regular file. It does not follow a symbolic link, and does
// not hang on a FIFO that came in between.
func hashFile(path string) (release.Digest, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return release.Digest{}, err
	}
	defer f.Close()
	return hashOpen(f)
}

func hashOpen(r io.Reader) (d release.Digest, err error) {
	h := sha256.New()
	buf := bufs.Get().(*[]byte)
	defer bufs.Put(buf)
	if _, err := io.CopyBuffer(h, struct{ io.Reader }{r}, *buf); err != nil {
		return d, err
	}
	h.Sum(d[:0])
	return d, nil
}

// ours says which extended attributes a release carries. Labels (security.selinux)
// belong to the host.
func ours(name string) bool {
	return strings.HasPrefix(name, "user.") || name == "system.posix_acl_access" ||
		name == "system.posix_acl_default" || name == "security.capability"
}

func xattrs(path string, typ release.Type) (map[string]string, error) {
	if typ != release.File && typ != release.Dir {
		return nil, nil
	}
	var buf [4096]byte
	n, err := unix.Llistxattr(path, buf[:])
	names := buf[:max(n, 0)]
	if err == unix.ERANGE {
		if n, err = unix.Llistxattr(path, nil); err == nil {
			names = make([]byte, n)
			n, err = unix.Llistxattr(path, names)
			names = names[:max(n, 0)]
		}
	}
	if err == unix.ENOTSUP || len(names) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "listxattr", Path: path, Err: err}
	}
	var attrs map[string]string
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		if !ours(name) {
			continue
		}
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, &fs.PathError{Op: "getxattr " + name, Path: path, Err: err}
		}
		if attrs == nil {
			attrs = map[string]string{}
		}
		attrs[name] = string(value[:n])
	}
	return attrs, nil
}

// meta is what the disk has to set for an entry whose owners are uid and gid.
func meta(e *release.Entry, uid, gid int) disk.Meta {
	m := disk.Meta{UID: uid, GID: gid, Mode: e.Mode, Xattrs: e.Xattrs, KeepMode: e.Type == release.Symlink}
	if os.Geteuid() != 0 && uid == os.Geteuid() {
		// Who is not root cannot give a file away, and need not say what is so.
		m.UID = -1
	}
	if e.MTime != 0 {
		m.MTime = time.Unix(0, e.MTime)
	}
	return m
}

// differs says in what a found entry is not what a wanted one says, "" if it is
// the same. The owners of want are uid and gid.
func differs(want *release.Entry, uid, gid int, found *release.Entry, times bool) string {
	switch {
	case want.Type != found.Type:
		return "type"
	case want.Type == release.File && want.Size != found.Size:
		return "size"
	case want.Type == release.File && want.Digest != found.Digest:
		return "content"
	case want.Type == release.Symlink && want.Text != found.Text:
		return "link text"
	case want.Type != release.Symlink && want.Mode != found.Mode:
		return fmt.Sprintf("mode (%04o, is %04o)", want.Mode, found.Mode)
	case strconv.Itoa(uid) != found.Owner:
		return fmt.Sprintf("owner (%d, is %s)", uid, found.Owner)
	case strconv.Itoa(gid) != found.Group:
		return fmt.Sprintf("group (%d, is %s)", gid, found.Group)
	case !maps.Equal(want.Xattrs, found.Xattrs):
		return "extended attributes"
	case times && want.Type != release.Dir && want.MTime != 0 && want.MTime != found.MTime:
		return "time"
	}
	return ""
}

// dirTimeDiffers compares two releases: a directory on the disk has another time
// as soon as anything is laid beside what it came with.
func dirTimeDiffers(want, was *release.Entry) bool {
	return want.Type == release.Dir && was.Type == release.Dir && want.MTime != 0 && want.MTime != was.MTime
}

// fixOwners writes the owners of want as numbers, as a found entry has them.
func fixOwners(want release.Entry, uid, gid int) release.Entry {
	want.Owner, want.Group = strconv.Itoa(uid), strconv.Itoa(gid)
	return want
}
