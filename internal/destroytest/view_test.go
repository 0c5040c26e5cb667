package destroytest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk/disktest"
)

// files is what a test writes: path → content. A content that begins with "->"
// is a symbolic link, one that begins with "0755:" sets the mode, and one that
// begins with "=" is a hard link to that path.
type files map[string]string

func (f files) write(t testing.TB, dir string) string {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o755))
	for path, content := range f {
		if !strings.HasPrefix(content, "=") {
			must(t, f.writeOne(filepath.Join(dir, path), content))
		}
	}
	for path, content := range f {
		if first, ok := strings.CutPrefix(content, "="); ok {
			must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755))
			must(t, os.Link(filepath.Join(dir, first), filepath.Join(dir, path)))
		}
	}
	return dir
}

func (f files) writeOne(full, content string) error {
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return err
	}
	if text, ok := strings.CutPrefix(content, "->"); ok {
		return os.Symlink(text, full)
	}
	mode := os.FileMode(0o644)
	var given uint32
	if n, _ := fmt.Sscanf(content, "%04o:", &given); n == 1 && len(content) > 4 && content[4] == ':' {
		content, mode = content[5:], os.FileMode(given)
	}
	if err := os.WriteFile(full, []byte(content), 0o600); err != nil {
		return err
	}
	return unix.Chmod(full, uint32(mode))
}

// view is what people see in a target: every file behind every public name,
// with bytes, mode, owner, attributes, and which names are one inode. Where it
// comes from, and what is moult's own, is no part of it.
func view(t testing.TB, target string) *disktest.Tree {
	t.Helper()
	all, err := viewOf(target)
	must(t, err)
	return all
}

func viewOf(target string) (*disktest.Tree, error) {
	all := &disktest.Tree{Entries: map[string]*disktest.Entry{}}
	names, err := os.ReadDir(target)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, err
	}
	if live, err := os.Stat(filepath.Join(target, ".moult/live")); err == nil && live.Mode().Perm() != 0o755 {
		return nil, fmt.Errorf("others cannot look into what is live: %v", live.Mode()) // collections close what is not
	}
	for _, n := range names {
		name := n.Name()
		if name == ".moult" || strings.HasPrefix(name, tempPrefix) {
			continue
		}
		path := filepath.Join(target, name)
		if text, err := os.Readlink(path); err == nil && text == ".moult/live/"+name {
			real, err := realName(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue // a name without a file is no name
			}
			if err != nil {
				return nil, err
			}
			path = real
		}
		below, err := disktest.Capture(path)
		if err != nil {
			return nil, err
		}
		for sub, e := range below.Without(tempPrefix+"*", "*/"+tempPrefix+"*", "*/*/"+tempPrefix+"*").Entries {
			all.Entries[filepath.Join(name, sub)] = e
		}
	}
	return all, nil
}

// realName follows links as long as they are moult's: what the release itself
// has as a link stays one.
func realName(path string) (string, error) {
	dir, err := filepath.EvalSymlinks(filepath.Join(filepath.Dir(path), ".moult/live"))
	if err != nil {
		return "", err
	}
	real := filepath.Join(dir, filepath.Base(path))
	// During an adoption the name in generation 0 leads back to the target.
	if text, err := os.Readlink(real); err == nil && text == ".moult/live/"+filepath.Base(path) {
		return filepath.EvalSymlinks(real)
	}
	_, err = os.Lstat(real)
	return real, err
}

// tempPrefix begins the names of moult's temporaries in a shared target: they
// are nobody's, until a recovery, after which leftovers looks for them.
const tempPrefix = ".moult-"

// eachIsOneOf wants each path to be what it is in one of two trees, or to be
// missing as in one of them.
func eachIsOneOf(got, old, new *disktest.Tree) error {
	one := func(t *disktest.Tree, name string) *disktest.Tree {
		one := &disktest.Tree{Entries: map[string]*disktest.Entry{}}
		if e := t.Entries[name]; e != nil {
			one.Entries[name] = e
		}
		return one
	}
	var bad []string
	for _, t := range []*disktest.Tree{got, old, new} {
		for name := range t.Entries {
			g := one(got, name)
			if !g.Equal(one(old, name)) && !g.Equal(one(new, name)) {
				bad = append(bad, fmt.Sprintf("%s is %s: neither the old one (%s) nor the new one (%s)", name, g, one(old, name), one(new, name)))
			}
		}
	}
	if len(bad) > 0 {
		return errors.New(strings.Join(bad, "\n"))
	}
	return nil
}

// isOneOf wants a view to be one of two.
func isOneOf(got, old, new *disktest.Tree) error {
	if got.Equal(old) || got.Equal(new) {
		return nil
	}
	return fmt.Errorf("neither the old release:\n%sor the new one:\n%s", old.Diff(got), new.Diff(got))
}

// leftovers demands that nothing temporary is in a target.
func leftovers(target string) error {
	var errs []error
	err := filepath.WalkDir(target, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		name := d.Name()
		for _, prefix := range []string{tempPrefix, ".stage-", ".trash-", ".forget-", "journal"} {
			if strings.HasPrefix(name, prefix) {
				errs = append(errs, fmt.Errorf("left behind: %s", path))
			}
		}
		if _, books, ok := strings.Cut(path, "/.moult/"); ok && strings.HasSuffix(name, ".new") {
			_, tree, isTree := strings.Cut(books, "generations/")
			if !isTree || strings.Contains(tree, "/.moult/") {
				errs = append(errs, fmt.Errorf("left behind: %s", path))
			}
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}
