package deploy

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
)

// installTemp is how all names of temporary files begin. It tells whose they
// are, no loader, no ldconfig(8) and no glob takes such a name for a library or
// a configuration, and it owes nothing to the name of the file, which may have
// all of its 255 bytes already.
//
// .moult-install.X, a file or a directory that is being made, is locked as long
// as its maker lives. All that begins with .moult-install.X. is the same
// maker's, and shares that lock: the files of a set, each under a number, and a
// directory for strip(1).
const installTemp = ".moult-install."

// createLocked makes the temporary file and locks it.
//
// The lock is on a descriptor of its own, which cannot write: the one that can
// must be closed before the file gets its name, or whoever executes it at once
// is told ETXTBSY, and the lock must last until it has it.
func (in *installer) createLocked() (f disk.File, err error) {
	in.temp, in.lock, err = lockNew(in.dir, func(name string) error {
		if f != nil {
			f.Close()
		}
		f, err = in.fs.Create(name)
		return err
	})
	return f, err
}

// createDirLocked makes a temporary directory and locks it.
func createDirLocked(d disk.FS, dir *os.File) (name string, lock int, err error) {
	return lockNew(dir, d.Mkdir)
}

// lockNew makes something under a new name and locks it, against a run that
// cleans up here at the same moment: what that has taken away before the lock
// was there is made again. Where the file system has no such locks, lock is -1;
// then nobody can take it for a dead run's either.
func lockNew(dir *os.File, create func(name string) error) (name string, lock int, err error) {
	for {
		name = installTemp + freshName()
		if err := create(name); err != nil {
			return "", -1, err
		}
		lock, held, err := lockAt(dir, name)
		if held || !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.ENOENT) {
			return name, lock, nil
		}
	}
}

// freshName is what a new name ends with. It has to be new, no secret: who can
// write to the directory sees the name anyway, and nothing that is there is opened.
func freshName() string {
	text := strconv.FormatUint(rand.Uint64(), 16)
	return "0000000000000000"[len(text):] + text
}

// lockAt locks a file in a directory. It is held if the name still led to the
// file when the lock was there.
func lockAt(dir *os.File, name string) (fd int, held bool, err error) {
	fd, err = unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, false, err
	}
	if err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err == nil {
		var st unix.Stat_t
		if err = unix.Fstat(fd, &st); err == nil && st.Nlink > 0 {
			return fd, true, nil
		}
		err = unix.ENOENT
	}
	unix.Close(fd)
	return -1, false, err
}

// cleanUp removes what earlier runs of the same user have left in a directory
// because they were killed. It is no error if that does not work.
func cleanUp(d disk.FS, dir *os.File) {
	names, err := namesIn(dir, installTemp)
	if err != nil {
		return
	}
	runs := map[string][]string{}
	for _, name := range names {
		id, _, _ := strings.Cut(name[len(installTemp):], ".")
		runs[id] = append(runs[id], name)
	}
	for id, names := range runs {
		cleanUpRun(d, dir, installTemp+id, names)
	}
}

// cleanUpRun removes the files of one run if it is dead: if the file that stands
// for it is not locked, or not there.
func cleanUpRun(d disk.FS, dir *os.File, main string, names []string) {
	lock, held, err := lockAt(dir, main)
	if held {
		defer unix.Close(lock)
	} else if !errors.Is(err, unix.ENOENT) {
		return // alive, or nothing that we may judge
	}
	slices.Sort(names)
	slices.Reverse(names) // the one that stands for all goes last
	for _, name := range names {
		var st unix.Stat_t
		if unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
			continue
		}
		// Root may have given its temporary file to its owner already.
		if user := os.Geteuid(); int(st.Uid) != user && user != 0 {
			continue
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			if int(st.Uid) == os.Geteuid() {
				removeTempDir(d, dir, name)
			}
			continue
		}
		d.Remove(name)
	}
}

// removeTempDir removes a directory of ours and the files in it.
func removeTempDir(d disk.FS, parent *os.File, name string) {
	fd, err := unix.Openat(int(parent.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == nil {
		dir := os.NewFile(uintptr(fd), name)
		files, _ := namesIn(dir, "")
		dir.Close()
		for _, file := range files {
			d.Remove(name + "/" + file)
		}
	}
	d.Remove(name)
}

// names lists the names in the destination directory that begin with a prefix.
func (in *installer) names(prefix string) ([]string, error) { return namesIn(in.dir, prefix) }

// namesIn lists a directory without making a string of each name: it is done for
// every installation, and /usr/bin has thousands.
func namesIn(dir *os.File, prefix string) ([]string, error) {
	fd := int(dir.Fd())
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return nil, &fs.PathError{Op: "seek", Path: dir.Name(), Err: err}
	}
	var found []string
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "list", Path: dir.Name(), Err: err}
		}
		if n == 0 {
			return found, nil
		}
		found = appendNames(found, buf[:n], prefix)
	}
}

// appendNames reads entries as getdents64(2) returns them: inode and offset of
// eight bytes each, the entry's length in two, the type in one, the name up to
// a NUL.
func appendNames(found []string, buf []byte, prefix string) []string {
	const nameAt = 19
	for len(buf) > nameAt {
		length := int(uint16(buf[16]) | uint16(buf[17])<<8)
		name := buf[nameAt:length]
		buf = buf[length:]
		for i, c := range name {
			if c == 0 {
				name = name[:i]
				break
			}
		}
		if len(name) >= len(prefix) && string(name[:len(prefix)]) == prefix &&
			string(name) != "." && string(name) != ".." {
			found = append(found, string(name))
		}
	}
	return found
}
