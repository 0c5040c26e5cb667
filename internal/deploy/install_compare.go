package deploy

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// isSame says whether installing the file would change nothing: both are
// regular files of the same bytes, and what is there has the owner and the mode
// that it would get. A source that is a symbolic link is never the same, nor is
// a destination with an ACL or capabilities, which a new file would not have.
func (in *installer) isSame(it *installItem) (bool, error) {
	var source unix.Stat_t
	if err := unix.Lstat(it.source, &source); err != nil {
		return false, &fs.PathError{Op: "lstat", Path: it.source, Err: err}
	}
	want := in.wantedMeta(it)
	if source.Mode&unix.S_IFMT != unix.S_IFREG || source.Mode&modeSpecial != 0 ||
		!it.isOld(unix.S_IFREG) || uint32(it.old.Mode)&modeAll != want.Mode ||
		uint64(source.Size) != it.old.Size {
		return false, nil
	}
	uid, gid := want.UID, want.GID
	if uid < 0 {
		uid = os.Getuid()
	}
	if gid < 0 {
		gid = os.Getgid()
	}
	if int(it.old.Uid) != uid || int(it.old.Gid) != gid {
		return false, nil
	}
	for _, name := range []string{aclAttr, capsAttr} {
		had, has := in.oldAttr(it, name)
		if wanted, wants := want.Xattrs[name]; has != wants || had != wanted {
			return false, nil
		}
	}
	return in.sameBytes(it)
}

// isTwice says whether an earlier item will already have brought the same file
// to the same name, or made what is the source of this one by the time.
func (in *installer) isTwice(it *installItem) bool {
	itself := in.dir != nil && in.isSameName(it)
	var source unix.Stat_t
	if unix.Lstat(it.source, &source) != nil || source.Mode&unix.S_IFMT != unix.S_IFREG || source.Mode&modeSpecial != 0 {
		return false
	}
	for _, before := range in.items {
		if before == it {
			break
		}
		if before.base == it.base && (sameInode(&before.st, &it.st) || itself && !before.same) {
			return true
		}
	}
	return false
}

// sameBytes compares the two files.
func (in *installer) sameBytes(it *installItem) (bool, error) {
	a, err := os.Open(it.source)
	if err != nil {
		return false, err
	}
	defer a.Close()
	fd, err := unix.Openat(int(in.dir.Fd()), it.base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, nil // what cannot be compared is replaced
	}
	b := os.NewFile(uintptr(fd), it.dest)
	defer b.Close()
	bufA, bufB := make([]byte, 128<<10), make([]byte, 128<<10)
	for {
		n, errA := io.ReadFull(a, bufA)
		m, errB := io.ReadFull(b, bufB)
		if n != m || !bytes.Equal(bufA[:n], bufB[:m]) {
			return false, nil
		}
		if isEnd(errA) && isEnd(errB) {
			return true, nil
		}
		if errA != nil || errB != nil {
			return false, errors.Join(errA, errB)
		}
	}
}

func isEnd(err error) bool { return err == io.EOF || err == io.ErrUnexpectedEOF }
