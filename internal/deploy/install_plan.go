package deploy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
)

// installItem is one file on its way.
type installItem struct {
	source string
	base   string // its name in the destination directory
	dest   string // the same as the user would write it
	st     unix.Stat_t
	old    unix.Statx_t // what is under that name, if exists
	exists bool
	round  int // how many items before this one are given the same name

	same   bool      // -C: nothing to do
	placed bool      // it has its name
	file   disk.File // while it is being staged
	temp   string    // where it is staged
	backup string    // what the old file was kept as, as the user would write it
	linked string    // the new name that the old file was given
	swap   string    // where the old file goes by exchange, since it could not be linked
}

// resolve finds the destination directory and the name of each file in it, and
// opens the directory if it is there.
func (in *installer) resolve() error {
	o := &in.o
	into := o.TargetDir
	if into == "" && !o.NoTargetDir {
		st, err := os.Stat(o.Dest)
		switch {
		case err == nil && st.IsDir():
			into = o.Dest
		case err != nil && !errors.Is(err, fs.ErrNotExist) && !isAnyLink(o.Dest):
			return about("open", o.Dest, err)
		case len(o.Sources) > 1:
			return about("install into", o.Dest, either(err, unix.ENOTDIR))
		}
	}
	if into != "" {
		in.path = into
		for _, source := range o.Sources {
			base := path.Base(source)
			in.add(source, base, strings.TrimRight(into, "/")+"/"+base)
		}
		return in.open(into, false)
	}
	if o.Dest == "" {
		return about("create", o.Dest, unix.ENOENT)
	}
	dir, base := path.Split(o.Dest)
	switch {
	case base == "" || base == "." || base == "..":
		// It is a directory, or can be none but one.
		if _, err := os.Stat(o.Dest); err != nil {
			return about("create", o.Dest, unix.ENOTDIR)
		}
		return fmt.Errorf("cannot overwrite directory %s with non-directory", quoteName(o.Dest))
	case dir == "":
		dir = "."
	}
	in.path = dir
	in.add(o.Sources[0], base, o.Dest)
	return in.open(dir, true)
}

// isAnyLink says whether a name itself is a symbolic link, wherever that leads: one
// that leads in a circle is replaced as one that dangles.
func isAnyLink(name string) bool {
	st, err := os.Lstat(name)
	return err == nil && st.Mode()&fs.ModeSymlink != 0
}

func either(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

func (in *installer) add(source, base, dest string) {
	in.items = append(in.items, &installItem{source: source, base: base, dest: dest})
}

// open holds the destination directory. If it is missing and may be made, that
// comes later, when all sources have been looked at.
func (in *installer) open(dir string, forFile bool) error {
	var err error
	if in.fs, in.dir, err = in.openDisk(dir); err == nil {
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) && in.o.MakeLeading {
		return nil
	}
	if forFile {
		return about("create", in.items[0].dest, err)
	}
	return about("install into", dir, err)
}

// plan looks at every source and destination, and refuses what cannot be done,
// before anything changes.
func (in *installer) plan() error {
	if in.fs == nil {
		made, err := missingDirectories(strings.TrimRight(in.path, "/")) // not "", since / is there
		if err != nil {
			return err
		}
		if in.o.DryRun {
			in.result.Made = made
		}
	}
	todo := false
	for _, it := range in.items {
		if err := in.planItem(it); err != nil {
			return err
		}
		todo = todo || !it.same
		if in.o.DryRun {
			in.report(it)
		}
	}
	if todo && in.dir != nil && isImmutable(in.dir) {
		// One that is append-only lets us make a file, and neither rename nor
		// remove it.
		return &fs.PathError{Op: "install into", Path: in.path, Err: ErrInstallImmutable}
	}
	if in.o.DryRun && todo && in.dir != nil {
		if err := unix.Faccessat(int(in.dir.Fd()), ".", unix.W_OK, unix.AT_EACCESS); err != nil {
			return &fs.PathError{Op: "create in", Path: in.path, Err: err}
		}
	}
	return nil
}

func (in *installer) planItem(it *installItem) error {
	if err := unix.Stat(it.source, &it.st); err != nil {
		return &fs.PathError{Op: "stat", Path: it.source, Err: err}
	}
	if it.st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return fmt.Errorf("omitting directory %s", quoteName(it.source))
	}
	if in.o.Compare && in.isTwice(it) {
		it.same = true
		return nil
	}
	for _, before := range in.items {
		if before == it {
			break
		}
		if before.base == it.base && !before.same {
			it.round++
		}
	}
	if it.round > 0 && in.o.Backup != BackupNumbered {
		return fmt.Errorf("will not overwrite just-created %s with %s", quoteName(it.dest), quoteName(it.source))
	}
	if in.dir == nil {
		return nil
	}
	switch err := unix.Statx(int(in.dir.Fd()), it.base, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &it.old); err {
	case nil:
		it.exists = true
	case unix.ENOENT:
		return nil
	default:
		return &fs.PathError{Op: "stat", Path: it.dest, Err: err}
	}
	if it.isOld(unix.S_IFDIR) {
		return fmt.Errorf("cannot overwrite directory %s with non-directory", quoteName(it.dest))
	}
	if in.o.Compare {
		var err error
		if it.same, err = in.isSame(it); it.same || err != nil {
			return err
		}
	}
	return in.mayReplace(it)
}

