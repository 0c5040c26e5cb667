package hostfacts

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount is something that is mounted in our mount namespace.
type Mount struct {
	ID       uint64 // as MountID gives it
	Parent   uint64 // the mount that it is on
	Point    string // where it is, an absolute path without symbolic links
	Root     string // what of the file system is seen there, "/" if all; a file's path if a file is mounted
	Type     string // of the file system: "ext4", "fuse.sshfs"
	Source   string // a device, usually
	ReadOnly bool   // this mount or its whole file system
	Dev      string // major:minor of the file system
}

// Mounts returns all mounts, in the order in which they were made. Where
// several are at one point the last one is what is seen there.
func Mounts() ([]Mount, error) { return MountsIn("/proc/self/mountinfo") }

// MountsIn returns the mounts of a process, read from its mountinfo, as they are
// below its root directory.
func MountsIn(name string) ([]Mount, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	mounts, err := parseMounts(f)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return mounts, nil
}

// MountsBelow returns the mounts at or below a path, which must be absolute
// and have no symbolic links, those that another mount hides included.
func MountsBelow(path string) ([]Mount, error) {
	mounts, err := Mounts()
	if err != nil {
		return nil, err
	}
	path = filepath.Clean(path)
	below := strings.TrimSuffix(path, "/") + "/"
	return slices.DeleteFunc(mounts, func(m Mount) bool {
		return m.Point != path && !strings.HasPrefix(m.Point, below)
	}), nil
}

// Inside is where a path, which must be absolute and have no symbolic links, is in
// the file system that is mounted there, and which of these mounts that is. Other
// mounts of that file system show the same under other names.
func Inside(path string, mounts []Mount) (inside string, at Mount, ok bool) {
	for _, m := range mounts {
		if m.Point == path || m.Point == "/" || strings.HasPrefix(path, m.Point+"/") {
			if !ok || len(m.Point) >= len(at.Point) {
				at, ok = m, true
			}
		}
	}
	return filepath.Join(at.Root, strings.TrimPrefix(path, at.Point)), at, ok
}

// parseMounts reads lines as proc(5) describes them:
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
func parseMounts(r io.Reader) ([]Mount, error) {
	var mounts []Mount
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20) // an overlay with many layers has long ones
	for lines.Scan() {
		mount, optional, ok := bytes.Cut(lines.Bytes(), []byte(" - "))
		m, super := bytes.Split(mount, []byte{' '}), bytes.Split(optional, []byte{' '})
		if !ok || len(m) < 6 || len(super) < 3 {
			return nil, fmt.Errorf("not a line of mountinfo: %q", lines.Text())
		}
		id, err := strconv.ParseUint(string(m[0]), 10, 64)
		parent, err2 := strconv.ParseUint(string(m[1]), 10, 64)
		if err != nil || err2 != nil {
			return nil, fmt.Errorf("not a line of mountinfo: %q", lines.Text())
		}
		mounts = append(mounts, Mount{
			ID: id, Parent: parent, Dev: string(m[2]), Root: unescape(m[3]), Point: unescape(m[4]),
			Type: unescape(super[0]), Source: unescape(super[1]),
			ReadOnly: hasOption(m[5], "ro") || hasOption(super[2], "ro"),
		})
	}
	return mounts, lines.Err()
}

// unescape undoes what the kernel does to blanks, newlines, backslashes and
// their like: a backslash and three octal digits.
func unescape(b []byte) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b)
	}
	var out []byte
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+3 < len(b) {
			if v, err := strconv.ParseUint(string(b[i+1:i+4]), 8, 8); err == nil {
				out = append(out, byte(v))
				i += 3
				continue
			}
		}
		out = append(out, b[i])
	}
	return string(out)
}

func hasOption(list []byte, name string) bool {
	return slices.Contains(strings.Split(string(list), ","), name)
}

// MountID is the number of the mount that a path is on, which a symbolic link
// at its end does not change. Rename and link work within one mount only, not
// within one file system: st_dev is no substitute. Numbers are used again
// after an unmount.
func MountID(path string) (uint64, error) {
	var st unix.Statx_t
	err := retry(func() error {
		return unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st)
	})
	if err != nil {
		return 0, &fs.PathError{Op: "statx", Path: path, Err: err}
	}
	if st.Mask&unix.STATX_MNT_ID == 0 { // before Linux 5.8
		return mountIDByDescriptor(path)
	}
	return st.Mnt_id, nil
}

// mountIDByDescriptor is MountID for every kernel since 3.15.
func mountIDByDescriptor(path string) (uint64, error) {
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return 0, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	name := "/proc/self/fdinfo/" + strconv.Itoa(fd)
	text, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if id, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			return strconv.ParseUint(strings.TrimSpace(id), 10, 64)
		}
	}
	return 0, &fs.PathError{Op: "read", Path: name, Err: unix.ENODATA}
}

// IsMountPoint says whether something is mounted at the path itself, be it a
// directory or a file. Nothing can be renamed over it, and it cannot be
// renamed (EBUSY). A symbolic link is none; the path's directory may be
// reached by one.
func IsMountPoint(path string) (bool, error) {
	id, err := MountID(path)
	if err != nil {
		return false, err
	}
	dir, err := filepath.Abs(path)
	if err != nil {
		return false, err
	}
	if dir == "/" {
		return true, nil
	}
	parent, err := MountID(filepath.Dir(dir) + "/.") // follows a link
	return id != parent, err
}

// ReadOnly says whether nothing can be changed at the path because its mount
// or its file system is read-only.
func ReadOnly(path string) (bool, error) {
	st, err := statfs(path)
	return st.Flags&unix.ST_RDONLY != 0, err
}

// FSType is the name of the file system that the path is on, as mount(8) has
// it: "ext4", "fuse.sshfs". In a chroot that is no mount point, where the
// kernel does not list the mount, it is that of the family, or its number.
func FSType(path string) (string, error) {
	id, err := MountID(path)
	if err != nil {
		return "", err
	}
	mounts, err := Mounts()
	if err != nil {
		return "", err
	}
	for _, m := range mounts {
		if m.ID == id {
			return m.Type, nil
		}
	}
	st, err := statfs(path)
	return typeName(uint32(st.Type)), err
}

func typeName(magic uint32) string {
	switch magic {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlay"
	case unix.NFS_SUPER_MAGIC:
		return "nfs"
	case unix.FUSE_SUPER_MAGIC:
		return "fuse"
	default:
		return fmt.Sprintf("0x%x", magic)
	}
}

func statfs(path string) (unix.Statfs_t, error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Statfs(path, &st) }); err != nil {
		return st, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	return st, nil
}

func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
