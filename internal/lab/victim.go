package lab

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// victim is the file that a trial replaces, held by a descriptor so that it
// can be looked at after its name has gone to another. The descriptor is for
// reading: it makes nothing busy.
type victim struct {
	file  *os.File
	stat  unix.Stat_t
	bytes []byte
}

func openVictim(path string) (*victim, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	v := &victim{file: file}
	if err := unix.Fstat(int(file.Fd()), &v.stat); err != nil {
		file.Close()
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if v.bytes, err = os.ReadFile(path); err != nil {
		file.Close()
		return nil, err
	}
	return v, nil
}

func (v *victim) close() { v.file.Close() }

// evict takes the file's pages out of memory, but for those that a process has
// mapped. Dirty pages cannot go, so they are written first.
func (v *victim) evict() error {
	if err := v.file.Sync(); err != nil {
		return err
	}
	if err := unix.Fadvise(int(v.file.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return &os.PathError{Op: "fadvise", Path: v.file.Name(), Err: err}
	}
	return nil
}

// untouched says that path still leads to the same inode with the same bytes.
func (v *victim) untouched(path string) bool {
	var now unix.Stat_t
	if unix.Stat(path, &now) != nil || now.Ino != v.stat.Ino || now.Dev != v.stat.Dev {
		return false
	}
	data, err := os.ReadFile(path)
	return err == nil && bytes.Equal(data, v.bytes)
}

// held is the space that the old file takes now that path may lead elsewhere:
// deleted, if only the process with this pid still has it, or kept under
// another name.
func (v *victim) held(path string, pid int) Held {
	var now, old unix.Stat_t
	if unix.Fstat(int(v.file.Fd()), &old) != nil {
		return Held{}
	}
	if unix.Stat(path, &now) == nil && now.Ino == old.Ino && now.Dev == old.Dev {
		return Held{}
	}
	if old.Nlink > 0 {
		return Held{Kept: old.Blocks * 512}
	}
	if isMapped(pid, old.Ino) {
		return Held{Deleted: old.Blocks * 512}
	}
	return Held{}
}

// isMapped says whether the process maps the file with this inode number. The
// device is not compared: on btrfs the one in maps is not the one of stat.
func isMapped(pid int, ino uint64) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) >= 5 && f[4] == fmt.Sprint(ino) {
			return true
		}
	}
	return false
}
