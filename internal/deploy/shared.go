package deploy

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"moult.example/internal/release"
)

// How a commit changes a shared target. Every new file waits under a temporary
// name in the directory where it will be. The old inode gets a second name below
// objects/, from where a rollback gives back the very same inode. Then
// RENAME_EXCHANGE brings the new one in and hands the old one back, whose
// temporary name is removed. The order is: directories, libraries before what
// needs them, files before links to them, programs, removals.
//
// The old inode is linked, not moved, to objects/: a running program's
// /proc/PID/exe follows the name under which it was started, and $ORIGIN comes
// from there. So it says bin/.moult-… (deleted), and not objects/….
//
// Between the first and the last of these renames, people can see a mixture.
// That is what this layout cannot remove; all that is not a rename is done
// before or after.

// finishShared does what a journal says. In the process that wrote the journal
// nothing of it has been done yet, and the renames go back to back; after a
// crash each operation is decided by what is there.
func (s *state) finishShared(j *journal) (out outcome, err error) {
	if j.fresh {
		out, err = s.swapAll(j)
	} else {
		out, err = s.redoAll(j)
	}
	if err != nil {
		return out, err
	}
	return out, s.finishBooks(j, &out)
}

// swapAll is the moment of a commit: one system call for each name.
func (s *state) swapAll(j *journal) (out outcome, err error) {
	// No collection of garbage, no change of thread between the first rename
	// and the last.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	garbage.hold()
	defer garbage.collect()
	for i := range j.Ops {
		if err := s.doOp(&j.Ops[i]); err != nil {
			out.opsDone = i
			return out, err
		}
	}
	out.opsDone = len(j.Ops)
	for i := range j.Ops {
		if o := &j.Ops[i]; o.Kind == "swap" && o.planned.Ino != 0 && !s.isPlanned(string(o.Temp), &o.planned) {
			return out, fmt.Errorf("%s: somebody replaced it at this very moment", o.Path.Quoted())
		}
	}
	return out, nil
}

// isPlanned says whether what the exchange handed back is what was there when
// we planned to replace it. The exchange itself changes ctime.
func (s *state) isPlanned(name string, planned *unix.Stat_t) bool {
	var st unix.Stat_t
	return unix.Lstat(s.t.abs(name), &st) == nil && st.Ino == planned.Ino && st.Dev == planned.Dev &&
		st.Size == planned.Size && st.Mtim == planned.Mtim
}

// doOp does one operation for the first time.
func (s *state) doOp(o *op) error {
	fsys := s.t.fs
	switch o.Kind {
	case "swap":
		err := fsys.Exchange(string(o.Temp), string(o.Path))
		if errors.Is(err, unix.EINVAL) {
			return s.swapByLink(o)
		}
		return err
	case "place", "mkdir":
		return fsys.Place(string(o.Temp), string(o.Path))
	case "remove":
		if !exists(s.t.abs(string(o.Keep))) {
			return fsys.Rename(string(o.Path), string(o.Keep)) // it could not be linked
		}
		return fsys.Remove(string(o.Path))
	case "meta":
		return s.setMeta(o.Path, o.New)
	case "rmdir":
		return nil // finishBooks does it, when there is no way back
	}
	return fmt.Errorf("unknown operation %q", o.Kind)
}

// keepOld gives what a journal will displace its second name, before there is a
// journal: it must not be lost whatever happens to the first. Where a file
// cannot be linked (another user's, without root; no hard links on this file
// system) it is moved there later.
func (s *state) keepOld(j *journal) error {
	for _, o := range j.Ops {
		if o.Keep == "" {
			continue
		}
		keep := string(o.Keep)
		err := s.t.fs.Link(string(o.Path), keep)
		if errors.Is(err, fs.ErrExist) && !oneInode(s.t.abs(string(o.Path)), s.t.abs(keep)) {
			if err = s.t.fs.Remove(keep); err == nil {
				err = s.t.fs.Link(string(o.Path), keep)
			}
		}
		switch {
		case err == nil, errors.Is(err, fs.ErrExist), errors.Is(err, unix.EPERM), errors.Is(err, unix.EMLINK), errors.Is(err, unix.EOPNOTSUPP):
		default:
			return err
		}
	}
	return s.t.fs.SyncDir(s.file("objects"))
}

