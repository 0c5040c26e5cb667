package reexec

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"moult.example/internal/disk"
)

// sweep removes what processes have left that were killed in replace.
func (s *bootState) sweep() {
	for _, name := range []string{stateName, goodName} {
		left, _ := filepath.Glob(filepath.Join(s.dir, "."+name+".*"))
		for _, path := range left {
			pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Ext(path), "."))
			if err == nil && pid > 0 && errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
				s.fs.Remove(filepath.Base(path))
			}
		}
	}
}

// openRegular opens a file, and neither waits for the writer of a FIFO nor reads
// from a device.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, &os.PathError{Op: "open", Path: path, Err: errors.New("is not a regular file")}
	}
	return f, nil
}

func (s *bootState) read() error {
	path := filepath.Join(s.dir, stateName)
	if err := checkTrusted(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	f, err := openRegular(path)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxState+1))
	if err != nil {
		return err
	}
	if len(text) > maxState {
		return &os.PathError{Op: "read", Path: path, Err: unix.EFBIG}
	}
	if err := json.Unmarshal(text, &s.now); err != nil {
		return &os.PathError{Op: "parse", Path: path, Err: err}
	}
	return nil
}

func (s *bootState) write() error {
	s.now.Schema = 1
	text, err := json.MarshalIndent(s.now, "", "  ")
	if err != nil {
		return err
	}
	return s.replace(stateName, disk.Meta{UID: -1, GID: -1, Mode: 0o600}, func(f disk.File) error {
		_, err := f.Write(append(text, '\n'))
		return err
	})
}

// replace writes a file beside the old one and renames it over that.
func (s *bootState) replace(name string, meta disk.Meta, fill func(disk.File) error) error {
	temp := fmt.Sprintf(".%s.%d", name, os.Getpid())
	s.fs.Remove(temp) // of a predecessor that was killed here
	f, err := s.fs.Create(temp)
	if err != nil {
		return err
	}
	err = fill(f)
	if err == nil {
		err = f.SetMeta(meta)
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = s.fs.Rename(temp, name)
	}
	if err != nil {
		s.fs.Remove(temp)
		return err
	}
	return s.fs.SyncDir(".")
}

// checkTrusted refuses what somebody else may write to: we execute what it says.
func checkTrusted(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if int(st.Uid) != os.Geteuid() && st.Uid != 0 || st.Mode&0o022 != 0 {
		return &os.PathError{Op: "trust", Path: path, Err: fmt.Errorf("user %d may write to it (mode %03o)", st.Uid, st.Mode&0o777)}
	}
	return nil
}
