package reexec

import (
	"debug/pe"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/windows"
)

// How the names of what lies beside the program end, with the number of the
// process that it belongs to before: a file that is being written, and the
// program that the process had been started from.
const (
	newSuffix = ".new"
	oldSuffix = ".tmp"
)

// sharingWait is how long a call is tried again that others get in the way of: a
// virus scanner looks at every file that is new.
const sharingWait = 5 * time.Second

// last is what this process has replaced, so that Relaunch can undo it.
var last struct {
	sync.Mutex
	path, old string
}

// replaceFile does in two renames what Windows does not do in one, since it
// neither overwrites nor removes a program that runs, but renames it: the
// running file away, the new one to its name. If the second fails the first is
// undone.
func replaceFile(src, path string, o ReplaceOptions) error {
	old, err := os.Lstat(path)
	if err != nil {
		return err
	}
	f, _, err := openSource(src, old)
	if err != nil {
		return err
	}
	defer f.Close()
	last.Lock()
	defer last.Unlock()
	beside := path + "." + strconv.Itoa(os.Getpid())
	staged, away := beside+newSuffix, beside+oldSuffix
	for n := 2; exists(away); n++ { // this process has replaced before
		away = beside + "-" + strconv.Itoa(n) + oldSuffix
	}
	if err = stage(f, staged); err == nil {
		err = o.verify(staged)
	}
	if err == nil {
		err = swap(staged, path, away)
	}
	if err != nil {
		remove(staged)
		return err
	}
	last.path, last.old = path, away
	return nil
}

// swap moves path away and staged to path, or leaves all as it was. Each name is
// on the disk when MoveFileEx returns.
func swap(staged, path, away string) error {
	if err := move(path, away); err != nil {
		return err
	}
	err := move(staged, path)
	if err == nil {
		return nil
	}
	if back := move(away, path); back != nil {
		return fmt.Errorf("%w; and the program could not be moved back: it is %s now: %w", err, away, back)
	}
	return err
}

// stage writes the new file. Nobody else may open it meanwhile, so that a virus
// scanner looks at it when it is complete.
func stage(src io.Reader, path string) (err error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return err
	}
	var h windows.Handle
	err = patiently(func() (err error) {
		h, err = windows.CreateFile(name, windows.GENERIC_WRITE, 0, nil, windows.CREATE_ALWAYS, windows.FILE_ATTRIBUTE_NORMAL, 0)
		return err
	})
	if err != nil {
		return &os.PathError{Op: "create", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(h), path)
	defer func() {
		if closed := f.Close(); err == nil {
			err = closed
		}
	}()
	if _, err := io.Copy(f, src); err != nil {
		return err
	}
	return f.Sync() // FlushFileBuffers
}

// move renames a file to a name that is free.
func move(from, to string) error {
	a, err := windows.UTF16PtrFromString(from)
	if err != nil {
		return err
	}
	b, err := windows.UTF16PtrFromString(to)
	if err != nil {
		return err
	}
	err = patiently(func() error { return windows.MoveFileEx(a, b, windows.MOVEFILE_WRITE_THROUGH) })
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// patiently tries again, ever more slowly, what fails because somebody has the
// file open.
func patiently(call func() error) error {
	end := time.Now().Add(sharingWait)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 250*time.Millisecond) {
		err := call()
		busy := errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_LOCK_VIOLATION) ||
			errors.Is(err, windows.ERROR_ACCESS_DENIED)
		if !busy || time.Now().After(end) {
			return err
		}
		time.Sleep(pause)
	}
}

// remove deletes a file, also one that is read-only or hidden.
func remove(path string) error {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return err
	}
	windows.SetFileAttributes(name, windows.FILE_ATTRIBUTE_NORMAL)
	if err := windows.DeleteFile(name); err != nil && !errors.Is(err, windows.ERROR_FILE_NOT_FOUND) {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// sweep removes what earlier processes have left beside the program. What cannot
// be removed, because a process still runs it, is hidden until the next time;
// left says whether there is something that a little patience may be good for.
func sweep(path string) (left bool) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return false
	}
	ours := regexp.MustCompile(`(?i)^` + regexp.QuoteMeta(filepath.Base(path)) + `\.(\d+)(-\d+)?\.(tmp|new)$`)
	for _, e := range entries {
		match := ours.FindStringSubmatch(e.Name())
		if match == nil || !e.Type().IsRegular() {
			continue
		}
		// A new file may be on its way; an old one is protected by its running.
		if pid, err := strconv.ParseUint(match[1], 10, 32); err != nil || match[3] == newSuffix[1:] && isAlive(uint32(pid)) {
			continue
		}
		leftover := filepath.Join(filepath.Dir(path), e.Name())
		if remove(leftover) != nil {
			hide(leftover)
			left = true
		}
	}
	return left
}

func hide(path string) {
	if name, err := windows.UTF16PtrFromString(path); err == nil {
		windows.SetFileAttributes(name, windows.FILE_ATTRIBUTE_HIDDEN)
	}
}

func isAlive(pid uint32) bool {
	h, err := windows.OpenProcess(windows.SYNCHRONIZE, false, pid)
	if err != nil {
		return errors.Is(err, windows.ERROR_ACCESS_DENIED)
	}
	defer windows.CloseHandle(h)
	state, err := windows.WaitForSingleObject(h, 0)
	return err == nil && state == uint32(windows.WAIT_TIMEOUT)
}

// checkImage sees to it that a file is a whole program for this processor.
func checkImage(f *os.File, size int64) error {
	image, err := pe.NewFile(f)
	if err != nil {
		return err
	}
	path, err := programFile()
	if err != nil {
		return err
	}
	if self, err := pe.Open(path); err == nil { // moved away meanwhile otherwise
		machine := self.Machine
		self.Close()
		if image.Machine != machine {
			return fmt.Errorf("it is for machine %#x", image.Machine)
		}
	}
	if image.Characteristics&pe.IMAGE_FILE_EXECUTABLE_IMAGE == 0 || image.Characteristics&pe.IMAGE_FILE_DLL != 0 {
		return errors.New("it cannot be executed")
	}
	var pieces []piece
	for _, s := range image.Sections {
		pieces = append(pieces, piece{uint64(s.Offset), uint64(s.Size)})
	}
	return within(size, pieces)
}
