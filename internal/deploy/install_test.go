package deploy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/deploy"
	"moult.example/internal/disk"
	"moult.example/internal/disk/disktest"
)

// put makes a file with exactly these permissions.
func put(t testing.TB, path, text string, mode uint32) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func install(t testing.TB, o deploy.InstallOptions) deploy.InstallResult {
	t.Helper()
	r, err := deploy.Install(t.Context(), o)
	if err != nil {
		t.Fatalf("install %q to %s%s: %v", o.Sources, o.Dest, o.TargetDir, err)
	}
	return r
}

// refused wants an installation to fail for a reason and to leave the directory
// as it was.
func refused(t testing.TB, dir, why string, o deploy.InstallOptions) error {
	t.Helper()
	before := look(t, dir)
	r, err := deploy.Install(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), why) {
		t.Fatalf("install %q to %s: error %v, want one with %q", o.Sources, o.Dest, err, why)
	}
	if strings.Contains(err.Error(), ".moult-install") {
		t.Errorf("error %v speaks of the temporary file", err)
	}
	if r.Changed || errors.Is(err, deploy.ErrInstallPartly) || len(r.Files) > 0 || len(r.Made) > 0 {
		t.Errorf("result %+v with error %v, want nothing changed", r, err)
	}
	if diff := before.Diff(look(t, dir)); diff != "" {
		t.Errorf("a refused installation changed the tree:\n%s", diff)
	}
	return err
}

func look(t testing.TB, dir string) *disktest.Tree {
	t.Helper()
	tree, err := disktest.Capture(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// holds wants a file to have bytes and a mode.
func holds(t testing.TB, path, text string, mode uint32) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	if string(got) != text || st.Mode&0o7777 != mode {
		t.Errorf("%s holds %.40q with mode %04o, want %.40q with %04o", path, got, st.Mode&0o7777, text, mode)
	}
}

func noLeftovers(t testing.TB, dir string) {
	t.Helper()
	if err := leftBehind(dir); err != nil {
		t.Error(err)
	}
}

func leftBehind(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), ".moult-install") {
			err = fmt.Errorf("%s was left behind", path)
		}
		return err
	})
}

// kinds are the operations of a log in one line.
func kinds(log []disktest.Op) string {
	var names []string
	for _, op := range log {
		names = append(names, string(op.Kind))
	}
	return strings.Join(names, " ")
}

// TestInstallSteps shows what is done to the disk, and that each thing is done
// once: the two syncs are what an installation costs.
func TestInstallSteps(t *testing.T) {
	src, dir := t.TempDir(), t.TempDir()
	put(t, src+"/a", "new a", 0o600)
	put(t, src+"/b", "new b", 0o600)
	put(t, dir+"/a", "old", 0o644)
	record := func(o deploy.InstallOptions) string {
		root, err := disk.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		rec := disktest.Record(t, dir, root)
		o.Disk = func(string) (disk.FS, error) { return rec, nil }
		install(t, o)
		return kinds(rec.Log())
	}
	for _, test := range []struct {
		o    deploy.InstallOptions
		want string
	}{
		{
			deploy.InstallOptions{Sources: []string{src + "/a"}, Dest: dir},
			"create copyfrom filemeta sync close rename syncdir",
		},
		{
			deploy.InstallOptions{Sources: []string{src + "/a"}, Dest: dir, NoSync: true},
			"create copyfrom filemeta close rename",
		},
		{
			deploy.InstallOptions{Sources: []string{src + "/a", src + "/b"}, TargetDir: dir},
			"create close create copyfrom filemeta create copyfrom filemeta sync close sync close rename rename remove syncdir",
		},
		{
			deploy.InstallOptions{Sources: []string{src + "/a"}, Dest: dir, Backup: deploy.BackupSimple},
			"create copyfrom filemeta sync close link syncdir rename syncdir",
		},
		{deploy.InstallOptions{Sources: []string{src + "/a"}, Dest: dir, Compare: true}, ""},
	} {
		if got := record(test.o); got != test.want {
			t.Errorf("%+v:\ngot  %s\nwant %s", test.o, got, test.want)
		}
	}
	noLeftovers(t, dir)
}

// TestInstallNames: any name that a file can have is one to install.
func TestInstallNames(t *testing.T) {
	src, dir := t.TempDir(), t.TempDir()
	put(t, src+"/a", "new", 0o644)
	for _, name := range []string{
		strings.Repeat("n", 255), "new\nline", "\xff\xfe", " ", "-m", "*", `'"$`, ".hidden", "lib.so.1",
	} {
		put(t, filepath.Join(dir, name), "old", 0o644)
		install(t, deploy.InstallOptions{Sources: []string{src + "/a"}, Dest: filepath.Join(dir, name)})
		holds(t, filepath.Join(dir, name), "new", 0o755)
	}
	refused(t, dir, "file name too long", deploy.InstallOptions{Sources: []string{src + "/a"}, Dest: dir + "/" + strings.Repeat("n", 256)})
	noLeftovers(t, dir)
}

