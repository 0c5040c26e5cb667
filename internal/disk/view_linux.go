package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// View is what a directory is to be for one program and its children alone.
type View struct {
	Dir     string      // an existing directory: absolute, without symbolic links
	Entries []ViewEntry // all that is in it, what stands in another entry after that
}

// ViewEntry is one name of a view.
type ViewEntry struct {
	Name string // relative to the view's directory, clean
	Bind string // the absolute path of what is seen there, with all that is mounted below it; or
	Link string // the text of a symbolic link; or
	Text string // the content of a file; with none of the three it is a directory
}

// ErrNoView says that this process may make no mounts of its own: it is neither
// root nor in a user namespace of its own, or a security module forbids it.
// Nothing has changed for it.
var ErrNoView = errors.New("may not make mounts of its own")

// Enter gives the calling thread a mount namespace of its own in which the
// view's directory holds these entries and nothing else, read-only but for what
// is bound into it. Nobody else sees anything of it, and it goes with the last
// process in it; mounts that are made and unmade outside still come in.
//
// The caller has locked its goroutine to the thread (runtime.LockOSThread), and
// executes another program on it soon: other threads stay where they were, and
// working directories lead to what the view covers (unshare(2),
// mount_namespaces(7)). On an error that is not ErrNoView the thread is of no
// more use.
func (v View) Enter() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return v.failed("unshare", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return v.failed("mount", err)
	}
	// What is bound may lie below the directory, which is covered in a moment.
	sources := make([]int, len(v.Entries))
	for i, e := range v.Entries {
		sources[i] = -1
		if e.Bind == "" {
			continue
		}
		fd, err := unix.Open(e.Bind, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return &fs.PathError{Op: "open", Path: e.Bind, Err: err}
		}
		defer unix.Close(fd)
		sources[i] = fd
	}
	var top unix.Stat_t
	if err := unix.Lstat(v.Dir, &top); err != nil {
		return &fs.PathError{Op: "lstat", Path: v.Dir, Err: err}
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	options := fmt.Sprintf("mode=%04o,size=1m,nr_inodes=%d", top.Mode&0o777, 2*len(v.Entries)+16)
	if err := unix.Mount("moult", v.Dir, "tmpfs", flags, options); err != nil {
		return v.failed("mount", err)
	}
	_ = unix.Chown(v.Dir, int(top.Uid), int(top.Gid)) // for the eye: in a user namespace there may be no such user
	for i, e := range v.Entries {
		if err := v.place(e, sources[i]); err != nil {
			return err
		}
	}
	if err := unix.Mount("", v.Dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|flags, ""); err != nil {
		return &fs.PathError{Op: "remount", Path: v.Dir, Err: err}
	}
	return nil
}

// failed tells what is forbidden from what has failed.
func (v View) failed(op string, err error) error {
	switch err {
	case unix.EPERM, unix.EACCES, unix.ENOSYS:
		return fmt.Errorf("%w: %s: %w", ErrNoView, op, err)
	}
	return &fs.PathError{Op: op, Path: v.Dir, Err: err}
}

// place makes one entry; source is what is bound, or below 0.
func (v View) place(e ViewEntry, source int) error {
	if e.Name != path.Clean(e.Name) || path.IsAbs(e.Name) || e.Name == ".." || strings.HasPrefix(e.Name, "../") {
		return &fs.PathError{Op: "view", Path: e.Name, Err: fs.ErrInvalid}
	}
	at := v.Dir + "/" + e.Name
	switch {
	case e.Bind != "":
		return bind(source, e.Bind, at)
	case e.Link != "":
		return os.Symlink(e.Link, at)
	case e.Text != "":
		return os.WriteFile(at, []byte(e.Text), 0o444)
	}
	return os.Mkdir(at, 0o755)
}

// bind mounts an open file or directory at a new name.
func bind(source int, from, at string) error {
	var st unix.Stat_t
	if err := unix.Fstat(source, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: from, Err: err}
	}
	var err error
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = os.Mkdir(at, 0o755)
	} else {
		err = os.WriteFile(at, nil, 0o444) // any file serves as the mount point of any
	}
	if err != nil {
		return err
	}
	// In a user namespace only a whole subtree may be bound: what was mounted
	// over something must not be uncovered.
	if err := unix.Mount("/proc/self/fd/"+strconv.Itoa(source), at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return &os.LinkError{Op: "bind", Old: from, New: at, Err: err}
	}
	return nil
}
