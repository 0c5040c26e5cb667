package release

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUnreadable: a file that cannot be read is named.
func TestUnreadable(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root can read everything")
	}
	root := t.TempDir()
	p := write(t, root, "secret", "x", 0)
	r, err := Open(context.Background(), root, Options{})
	try(t, err)
	defer r.Close()
	if err := r.Complete(context.Background()); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), p) {
		t.Errorf("got %v, want %v for %s", err, fs.ErrPermission, p)
	}
}

// TestChangesWhileRead writes to a file in the middle of its being read, and
// between the scan and the reading.
func TestChangesWhileRead(t *testing.T) {
	for what, change := range map[string]func(p string) error{
		"grows": func(p string) error {
			f, err := os.OpenFile(p, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteString("more")
			return err
		},
		"shrinks": func(p string) error { return os.Truncate(p, 5) },
		"rewritten, mtime put back": func(p string) error {
			fi, err := os.Stat(p)
			if err != nil {
				return err
			}
			f, err := os.OpenFile(p, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteString("other")
			return errors.Join(err, os.Chtimes(p, fi.ModTime(), fi.ModTime()))
		},
	} {
		root := t.TempDir()
		p := write(t, root, "lib/libx.so", strings.Repeat("x", 1<<20), 0o644)
		changed := false
		r, err := Open(context.Background(), root, Options{OnProgress: func(_ int, n int64) {
			if n > 0 && !changed {
				changed = true
				try(t, change(p))
			}
		}})
		try(t, err)
		defer r.Close()
		if err := r.Complete(context.Background()); err == nil || !strings.Contains(err.Error(), "lib/libx.so: it changed while it was read") {
			t.Errorf("%s while it is read: got %v, want an error that says so", what, err)
		}

		r, err = Open(context.Background(), root, Options{})
		try(t, err)
		defer r.Close()
		f, err := r.OpenFile(entry(t, r, "lib/libx.so"))
		try(t, err)
		try(t, change(p))
		if err := r.Unchanged(entry(t, r, "lib/libx.so"), f); what != "shrinks" && err == nil {
			t.Errorf("%s: Unchanged says that it is unchanged", what)
		}
		f.Close()
		if f, err := r.OpenFile(entry(t, r, "lib/libx.so")); what != "shrinks" && err == nil {
			t.Errorf("%s before it is read: got %v, want an error", what, f)
		}
	}
}

// TestNoLinkFollowed swaps what was scanned for symbolic links that lead out.
func TestNoLinkFollowed(t *testing.T) {
	outside := t.TempDir()
	write(t, outside, "file", "secret", 0o600)
	root := t.TempDir()
	write(t, root, "dir/file", "public", 0o644)
	write(t, root, "file", "public", 0o644)
	r, err := Open(context.Background(), root, Options{})
	try(t, err)
	defer r.Close()
	for _, name := range []string{"dir", "file"} {
		try(t, os.RemoveAll(filepath.Join(root, name)))
		try(t, os.Symlink(filepath.Join(outside, strings.TrimPrefix(name, "dir")), filepath.Join(root, name)))
	}
	for _, name := range []string{"dir/file", "file"} {
		if f, err := r.OpenFile(entry(t, r, name)); err == nil {
			b, _ := io.ReadAll(f)
			t.Errorf("%s: read %q through a link", name, b)
		}
	}
}
