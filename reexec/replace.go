package reexec

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// ReplaceOptions say what Replace is to do beyond the usual. The zero value is
// what Replace does.
type ReplaceOptions struct {
	// Path is the program's file to be replaced; "" is that of the running
	// program, as it was when the program started. A symbolic link stays a
	// link: what it leads to is replaced.
	Path string

	// Verify, if it is not nil, is called with the complete copy of the new
	// file, before that gets its name: to check a signature of the very bytes
	// that will run. Nobody but this user can write to the copy. An error
	// refuses the replacement, and is wrapped in what Replace returns.
	Verify func(copy string) error

	// Privileges says what becomes of set-user-id and set-group-id bits and of
	// file capabilities that the old file has.
	Privileges Privileges

	// PackageOwned replaces a file that the host's package manager has placed,
	// too. It will say that the file was tampered with, and its next update
	// overwrites it.
	PackageOwned bool
}

// Privileges is a choice for new code that takes the place of a file which
// carries privileges of its own.
type Privileges int

const (
	// RefusePrivileges refuses with ErrPrivileged to replace such a file.
	RefusePrivileges Privileges = iota
	// DropPrivileges leaves them out: the new file has none.
	DropPrivileges
	// KeepPrivileges gives them to the new file. For file capabilities the
	// process needs CAP_SETFCAP.
	KeepPrivileges
)

// The refusals of Replace that a caller tells apart. Nothing has changed then.
var (
	// ErrPrivileged: the old file has set-id bits or file capabilities, and
	// nobody said whether the new one is to have them.
	ErrPrivileged = errors.New("carries privileges; say whether the new file is to have them")

	// ErrPackageOwned: a package manager has placed the file, or moult itself.
	ErrPackageOwned = errors.New("belongs to a package manager")

	// ErrWrongImage: the new file is no complete program for this system and
	// processor.
	ErrWrongImage = errors.New("is not a complete program for this machine")
)

// Replace puts a copy of the file src in the place of the running program's
// file. The process goes on with the old code; the next start is the new one's.
// Relaunch is one way to it.
//
// There is always a whole program under the name, the old one or the new, and
// when Replace returns without an error the new one is on the disk. On Windows
// there is a moment without any: see docs/selfupdate.md. Nothing is ever written
// in place. The new file has the mode, owner, ACL and security label of the old
// one; file capabilities and set-id bits are a choice, see ReplaceOptions. An
// error means that nothing has changed, unless it says otherwise.
//
// The file to be replaced is the one that the program was started from, found
// out when it started: afterwards the system's answer can be a name that the
// file was moved to (os.Executable after another updater's two renames), and
// whoever trusts it piles up app.old.old.
//
// Replace does not know whether src can be trusted: verify it before, or with
// ReplaceOptions.Verify. It may be called from several goroutines and processes
// at once; the last one wins.
func Replace(src string) error { return ReplaceWith(src, ReplaceOptions{}) }

// ReplaceWith is Replace with options.
func ReplaceWith(src string, o ReplaceOptions) error {
	path, err := o.path()
	if err != nil {
		return fmt.Errorf("replace this program: %w", err)
	}
	if err := replaceFile(src, path, o); err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return nil
}

// programFile is where the program's file was when the program started.
var programFile = sync.OnceValues(os.Executable)

// The answer of the system is right for as long as nothing has been moved, so it
// is asked for before main. It reads one link.
func init() { programFile() }

// path is the file to be replaced, with all links resolved.
func (o ReplaceOptions) path() (string, error) {
	path := o.Path
	if path == "" {
		var err error
		if path, err = programFile(); err != nil {
			return "", err
		}
	}
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// openSource opens the new file and sees to it that it can take the old one's
// place.
func openSource(src string, old fs.FileInfo) (*os.File, fs.FileInfo, error) {
	// A FIFO would make open wait for a writer.
	if fi, err := os.Stat(src); err == nil && !fi.Mode().IsRegular() {
		return nil, nil, &fs.PathError{Op: "read", Path: src, Err: errors.New("is not a regular file")}
	}
	f, err := os.Open(src)
	if err != nil {
		return nil, nil, err
	}
	fi, err := f.Stat()
	switch {
	case err != nil:
	case !fi.Mode().IsRegular():
		err = &fs.PathError{Op: "read", Path: src, Err: errors.New("is not a regular file")}
	case os.SameFile(fi, old):
		err = &fs.PathError{Op: "read", Path: src, Err: errors.New("is the program itself")}
	default:
		if err = checkImage(f, fi.Size()); err != nil {
			err = &fs.PathError{Op: "read", Path: src, Err: fmt.Errorf("%w: %w", ErrWrongImage, err)}
		}
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, fi, nil
}

// verify asks the caller about the copy.
func (o ReplaceOptions) verify(copy string) error {
	if o.Verify == nil {
		return nil
	}
	if err := o.Verify(copy); err != nil {
		return fmt.Errorf("verify the new file: %w", err)
	}
	return nil
}

// piece is a stretch of a file that its headers say must be there.
type piece struct{ offset, size uint64 }

// within refuses a file that ends before one of its pieces does, as one does
// whose download was cut short.
func within(size int64, pieces []piece) error {
	for _, p := range pieces {
		if end := p.offset + p.size; end < p.offset || end > uint64(size) {
			return io.ErrUnexpectedEOF
		}
	}
	return nil
}
