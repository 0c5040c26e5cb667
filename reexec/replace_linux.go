package reexec

import (
	"bytes"
	"crypto/rand"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
)

const (
	aclAttr        = "system.posix_acl_access"
	capabilityAttr = "security.capability"
	labelAttr      = "security.selinux"

	setIDBits = unix.S_ISUID | unix.S_ISGID

	// stagePrefix is that of moult install, whose rules for leftovers hold here
	// too: what has such a name and is not locked belongs to a dead process.
	stagePrefix = ".moult-install."
)

// openDisk is replaced by tests that make the disk fail.
var openDisk = func(dir string) (disk.FS, error) { return disk.Open(dir) }

// replaceFile places a copy of src at path by one rename(2).
func replaceFile(src, path string, o ReplaceOptions) error {
	old, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !old.Mode().IsRegular() {
		return errors.New("is not a regular file")
	}
	if owner := packageOf(path); owner != "" && !o.PackageOwned {
		return fmt.Errorf("%w (%s)", ErrPackageOwned, owner)
	}
	meta, err := metaOf(path, old, o.Privileges)
	if err != nil {
		return err
	}
	f, fi, err := openSource(src, old)
	if err != nil {
		return err
	}
	defer f.Close()
	s := staging{dir: filepath.Dir(path)}
	if s.fs, err = openDisk(s.dir); err != nil {
		return err
	}
	defer s.close()
	if err := s.fill(f, fi.Size(), meta); err != nil {
		return err
	}
	if err := o.verify(filepath.Join(s.dir, s.temp)); err != nil {
		return err
	}
	if err := s.fs.Rename(s.temp, filepath.Base(path)); err != nil {
		if errors.Is(err, unix.EBUSY) {
			return errors.New("is a mount point; its name cannot be given to another file")
		}
		return err
	}
	s.temp = ""
	if err := s.fs.SyncDir("."); err != nil {
		return fmt.Errorf("the new file is in place, but a crash may still undo it: %w", err)
	}
	return nil
}

// metaOf is what the new file is to have of the old one. user.* attributes are
// no part of it, nor signatures (security.ima): they speak of the old bytes.
func metaOf(path string, old fs.FileInfo, p Privileges) (disk.Meta, error) {
	st, ok := old.Sys().(*syscall.Stat_t)
	if !ok {
		return disk.Meta{}, errors.New("has no owner")
	}
	m := disk.Meta{UID: int(st.Uid), GID: int(st.Gid), Mode: st.Mode & 0o7777, Xattrs: map[string]string{}}
	for _, name := range []string{aclAttr, labelAttr, capabilityAttr} {
		value, err := attrOf(path, name)
		if err != nil {
			return m, err
		}
		if value != "" {
			m.Xattrs[name] = value
		}
	}
	if m.Mode&setIDBits != 0 || m.Xattrs[capabilityAttr] != "" {
		switch p {
		case KeepPrivileges:
		case DropPrivileges:
			m.Mode &^= setIDBits
			delete(m.Xattrs, capabilityAttr)
		default:
			return m, ErrPrivileged
		}
	}
	return m, nil
}

// attrOf reads an extended attribute of a file; "" if it has none.
func attrOf(path, name string) (string, error) {
	buf := make([]byte, 64<<10) // XATTR_SIZE_MAX
	n, err := unix.Lgetxattr(path, name, buf)
	switch err {
	case nil:
		return string(buf[:n]), nil
	case unix.ENODATA, unix.EOPNOTSUPP:
		return "", nil
	}
	return "", &fs.PathError{Op: "getxattr " + name, Path: path, Err: err}
}

// staging is a new file on its way.
type staging struct {
	dir  string
	fs   disk.FS
	temp string   // its name in dir; "" when it has another or is gone
	lock *os.File // held as long as this process works on it
}

// fill makes the file complete and durable, under a name of its own. The
// descriptor that can write is closed before anybody can execute the file.
func (s *staging) fill(src *os.File, size int64, meta disk.Meta) (err error) {
	s.sweep()
	f, err := s.create()
	if err != nil {
		return err
	}
	defer func() {
		if closed := f.Close(); err == nil {
			err = closed
		}
	}()
	if err := f.CopyFrom(src, size); err != nil {
		return err
	}
	// A label that the directory gives anyway needs no right to be set.
	if label, err := attrOf(filepath.Join(s.dir, s.temp), labelAttr); err == nil && label == meta.Xattrs[labelAttr] {
		delete(meta.Xattrs, labelAttr)
	}
	if err := f.SetMeta(meta); err != nil {
		return err
	}
	return f.Sync()
}

