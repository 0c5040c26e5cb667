package realtest

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// tree is what a test writes: path and content. A content "->x" is a symbolic
// link to x, and one that begins with "#!" is executable.
type tree map[string]string

func (tr tree) write(t testing.TB, dir string) string {
	t.Helper()
	for name, content := range tr {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if text, isLink := strings.CutPrefix(content, "->"); isLink {
			must(t, os.Symlink(text, path))
			continue
		}
		mode := fs.FileMode(0o644)
		if strings.HasPrefix(content, "#!") {
			mode = 0o755
		}
		writeFile(t, path, content, mode)
	}
	return dir
}

// writeFile writes a file whose mode the umask does not change.
func writeFile(t testing.TB, path, content string, mode fs.FileMode) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(content), mode))
	must(t, os.Chmod(path, mode))
}

func read(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	return string(data)
}

// want compares a file with what it should hold.
func want(t testing.TB, path, content string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Errorf("%v, want %q", err, content)
	} else if string(data) != content {
		t.Errorf("%s: got %q, want %q", path, data, content)
	}
}

// wantGone wants nothing to be at path.
func wantGone(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("%s: got %v, want nothing there", path, err)
	}
}

// wantLink wants a symbolic link with this text.
func wantLink(t testing.TB, path, text string) {
	t.Helper()
	got, err := os.Readlink(path)
	if err != nil || got != text {
		t.Errorf("%s: got a link to %q (%v), want one to %q", path, got, err, text)
	}
}

// inode identifies what is at path, following symbolic links.
func inode(t testing.TB, path string) uint64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return st.Ino
}

func mode(t testing.TB, path string) fs.FileMode {
	t.Helper()
	fi, err := os.Lstat(path)
	must(t, err)
	return fi.Mode().Perm()
}

// digests describes all that is below dir: type, mode, and text or digest, by
// path. Symbolic links at the top are followed, because in an owned target
// those are moult's, and skip names what is left out there.
func digests(t testing.TB, dir string, skip ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		if strings.Contains(" "+strings.Join(skip, " ")+" ", " "+e.Name()+" ") {
			continue
		}
		top, err := filepath.EvalSymlinks(filepath.Join(dir, e.Name()))
		must(t, err)
		must(t, filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			all[e.Name()+strings.TrimPrefix(path, top)], err = digest(path)
			return err
		}))
	}
	return all
}

func digest(path string) (string, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	if fi.Mode()&fs.ModeSymlink != 0 {
		text, err := os.Readlink(path)
		return "-> " + text, err
	}
	if !fi.Mode().IsRegular() {
		return fi.Mode().String(), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return fmt.Sprintf("%v %x", fi.Mode(), sum.Sum(nil)), nil
}

// sameTree compares two trees, hash for hash.
func sameTree(t testing.TB, what string, got, want map[string]string) {
	t.Helper()
	different := 0
	complain := func(path string) {
		if different++; different <= 5 {
			t.Errorf("%s: %s: got %q, want %q", what, path, got[path], want[path])
		}
	}
	for path := range want {
		if got[path] != want[path] {
			complain(path)
		}
	}
	for path := range got {
		if want[path] == "" {
			complain(path)
		}
	}
	if different > 5 {
		t.Errorf("%s: %d paths in all", what, different)
	}
}