func oneInode(a, b string) bool {
	var sa, sb unix.Stat_t
	return unix.Lstat(a, &sa) == nil && unix.Lstat(b, &sb) == nil && sa.Ino == sb.Ino && sa.Dev == sb.Dev
}

// swapByLink stands in for an exchange where the file system has none (NFS,
// FUSE): the old inode gets its second name first, then the new one takes the
// public name. There is no moment without a file.
func (s *state) swapByLink(o *op) error {
	if err := s.t.fs.Link(string(o.Path), string(o.Keep)); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return s.t.fs.Rename(string(o.Temp), string(o.Path))
}

func (s *state) setMeta(path Path, want *entry) error {
	e, err := want.entry(string(path))
	if err != nil {
		return err
	}
	return s.t.fs.SetMeta(string(path), meta(e, atoi(e.Owner), atoi(e.Group)))
}

// rmdir removes a directory of ours unless others have put something into it.
func (s *state) rmdir(o *op) error {
	if found, _, err := lstat(s.t.abs(string(o.Path))); err != nil || found.Type != release.Dir {
		return nil // gone, or a link that somebody has put there
	}
	err := s.t.fs.Remove(string(o.Path))
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) || errors.Is(err, fs.ErrNotExist) ||
		errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EBUSY) {
		return nil
	}
	return err
}

// undoShared takes back the first operations of a journal, from the last to the
// first, and the journal.
func (s *state) undoShared(j *journal, done int) error {
	fsys := s.t.fs
	for _, o := range slices.Backward(j.Ops[:done]) {
		var err error
		switch o.Kind {
		case "swap":
			if err = fsys.Exchange(string(o.Temp), string(o.Path)); errors.Is(err, unix.EINVAL) {
				if err = fsys.Rename(string(o.Path), string(o.Temp)); err == nil {
					err = fsys.Rename(string(o.Keep), string(o.Path))
				}
			}
		case "place", "mkdir":
			err = fsys.Rename(string(o.Path), string(o.Temp))
		case "remove":
			if err = fsys.Link(string(o.Keep), string(o.Path)); err != nil {
				err = fsys.Rename(string(o.Keep), string(o.Path))
			}
		case "meta":
			err = s.setMeta(o.Path, o.Old)
		}
		if err != nil {
			return err
		}
	}
	if err := s.syncDirs(touched(j)); err != nil {
		return err
	}
	return s.undecide()
}

// touched are the directories in which a journal changes names.
func touched(j *journal) map[string]bool {
	dirs := map[string]bool{}
	for _, o := range j.Ops {
		dirs[parentOf(string(o.Path))] = true
		if o.Kind == "meta" {
			dirs[string(o.Path)] = true
		}
		for _, name := range []Path{o.Temp, o.Keep} {
			if name != "" {
				dirs[parentOf(string(name))] = true
			}
		}
	}
	return dirs
}

// redoAll finishes a journal that another process has begun. It decides each
// operation by content: what is there is the old one, the new one, or somebody
// else's, which is left as it is and reported.
func (s *state) redoAll(j *journal) (out outcome, err error) {
	out.switched = true // from here on there is no way back
	for i := range j.Ops {
		mine, err := s.redoOp(&j.Ops[i])
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, fs.ErrNotExist) {
			mine, err = false, nil // its directory is somebody else's by now
		}
		if err != nil {
			return out, err
		}
		if !mine {
			out.conflicts = append(out.conflicts, j.Ops[i].Path)
		}
	}
	return out, nil
}

