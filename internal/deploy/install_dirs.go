package deploy

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
)

// installMade is a directory that this run has made.
type installMade struct {
	parent disk.FS // the directory that it is in
	base   string
	path   string
}

// dirSpec is what a directory is to be.
type dirSpec struct {
	mode, decided uint32 // see installMode.adjust
	uid, gid      int
}

// onTheWay is a directory that nobody asked for by name: 0755 whatever the umask
// says, but for what its parent hands down.
var onTheWay = dirSpec{mode: 0o755, decided: 0o777, uid: -1, gid: -1}

// makeDirectories is Install with Directories.
func (in *installer) makeDirectories(ctx context.Context) error {
	spec := dirSpec{uid: in.uid, gid: in.gid}
	spec.mode, spec.decided = in.mode.adjust(0, true)
	if in.o.DryRun {
		for _, dir := range in.o.Sources {
			made, err := missingDirectories(dir)
			if err != nil {
				return err
			}
			in.result.Made = append(in.result.Made, made...)
		}
		return nil
	}
	var undo []func()
	err := in.directories(ctx, spec, &undo)
	if err == nil {
		return in.syncSet()
	}
	for i := len(undo) - 1; i >= 0; i-- {
		undo[i]()
	}
	in.unmake()
	return err
}

// directories makes what is missing and sets what was there, in their order:
// what a directory hands down depends on what it was set to before.
func (in *installer) directories(ctx context.Context, spec dirSpec, undo *[]func()) error {
	for _, dir := range in.o.Sources {
		if err := ctx.Err(); err != nil {
			return err
		}
		isNew, err := in.makePath(dir, spec)
		if err != nil {
			return err
		}
		if isNew {
			continue
		}
		restore, err := in.setDirectory(dir, spec)
		if err != nil {
			return err
		}
		if restore != nil {
			*undo = append(*undo, restore)
			in.result.Changed = true
		}
	}
	return nil
}

// makeLeading makes the destination directory and opens it.
func (in *installer) makeLeading() error {
	if _, err := in.makePath(strings.TrimRight(in.path, "/"), onTheWay); err != nil {
		return err
	}
	var err error
	in.fs, in.dir, err = in.openDisk(in.path)
	if err != nil {
		return about("open", in.path, err)
	}
	return nil
}

// steps splits a path into the directories that lead to it: "a/b//c" is "a",
// "a/b" and "a/b//c". What is "." or empty is no step.
func steps(dir string) []string {
	var all []string
	for i := 0; i < len(dir); {
		end := strings.IndexByte(dir[i:], '/')
		if end < 0 {
			end = len(dir)
		} else {
			end += i
		}
		if name := dir[i:end]; name != "" && name != "." {
			all = append(all, dir[:end])
		}
		i = end + 1
	}
	if len(all) > 0 && strings.Trim(dir[len(all[len(all)-1]):], "/") == "" {
		all[len(all)-1] = dir // as the user wrote it, with its slashes
	}
	return all
}

// missingDirectories says which directories would have to be made, and refuses
// what cannot be.
func missingDirectories(dir string) ([]string, error) {
	if dir == "" {
		return nil, about("mkdir", dir, unix.ENOENT)
	}
	var missing []string
	for _, step := range steps(dir) {
		st, err := os.Stat(step)
		switch {
		case err == nil && !st.IsDir():
			return nil, about("mkdir", step, unix.ENOTDIR)
		case errors.Is(err, fs.ErrNotExist):
			if st, err := os.Lstat(strings.TrimRight(step, "/")); err == nil && st.Mode()&fs.ModeSymlink != 0 {
				return nil, about("mkdir", step, unix.EEXIST) // a link to nowhere
			}
			if path.Base(step) != ".." {
				missing = append(missing, step)
			}
		case err != nil:
			return nil, about("mkdir", step, err)
		}
	}
	return missing, nil
}

// makePath makes a directory and those on the way to it, and says whether it
// was not there. Each is complete under another name before it gets its own: a
// directory with too few rights, left by a kill, would be in everybody's way.
func (in *installer) makePath(dir string, spec dirSpec) (isNew bool, err error) {
	missing, err := missingDirectories(dir)
	if err != nil || len(missing) == 0 {
		return false, err
	}
	all := steps(dir)
	last := all[len(all)-1]
	if path.Base("/"+strings.TrimRight(dir[len(strings.TrimRight(last, "/")):], "/")) == "." {
		last = "" // what is asked for is the "." in it, which is there then
	}
	for _, step := range missing {
		want := onTheWay
		if step == last {
			want = spec
		}
		made, err := in.makeDirectory(step, want)
		if err != nil {
			return false, about("mkdir", step, err)
		}
		isNew = made && step == last
	}
	return isNew, nil
}

func (in *installer) makeDirectory(dir string, spec dirSpec) (isNew bool, err error) {
	parent, base := path.Split(strings.TrimRight(dir, "/"))
	if parent == "" {
		parent = "."
	}
	d, look, err := in.openDisk(parent)
	if err != nil {
		return false, err
	}
	defer look.Close()
	cleanUp(d, look)
	if err = in.placeDirectory(d, look, dir, base, spec); err == nil {
		in.made = append(in.made, installMade{d, base, dir})
		in.result.Made = append(in.result.Made, dir)
		in.result.Changed = true
		return true, nil
	}
	closeDisk(d)
	if st, statErr := os.Stat(dir); errors.Is(err, fs.ErrExist) && statErr == nil && st.IsDir() {
		return false, nil // somebody else was faster
	}
	return false, whyNot(look, err)
}

// whyNot says why a directory cannot be changed, where the errno does not.
func whyNot(dir *os.File, err error) error {
	if errors.Is(err, unix.EPERM) && isImmutable(dir) {
		return ErrInstallImmutable
	}
	return err
}

// placeDirectory makes one directory with all that it is to carry, and makes that
// durable: before it has its name, or a power cut may leave the name without the
// rights; and before anything is put into it, or that may come to lie in a
// directory whose name is still the temporary one.
func (in *installer) placeDirectory(d disk.FS, look *os.File, dir, base string, spec dirSpec) error {
	temp, lock, err := createDirLocked(d, look)
	if err != nil {
		return err
	}
	if lock >= 0 {
		defer unix.Close(lock)
	}
	meta, err := dirMeta(fdPath(look)+"/"+temp, spec, true)
	if err == nil {
		if label := in.labelAt(look, dir); label != "" {
			meta.Xattrs[labelAttr] = label
		}
		err = d.SetMeta(temp, meta)
	}
	if err == nil && !in.o.NoSync {
		err = d.SyncDir(temp)
	}
	if err == nil {
		if err = d.Place(temp, base); err == nil {
			return in.syncPlaced(d, base)
		}
	}
	d.Remove(temp)
	return err
}

func (in *installer) syncPlaced(d disk.FS, base string) error {
	if in.o.NoSync {
		return nil
	}
	err := d.SyncDir(".")
	if err != nil {
		d.Remove(base)
	}
	return err
}

// unmake removes the directories that this run has made, as nothing is in them.
func (in *installer) unmake() {
	in.result.Changed = in.partly
	var left []string
	for i := len(in.made) - 1; i >= 0; i-- {
		m := in.made[i]
		if m.parent.Remove(m.base) != nil {
			left = append(left, m.path)
			in.result.Changed = true // somebody uses it already
		}
	}
	in.result.Made = left
}

// syncSet makes durable what was done to directories that were there.
func (in *installer) syncSet() error {
	if in.o.NoSync {
		return nil
	}
	for _, d := range in.set {
		if err := d.SyncDir("."); err != nil {
			return err
		}
	}
	return nil
}
