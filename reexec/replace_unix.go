//go:build unix && !linux

package reexec

import (
	"debug/macho"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// replaceFile places a copy of src at path by one rename(2), so that the new
// code is a new inode: macOS remembers the signature of an inode, and kills a
// program that was overwritten in place.
func replaceFile(src, path string, o ReplaceOptions) error {
	old, err := os.Lstat(path)
	if err != nil {
		return err
	}
	st, isStat := old.Sys().(*syscall.Stat_t)
	if !old.Mode().IsRegular() || !isStat {
		return errors.New("is not a regular file")
	}
	if strings.Contains(path, "/Cellar/") && !o.PackageOwned {
		return fmt.Errorf("%w (Homebrew)", ErrPackageOwned)
	}
	mode := old.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
	if mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
		switch o.Privileges {
		case KeepPrivileges:
		case DropPrivileges:
			mode &^= fs.ModeSetuid | fs.ModeSetgid
		default:
			return ErrPrivileged
		}
	}
	f, _, err := openSource(src, old)
	if err != nil {
		return err
	}
	defer f.Close()
	temp, err := stage(f, path, int(st.Uid), int(st.Gid), mode)
	if err != nil {
		return err
	}
	if err = o.verify(temp); err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		os.Remove(temp)
		return err
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("the new file is in place, but a crash may still undo it: %w", err)
	}
	return nil
}

// stage makes the new file complete and durable, beside the old one, and
// removes it again if that fails.
func stage(src io.Reader, path string, uid, gid int, mode fs.FileMode) (temp string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".moult-replace.*") // 0600
	if err != nil {
		return "", err
	}
	defer func() {
		if closed := f.Close(); err == nil {
			err = closed
		}
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if _, err := io.Copy(f, src); err != nil {
		return "", err
	}
	if err := f.Chown(uid, gid); err != nil { // clears set-id bits, so it comes first
		return "", err
	}
	if err := f.Chmod(mode); err != nil {
		return "", err
	}
	return f.Name(), f.Sync() // F_FULLFSYNC on macOS
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// checkImage sees to it that a file is a whole program for this processor, or
// one that has code for several. On other systems than macOS it knows nothing.
func checkImage(f *os.File, size int64) error {
	path, err := programFile()
	if err != nil {
		return err
	}
	self, err := macho.Open(path)
	if err != nil {
		return nil // not macOS, or gone; then there is nothing to compare to
	}
	defer self.Close()
	images := []*macho.File{}
	if fat, err := macho.NewFatFile(f); err == nil {
		for _, arch := range fat.Arches {
			if err := within(size, []piece{{uint64(arch.Offset), uint64(arch.Size)}}); err != nil {
				return err
			}
			images = append(images, arch.File)
		}
	} else {
		image, err := macho.NewFile(f)
		if err != nil {
			return err
		}
		var pieces []piece
		for _, load := range image.Loads {
			if s, ok := load.(*macho.Segment); ok {
				pieces = append(pieces, piece{s.Offset, s.Filesz})
			}
		}
		if err := within(size, pieces); err != nil {
			return err
		}
		images = append(images, image)
	}
	for _, image := range images {
		if image.Cpu == self.Cpu && image.Type == macho.TypeExec {
			return nil
		}
	}
	return fmt.Errorf("it has no program for %v", self.Cpu)
}