func (it *installItem) isOld(format uint16) bool {
	return it.exists && it.old.Mode&unix.S_IFMT == format
}

// mayReplace refuses a destination that rename(2) would, with a reason, and one
// that is the source itself.
func (in *installer) mayReplace(it *installItem) error {
	set := it.old.Attributes
	if set&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return &fs.PathError{Op: "install", Path: it.dest, Err: ErrInstallMount}
	}
	if set&attrFixed != 0 {
		return &fs.PathError{Op: "install", Path: it.dest, Err: ErrInstallImmutable}
	}
	same, err := in.isSource(it)
	if err != nil {
		return err
	}
	if same {
		return fmt.Errorf("%s and %s are the same file", quoteName(it.source), quoteName(it.dest))
	}
	return in.mayBackUp(it)
}

const attrFixed = unix.STATX_ATTR_IMMUTABLE | unix.STATX_ATTR_APPEND

func isImmutable(dir *os.File) bool {
	var st unix.Statx_t
	return unix.Statx(int(dir.Fd()), "", unix.AT_EMPTY_PATH, 0, &st) == nil && st.Attributes&attrFixed != 0
}

// isSource says whether source and destination are one file in a way that makes
// the installation a mistake. Two names of one file are none: the destination
// becomes a file of its own. The rules are those of install(1), but for a
// symbolic link installed over itself, which there loses the link.
func (in *installer) isSource(it *installItem) (bool, error) {
	var dest, sourceLink unix.Stat_t
	dir := int(in.dir.Fd())
	if unix.Fstatat(dir, it.base, &dest, 0) != nil || !sameInode(&dest, &it.st) {
		return false, nil
	}
	if err := unix.Lstat(it.source, &sourceLink); err != nil {
		return false, &fs.PathError{Op: "lstat", Path: it.source, Err: err}
	}
	if err := unix.Fstatat(dir, it.base, &dest, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, &fs.PathError{Op: "lstat", Path: it.dest, Err: err}
	}
	fromLink := sourceLink.Mode&unix.S_IFMT == unix.S_IFLNK
	ontoLink := dest.Mode&unix.S_IFMT == unix.S_IFLNK
	if sameInode(&sourceLink, &dest) {
		return in.isSameName(it), nil
	}
	return fromLink && !ontoLink, nil
}

func sameInode(a, b *unix.Stat_t) bool { return a.Ino == b.Ino && a.Dev == b.Dev }

// isSameName says whether source and destination are one name in one directory.
func (in *installer) isSameName(it *installItem) bool {
	dir, base := path.Split(it.source)
	if base != it.base {
		return false
	}
	if dir == "" {
		dir = "."
	}
	a, errA := os.Stat(dir)
	b, errB := in.dir.Stat()
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// reportPlaced adds what is in place to the result, and, if anything is, what was
// so before.
func (in *installer) reportPlaced() {
	for _, it := range in.items {
		if it.placed || it.same {
			in.report(it)
		}
	}
}

// report adds an item to the result.
func (in *installer) report(it *installItem) {
	in.result.Files = append(in.result.Files, InstalledFile{
		Source:    it.source,
		Dest:      it.dest,
		Replaced:  it.exists || it.round > 0,
		Backup:    it.backup,
		Unchanged: it.same,
	})
}