// TestInstallReplaces: the name gets a new inode. Other names of the old one,
// and who has it open, keep the old bytes; a symbolic link is replaced and what
// it points to is not.
func TestInstallReplaces(t *testing.T) {
	src, dir := t.TempDir(), t.TempDir()
	put(t, src+"/a", "new", 0o600)
	put(t, dir+"/x", "old", 0o640)
	if err := errors.Join(os.Link(dir+"/x", dir+"/y"), os.Symlink("x", dir+"/link")); err != nil {
		t.Fatal(err)
	}
	open, err := os.Open(dir + "/x")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	r := install(t, deploy.InstallOptions{Sources: []string{src + "/a"}, Dest: dir + "/x"})
	if len(r.Files) != 1 || !r.Files[0].Replaced || !r.Changed {
		t.Errorf("result %+v, want one file replaced", r)
	}
	holds(t, dir+"/x", "new", 0o755)
	holds(t, dir+"/y", "old", 0o640)
	var buf bytes.Buffer
	if _, err := buf.ReadFrom(open); err != nil || buf.String() != "old" {
		t.Errorf("who had it open reads %q (%v), want %q", buf.String(), err, "old")
	}
	put(t, src+"/a", "newer", 0o600)
	install(t, deploy.InstallOptions{Sources: []string{src + "/a"}, Dest: dir + "/link"})
	holds(t, dir+"/link", "newer", 0o755)
	holds(t, dir+"/x", "new", 0o755)
}

// TestInstallAllOrNothing: if one of several cannot be had, none is installed,
// and no directory is left that was made for them.
func TestInstallAllOrNothing(t *testing.T) {
	src, dir := t.TempDir(), t.TempDir()
	put(t, src+"/a", "new", 0o600)
	put(t, dir+"/a", "old", 0o644)
	refused(t, dir, "no such file", deploy.InstallOptions{Sources: []string{src + "/a", src + "/missing"}, TargetDir: dir})
	refused(t, dir, "omitting directory", deploy.InstallOptions{Sources: []string{src + "/a", src}, TargetDir: dir})
	refused(t, dir, "is a directory", deploy.InstallOptions{
		Sources: []string{src + "/a"}, Dest: dir + "/n/o/p/q", MakeLeading: true,
		Disk: failing(disktest.OpCopyFrom, unix.EISDIR), // an error after the directories are there
	})
	refused(t, dir, "not a directory", deploy.InstallOptions{Sources: []string{dir + "/n", dir + "/a/b"}, Directories: true})
}

// failing is a disk on which operations of one kind fail.
func failing(kind disktest.Kind, errno unix.Errno) func(string) (disk.FS, error) {
	return func(path string) (disk.FS, error) {
		root, err := disk.Open(path)
		if err != nil {
			return nil, err
		}
		return disktest.Inject(root, disktest.Fault{At: 1, On: true, Errno: errno, Match: disktest.Is(kind, "")}), nil
	}
}

// TestInstallDryRun says the same as the installation, and does nothing.
func TestInstallDryRun(t *testing.T) {
	src, dir := t.TempDir(), t.TempDir()
	put(t, src+"/a", "new", 0o600)
	put(t, src+"/b", "new", 0o600)
	put(t, dir+"/a", "old", 0o644)
	for _, o := range []deploy.InstallOptions{
		{Sources: []string{src + "/a"}, Dest: dir, Backup: deploy.BackupExisting},
		{Sources: []string{src + "/a", src + "/b"}, TargetDir: dir, Backup: deploy.BackupNumbered},
		{Sources: []string{src + "/a"}, Dest: dir + "/n/o/p", MakeLeading: true},
		{Sources: []string{dir + "/q//r", dir + "/n"}, Directories: true},
	} {
		before := look(t, dir)
		o.DryRun = true
		said := install(t, o)
		if diff := before.Diff(look(t, dir)); diff != "" || said.Changed {
			t.Fatalf("a dry run changed the tree (and says so: %v):\n%s", said.Changed, diff)
		}
		o.DryRun = false
		done := install(t, o)
		if got, want := said.Verbose("install"), done.Verbose("install"); !slices.Equal(got, want) || len(got) == 0 {
			t.Errorf("the dry run says\n%q, the installation\n%q", got, want)
		}
	}
}

// TestInstallInterrupted: a signal while it waits for a FIFO, or between two
// files, ends it, and nothing has changed.
func TestInstallInterrupted(t *testing.T) {
	src, dir := t.TempDir(), t.TempDir()
	if err := unix.Mkfifo(src+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	put(t, dir+"/x", "old", 0o644)
	before := look(t, dir)
	for _, withWriter := range []bool{false, true} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if withWriter {
			w, err := os.OpenFile(src+"/fifo", os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
		}
		_, err := deploy.Install(ctx, deploy.InstallOptions{Sources: []string{src + "/fifo"}, Dest: dir + "/x"})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the context's", err)
		}
		if diff := before.Diff(look(t, dir)); diff != "" {
			t.Errorf("an interrupted installation changed the tree:\n%s", diff)
		}
	}
}

// atEach calls a function before and after each operation.
func atEach(call func(path string)) func(string) (disk.FS, error) {
	return func(path string) (disk.FS, error) {
		root, err := disk.Open(path)
		if err != nil {
			return nil, err
		}
		return disktest.Wrap(root, func(op *disktest.Op, do func() error) error {
			call(path)
			err := do()
			call(path)
			return err
		}), nil
	}
}
