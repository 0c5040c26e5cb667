package deploy

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"
)

// BackupKind is how the old file is kept, if it is.
type BackupKind int

// The kinds of backup.
const (
	BackupNone     BackupKind = iota
	BackupSimple              // x~, which replaces an older x~
	BackupNumbered            // x.~1~, x.~2~, …
	BackupExisting            // numbered if there are numbered ones, else simple
)

// ParseBackup reads a kind by one of its names, which may be cut short as long
// as they stay clear.
func ParseBackup(text string) (BackupKind, error) {
	names := []struct {
		name string
		kind BackupKind
	}{
		{"none", BackupNone}, {"off", BackupNone},
		{"simple", BackupSimple}, {"never", BackupSimple},
		{"existing", BackupExisting}, {"nil", BackupExisting},
		{"numbered", BackupNumbered}, {"t", BackupNumbered},
	}
	found := map[BackupKind]bool{}
	for _, n := range names {
		if n.name == text {
			return n.kind, nil
		}
		if strings.HasPrefix(n.name, text) {
			found[n.kind] = true
		}
	}
	if len(found) == 1 && text != "" {
		for kind := range found {
			return kind, nil
		}
	}
	return BackupNone, fmt.Errorf("invalid backup type %s: want none (off), simple (never), existing (nil) or numbered (t)", quoteName(text))
}

// maxName is how many bytes a name may have on Linux's file systems.
const maxName = 255

// backupName joins a name and a suffix. If that would be too long, the name is
// cut and gets a tilde, as the other tools do it.
func backupName(base, suffix string) string {
	if len(base)+len(suffix) > maxName {
		return base[:min(len(base), maxName-2)] + "~"
	}
	return base + suffix
}

// simpleSuffix is ~ unless another one is asked for; one with a slash in it
// would lead elsewhere.
func (in *installer) simpleSuffix() string {
	if s := in.o.Suffix; s != "" && !strings.Contains(s, "/") {
		return s
	}
	return "~"
}

// mayBackUp refuses a backup that would take away the source, or that has a
// directory in its way.
func (in *installer) mayBackUp(it *installItem) error {
	if in.o.Backup == BackupNone {
		return nil
	}
	var st unix.Stat_t
	simple := it.base + in.simpleSuffix()
	if in.o.Backup != BackupNumbered && unix.Fstatat(int(in.dir.Fd()), simple, &st, 0) == nil && sameInode(&st, &it.st) &&
		strings.HasSuffix("/"+it.source, "/"+simple) {
		return fmt.Errorf("backing up %s might destroy source; %s not copied", quoteName(it.dest), quoteName(it.source))
	}
	name, err := in.nextBackup(it)
	if err != nil {
		return err
	}
	if unix.Fstatat(int(in.dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return about("back up", it.dest, unix.EISDIR)
	}
	if in.o.DryRun {
		it.backup = in.besideDest(it, name)
	}
	return nil
}

// besideDest is a name in the destination directory as the user would write it.
func (in *installer) besideDest(it *installItem, name string) string {
	return strings.TrimSuffix(it.dest, it.base) + name
}

// nextBackup is the name that the old file is to get.
func (in *installer) nextBackup(it *installItem) (string, error) {
	simple := backupName(it.base, in.simpleSuffix())
	if in.o.Backup == BackupSimple {
		return simple, nil
	}
	last := "0"
	names, err := in.names(it.base + ".~")
	if err != nil {
		return "", about("list", in.path, err)
	}
	for _, name := range names {
		if n, ok := backupNumber(name[len(it.base):]); ok && largerNumber(n, last) {
			last = n
		}
	}
	if last == "0" && in.o.Backup == BackupExisting {
		return simple, nil
	}
	return backupName(it.base, ".~"+increment(last)+"~"), nil
}

// backupNumber reads .~N~, where N is decimal and does not begin with 0. There
// is no limit to it, so it stays text.
func backupNumber(suffix string) (string, bool) {
	n, ok := strings.CutPrefix(suffix, ".~")
	if ok {
		n, ok = strings.CutSuffix(n, "~")
	}
	return n, ok && n != "" && n[0] != '0' && strings.Trim(n, "0123456789") == ""
}

func largerNumber(a, b string) bool {
	return len(a) > len(b) || len(a) == len(b) && a > b
}

func increment(n string) string {
	digits := []byte(n)
	for i := len(digits) - 1; i >= 0; i-- {
		if digits[i] != '9' {
			digits[i]++
			return string(digits)
		}
		digits[i] = '0'
	}
	return "1" + string(digits)
}

// backUp gives the old file its second name, so that its first one is never
// without a file. What was kept under a simple backup's name is replaced.
func (in *installer) backUp(it *installItem) error {
	for {
		name, err := in.nextBackup(it)
		if err != nil {
			return err
		}
		err = in.fs.Link(it.base, name)
		switch {
		case err == nil:
			it.linked = name
		case errors.Is(err, fs.ErrExist) && in.isNumbered(name, it):
			continue // somebody else was faster
		case errors.Is(err, fs.ErrExist):
			if err = in.replaceBackup(it, name); err != nil {
				return about("back up", it.dest, err)
			}
		case errors.Is(err, fs.ErrNotExist):
			return nil // it has just gone away
		default:
			// No hard links here, or none of a file that is not ours
			// (fs.protected_hardlinks): the new file goes to the backup's
			// name, and commit swaps the two.
			it.swap = name
		}
		it.backup = in.besideDest(it, name)
		return nil
	}
}

func (in *installer) isNumbered(name string, it *installItem) bool {
	_, ok := backupNumber(strings.TrimPrefix(name, it.base))
	return ok
}

// replaceBackup puts the old file in the place of an older backup, by way of a
// third name, which the lock of this run protects.
func (in *installer) replaceBackup(it *installItem, name string) error {
	extra := it.temp + ".old"
	if err := in.fs.Link(it.base, extra); err != nil {
		it.swap = name
		return nil
	}
	err := in.fs.Rename(extra, name)
	if err != nil {
		in.fs.Remove(extra)
		return err
	}
	in.partly = true
	return nil
}
