package disktest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk/disktest"
)

// rich makes a tree with one of everything that the user may make.
func rich(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(disktest.TempDir(t), "tree")
	must(t, os.Mkdir(dir, 0o711))
	plant(t, dir, "bin/tool=program lib/x=library lib/link=@x ro/f=1 !first=x")
	must(t, os.Chmod(filepath.Join(dir, "bin/tool"), 0o4755|os.ModeSetuid))
	must(t, os.Link(filepath.Join(dir, "bin/tool"), filepath.Join(dir, "bin/same")))
	must(t, os.Link(filepath.Join(dir, "lib/link"), filepath.Join(dir, "lib/link2")))
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "lib/\xff\n"), nil, 0o600))
	must(t, os.Chtimes(filepath.Join(dir, "lib/x"), time.Time{}, time.Unix(1e9, 123)))
	must(t, os.Chmod(filepath.Join(dir, "ro"), 0o555))
	if err := unix.Setxattr(filepath.Join(dir, "lib/x"), "user.a", []byte("1"), 0); err != nil && err != unix.EOPNOTSUPP {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		must(t, os.Chown(filepath.Join(dir, "lib"), 12, 34))
		must(t, os.Lchown(filepath.Join(dir, "lib/link"), 12, 34))
		capability := string([]byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
		must(t, unix.Setxattr(filepath.Join(dir, "lib/x"), "security.capability", []byte(capability), 0))
	}
	return dir
}

func capture(t *testing.T, dir string) *disktest.Tree {
	t.Helper()
	tree, err := disktest.Capture(dir)
	must(t, err)
	return tree
}

func TestTreeIsMadeAgain(t *testing.T) {
	want := capture(t, rich(t))
	dir := disktest.TempDir(t)
	must(t, want.Materialize(dir))
	got := capture(t, dir)
	if d := want.Diff(got); d != "" || !want.Equal(got) {
		t.Errorf("made again:\n%s", d)
	}
	if d := want.DiffTimes(got); d != "" {
		t.Errorf("made again:\n%s", d)
	}
	sums, err := disktest.CaptureSums(dir)
	must(t, err)
	if d := want.Diff(sums); d != "" {
		t.Errorf("sums only:\n%s", d)
	}
}

// Every single difference is seen, and told with its name.
func TestTreeDifferences(t *testing.T) {
	for what, change := range map[string]struct {
		do   func(dir string) error
		want string
	}{
		"bytes":       {func(d string) error { return os.WriteFile(d+"/lib/x", []byte("Library"), 0) }, `~ lib/x  holds "Library", want "library"`},
		"mode":        {func(d string) error { return os.Chmod(d+"/lib/x", 0o600) }, "~ lib/x  mode 0600, want 0644"},
		"root's mode": {func(d string) error { return os.Chmod(d, 0o700) }, "~ .  mode 0700, want 0711"},
		"more":        {func(d string) error { return os.Mkdir(d+"/more", 0o700) }, "+ more  directory 0700"},
		"less":        {func(d string) error { return os.Remove(d + "/fifo") }, "- fifo  fifo 0600"},
		"type": {func(d string) error { os.Remove(d + "/fifo"); return os.Symlink("x", d+"/fifo") },
			"~ fifo  is link -> x, want fifo 0600"},
		"link text": {func(d string) error {
			os.Remove(d + "/lib/link2")
			os.Remove(d + "/lib/link")
			os.Symlink("y", d+"/lib/link")
			return os.Link(d+"/lib/link", d+"/lib/link2")
		}, "~ lib/link  points to y, want x"},
		"links cut": {func(d string) error {
			os.Remove(d + "/bin/same")
			os.WriteFile(d+"/bin/same", []byte("program"), 0)
			return os.Chmod(d+"/bin/same", 0o755|os.ModeSetuid)
		}, `~ bin/tool  one inode with "bin/tool", want with "bin/same"`},
		"attribute": {func(d string) error { return unix.Setxattr(d+"/lib/x", "user.a", []byte("2"), 0) },
			`~ lib/x  user.a "2" (true), want "1" (true)`},
	} {
		t.Run(what, func(t *testing.T) {
			dir := rich(t)
			before := capture(t, dir)
			if err := change.do(dir); err == unix.EOPNOTSUPP {
				t.Skip("no such attribute here")
			} else if err != nil {
				t.Fatal(err)
			}
			if d := before.Diff(capture(t, dir)); !strings.Contains(d, change.want+"\n") || before.Equal(capture(t, dir)) {
				t.Errorf("difference is told as\n%swant\n%s", d, change.want)
			}
		})
	}
}

func TestTreeParts(t *testing.T) {
	tree := capture(t, rich(t))
	if got := tree.Sub("lib").Names(); strings.Join(got, " ") != ". link link2 x \xff\n" {
		t.Errorf("below lib: %q", got)
	}
	if tree.Sub("nothing") != nil {
		t.Error("there is something below nothing")
	}
	if got := tree.Without("lib", "b*/same", "ro/?").Names(); strings.Join(got, " ") != ". !first bin bin/tool fifo ro" {
		t.Errorf("the rest: %q", got)
	}
	if _, err := disktest.Capture(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("what is not there was captured")
	}
}