// create makes the file and locks it by a descriptor that cannot write, again
// if somebody who sweeps has taken it away between the two.
func (s *staging) create() (disk.File, error) {
	for {
		s.temp = stagePrefix + rand.Text()[:16]
		f, err := s.fs.Create(s.temp)
		if err != nil {
			s.temp = ""
			return nil, err
		}
		s.lock, err = lockOf(filepath.Join(s.dir, s.temp))
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, fs.ErrNotExist) {
			return f, nil // without a lock where the file system has none
		}
		f.Close()
	}
}

// lockOf locks a staged file, which fails if somebody else has the lock or the
// name does not lead to the file any more.
func lockOf(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
		var st unix.Stat_t
		if err = unix.Fstat(int(f.Fd()), &st); err == nil && st.Nlink > 0 {
			return f, nil
		}
		err = fs.ErrNotExist
	}
	f.Close()
	return nil, err
}

// sweep removes what killed runs of this user have left in the directory. It is
// no error if that does not work.
func (s *staging) sweep() {
	dir, err := os.Open(s.dir)
	if err != nil {
		return
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		path := filepath.Join(s.dir, name)
		// Files alone: the directories and sets of moult install are its own.
		if id, ours := strings.CutPrefix(name, stagePrefix); !ours || strings.Contains(id, ".") {
			continue
		}
		fi, err := os.Lstat(path)
		if err != nil || !fi.Mode().IsRegular() || int(fi.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() {
			continue
		}
		if lock, err := lockOf(path); err == nil {
			s.fs.Remove(name)
			lock.Close()
		}
	}
}

func (s *staging) close() {
	if s.temp != "" {
		s.fs.Remove(s.temp) // a failure leaves it to the next run
	}
	if s.lock != nil {
		s.lock.Close()
	}
	if c, ok := s.fs.(interface{ Close() error }); ok {
		c.Close()
	}
}

// checkImage sees to it that a file is a whole program for this machine.
func checkImage(f *os.File, size int64) error {
	image, err := elf.NewFile(f)
	if err != nil {
		return err
	}
	self, err := elf.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	if image.Class != self.Class || image.Data != self.Data || image.Machine != self.Machine {
		return fmt.Errorf("it is for %v, %v", image.Machine, image.Class)
	}
	if image.Type != elf.ET_EXEC && image.Type != elf.ET_DYN || image.Entry == 0 {
		return errors.New("it cannot be executed")
	}
	var pieces []piece
	for _, p := range image.Progs {
		pieces = append(pieces, piece{p.Off, p.Filesz})
	}
	for _, s := range image.Sections {
		if s.Type != elf.SHT_NOBITS {
			pieces = append(pieces, piece{s.Offset, s.FileSize})
		}
	}
	return within(size, pieces)
}

// packageOf names the package manager's package, or moult's target, that a file
// belongs to; "" is none. What cannot be read says nothing.
func packageOf(path string) string {
	if target, _, ours := strings.Cut(path, "/.moult/"); ours {
		return "moult's target " + target
	}
	// dpkg's lists name files of /usr/bin also as of /bin.
	ways := [][]byte{[]byte("\n" + path + "\n")}
	if short, ok := strings.CutPrefix(path, "/usr"); ok {
		ways = append(ways, []byte("\n"+short+"\n"))
	}
	lists, _ := filepath.Glob("/var/lib/dpkg/info/*.list")
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for _, way := range ways {
			if bytes.Contains(text, way) {
				return strings.TrimSuffix(filepath.Base(list), ".list")
			}
		}
	}
	for _, database := range []string{"/var/lib/rpm", "/usr/lib/sysimage/rpm"} {
		if files, _ := os.ReadDir(database); len(files) > 0 {
			if out, err := exec.Command("/usr/bin/rpm", "-qf", "--qf", "%{NAME}", path).Output(); err == nil {
				return strconv.QuoteToASCII(string(out))
			}
		}
	}
	return ""
}
