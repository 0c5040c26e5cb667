package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// What the old file and the new one are like before a replacement: owner and
// mode of each differ from the other's and from what the caller would make.
const (
	oldMode, newMode   = 0o750, 0o711
	oldOwner, newOwner = 65534, 1
)

// traits replaces a library that nobody uses and that has a second name.
func (l *lab) traits(ctx context.Context) (Traits, error) {
	target, err := l.target(ctx, "v1")
	if err != nil {
		return Traits{}, err
	}
	tree := "lib"
	if l.method.small {
		tree = "lib-small"
	}
	source := l.fresh("source")
	if err := l.copy(ctx, l.tree(tree), source); err != nil {
		return Traits{}, err
	}
	// A release of version 2 in which other files are as they were.
	path, replacement := filepath.Join(target, libFile), filepath.Join(source, libFile)
	backup := filepath.Join(filepath.Dir(target), "second-name")
	if err := errors.Join(
		l.dress(path, oldMode, oldOwner),
		l.dress(replacement, newMode, newOwner),
		link(path, backup),
	); err != nil {
		return Traits{}, err
	}
	var before, after unix.Stat_t
	if err := unix.Stat(path, &before); err != nil {
		return Traits{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	oldBytes, err1 := os.ReadFile(path)
	newBytes, err2 := os.ReadFile(replacement)
	if err := errors.Join(err1, err2); err != nil {
		return Traits{}, err
	}

	script, one, two := l.method.one, replacement, path
	if l.method.layout != "" {
		script, one, two = l.method.set, source, target
	}
	if out, err := l.shell(ctx, script, one, two); err != nil {
		return Traits{}, fmt.Errorf("%s", reason(out, err))
	}
	if err := unix.Stat(path, &after); err != nil {
		return Traits{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	t := Traits{Inode: "same", Mode: modeOf(after.Mode), Links: "other"}
	if after.Ino != before.Ino {
		t.Inode = "new"
	}
	if l.report.Root {
		t.Owner = ownerOf(after.Uid)
	}
	switch data, err := os.ReadFile(backup); {
	case err != nil:
		return Traits{}, err
	case bytes.Equal(data, oldBytes):
		t.Links = Old
	case bytes.Equal(data, newBytes):
		t.Links = New
	}
	return t, nil
}

// dress gives a file a mode and, for root, an owner.
func (l *lab) dress(path string, mode os.FileMode, owner int) error {
	if l.report.Root {
		if err := os.Chown(path, owner, owner); err != nil {
			return err
		}
	}
	return os.Chmod(path, mode)
}

// link gives the file that path leads to a second name. The directory on the
// way may be a symbolic link, the file is none.
func link(path, name string) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	return os.Link(path, name)
}

func modeOf(mode uint32) string {
	switch mode & 0o7777 {
	case oldMode:
		return "kept"
	case newMode:
		return "source"
	}
	return fmt.Sprintf("%04o", mode&0o7777)
}

func ownerOf(uid uint32) string {
	switch uid {
	case oldOwner:
		return "kept"
	case newOwner:
		return "source"
	}
	return "caller"
}