func (s *state) redoOp(o *op) (mine bool, err error) {
	switch o.Kind {
	case "meta":
		if err := s.setMeta(o.Path, o.New); errors.Is(err, fs.ErrNotExist) {
			return false, nil
		} else if err != nil {
			return false, err
		}
		return true, nil
	case "rmdir":
		return true, nil
	case "mkdir":
		return s.redoMkdir(o)
	}
	at, err := s.lookAt(o.Path)
	if err != nil {
		return false, err
	}
	if o.Kind == "remove" {
		if at == nil {
			return true, nil
		}
		if !at.is(o.Old) {
			return false, nil
		}
		return true, s.doOp(o)
	}
	temp, err := s.lookAt(o.Temp)
	if err != nil {
		return false, err
	}
	switch {
	case at != nil && at.is(o.New):
		return true, nil
	case temp == nil || !temp.is(o.New):
		return false, nil
	case at == nil && o.Kind == "place":
		return true, s.t.fs.Place(string(o.Temp), string(o.Path))
	case at != nil && o.Kind == "swap" && at.is(o.Old):
		return true, s.doOp(o)
	}
	return false, nil
}

func (s *state) redoMkdir(o *op) (mine bool, err error) {
	at, err := s.lookAt(o.Path)
	if err != nil || at != nil {
		return at != nil && at.Type == release.Dir, err
	}
	temp, err := s.lookAt(o.Temp)
	if err != nil || temp == nil {
		return false, err
	}
	return true, s.t.fs.Place(string(o.Temp), string(o.Path))
}

// foundEntry is what is at a path.
type foundEntry struct{ release.Entry }

func (s *state) lookAt(name Path) (*foundEntry, error) {
	if !s.isReal(parentOf(string(name))) {
		return nil, nil
	}
	e, err := find(s.t.abs(string(name)), "", nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &foundEntry{e}, nil
}

// isReal says that a directory of the target is there, and no symbolic link on
// the way to it: what is looked at has to be what would be changed.
func (s *state) isReal(dir string) bool {
	real, err := filepath.EvalSymlinks(s.t.abs(dir))
	return err == nil && real == filepath.Clean(s.t.abs(dir))
}

func (f *foundEntry) is(want *entry) bool {
	if want == nil {
		return false
	}
	e, err := want.entry("")
	return err == nil && differs(e, atoi(e.Owner), atoi(e.Group), &f.Entry, false) == ""
}

// finishBooks comes after the last visible change: all of it is made durable,
// the old inodes go to where a rollback finds them, live says what is live, and
// what cannot be removed yet is written down.
func (s *state) finishBooks(j *journal, out *outcome) error {
	dirs := touched(j)
	if err := s.syncDirs(dirs); err != nil {
		return err
	}
	out.switched = true
	for i := range j.Ops {
		o := &j.Ops[i]
		if o.Kind == "rmdir" {
			if err := s.rmdir(o); err != nil {
				return err
			}
		}
		if o.Temp == "" || !exists(s.t.abs(string(o.Temp))) || !s.isReal(parentOf(string(o.Temp))) {
			continue
		}
		var err error
		switch {
		case o.Kind == "swap" && !slices.Contains(out.conflicts, o.Path) && !exists(s.t.abs(string(o.Keep))):
			err = s.t.fs.Rename(string(o.Temp), string(o.Keep)) // it could not be linked
		default:
			err = removeTree(s.t, string(o.Temp))
		}
		if err != nil {
			return forPath(o.Path, err)
		}
	}
	if err := errors.Join(s.writeFound(j), s.writeMade(j)); err != nil {
		return err
	}
	if err := s.point(j.Generation); err != nil {
		return err
	}
	for _, o := range j.Defer {
		out.deferred = append(out.deferred, o.Path)
	}
	if err := s.writeDeferred(j); err != nil {
		return err
	}
	if err := s.syncDirs(dirs); err != nil {
		return err
	}
	return s.t.fs.SyncDir(s.dir)
}
