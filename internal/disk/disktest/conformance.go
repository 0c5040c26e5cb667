package disktest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
)

// Conformance shows that a disk does what [disk.FS] says. Each part works in a
// new directory below base, of which open makes a disk.
func Conformance(t *testing.T, base string, open func(t testing.TB, dir string) disk.FS) {
	for _, part := range []struct {
		name string
		test func(b *bench)
	}{
		{"create", testCreate},
		{"bad names", testBadNames},
		{"odd names", testOddNames},
		{"symbolic links on the way", testLinksOnTheWay},
		{"symbolic links at the end", testLinksAtTheEnd},
		{"directories that move", testDirectoriesThatMove},
		{"rename", testRename},
		{"place", testPlace},
		{"exchange", testExchange},
		{"link", testLink},
		{"remove", testRemove},
		{"errors", testErrors},
		{"append", testAppend},
		{"write", testWrite},
		{"copy", testCopy},
		{"copy sparse", testCopySparse},
		{"copy what is too short", testCopyShort},
		{"lock", testLock},
		{"sync", testSync},
		{"modes and times", testModes},
		{"owners", testOwners},
		{"attributes", testXattrs},
		{"inherited ACL", testInheritedACL},
		{"set-user-id and capabilities", testPrivileges},
		{"immutable", testImmutable},
		{"fifo in the way", testFifo},
		{"many at once", testManyAtOnce},
		{"trading places", testTradingPlaces},
	} {
		t.Run(part.name, func(t *testing.T) {
			above, err := os.MkdirTemp(base, "conf-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(above) })
			b := &bench{T: t, dir: filepath.Join(above, "root"), above: above}
			b.ok(os.Mkdir(b.dir, 0o755))
			b.FS = open(t, b.dir)
			part.test(b)
		})
	}
}

// bench is one disk to test, in a directory of its own: above/root.
type bench struct {
	*testing.T
	disk.FS
	dir, above string
}

func (b *bench) ok(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// is wants an error that holds want.
func (b *bench) is(err, want error) {
	b.Helper()
	if !errors.Is(err, want) {
		b.Errorf("error is %v, want %v", err, want)
	}
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

// put makes a file behind the disk's back, and the directories above it.
func (b *bench) put(name, text string) {
	b.Helper()
	b.ok(os.MkdirAll(filepath.Dir(b.path(name)), 0o755))
	b.ok(os.WriteFile(b.path(name), []byte(text), 0o644))
}

// make makes a file through the disk.
func (b *bench) make(name, text string) {
	b.Helper()
	f, err := b.Create(name)
	b.ok(err)
	_, err = f.Write([]byte(text))
	b.ok(err)
	b.ok(f.Close())
}

// has wants a file with these bytes.
func (b *bench) has(name, want string) {
	b.Helper()
	if got, err := os.ReadFile(b.path(name)); err != nil || string(got) != want {
		b.Errorf("%s holds %q (%v), want %q", name, got, err, want)
	}
}

// lacks wants nothing under that name.
func (b *bench) lacks(name string) {
	b.Helper()
	if info, err := os.Lstat(b.path(name)); err == nil {
		b.Errorf("%s is there: %v", name, info.Mode())
	}
}

func (b *bench) stat(name string) unix.Stat_t {
	b.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(b.path(name), &st); err != nil {
		b.Fatalf("lstat %s: %v", name, err)
	}
	return st
}

// mode wants these permissions.
func (b *bench) mode(name string, want uint32) {
	b.Helper()
	if got := b.stat(name).Mode & 0o7777; got != want {
		b.Errorf("mode of %s is %04o, want %04o", name, got, want)
	}
}

// exchanges says whether names can be exchanged here.
func (b *bench) exchanges() bool {
	b.Helper()
	b.put("x1", "")
	b.put("x2", "")
	err := b.Exchange("x1", "x2")
	if err != nil {
		b.is(err, syscall.EINVAL)
	}
	b.ok(b.Remove("x1"))
	b.ok(b.Remove("x2"))
	return err == nil
}

// swap exchanges two names, by three renames where it must.
func (b *bench) swap(x, y string) {
	b.Helper()
	err := b.Exchange(x, y)
	if errors.Is(err, syscall.EINVAL) {
		err = errors.Join(b.Rename(x, "between"), b.Rename(y, x), b.Rename("between", y))
	}
	b.ok(err)
}

// snapshot is everything, what lies beside the root too.
func (b *bench) snapshot() *Tree {
	b.Helper()
	tree, err := Capture(b.above)
	b.ok(err)
	return tree
}

// unchanged wants nothing to have changed.
func (b *bench) unchanged(before *Tree, what string) {
	b.Helper()
	if d := before.Diff(b.snapshot()); d != "" {
		b.Errorf("%s has changed something:\n%s", what, d)
	}
}

// call is a method with its name.
type call struct {
	what string
	do   func(name string) error
}

// calls are all methods that take a name, each on an existing file called
// "other" where it needs a second one.
func (b *bench) calls() []call {
	return []call{
		{"create", func(name string) error {
			f, err := b.Create(name)
			if err == nil {
				f.Close()
			}
			return err
		}},
		{"append", func(name string) error { return b.Append(name, []byte("x")) }},
		{"mkdir", b.Mkdir},
		{"symlink", func(name string) error { return b.Symlink("text", name) }},
		{"link from", func(name string) error { return b.Link(name, "another") }},
		{"link to", func(name string) error { return b.Link("other", name) }},
		{"rename from", func(name string) error { return b.Rename(name, "another") }},
		{"rename to", func(name string) error { return b.Rename("other", name) }},
		{"place from", func(name string) error { return b.Place(name, "another") }},
		{"place to", func(name string) error { return b.Place("other", name) }},
		{"exchange", func(name string) error { return b.Exchange(name, "other") }},
		{"exchange with", func(name string) error { return b.Exchange("other", name) }},
		{"remove", b.Remove},
		{"setmeta", func(name string) error { return b.SetMeta(name, disk.Meta{UID: -1, GID: -1, Mode: 0o711}) }},
		{"syncdir", b.SyncDir},
	}
}

func testBadNames(b *bench) {
	exchanges := b.exchanges()
	b.put("other", "o")
	b.put("d/f", "f")
	b.ok(os.WriteFile(filepath.Join(b.above, "outside"), []byte("out"), 0o644))
	before := b.snapshot()
	names := []string{
		"", "..", "../outside", "d/..", "d/../other", "d/../../outside", "/", "/etc", filepath.Join(b.above, "outside"),
		"./other", "d/./f", "d//f", "d/", "d/.", "o\x00ther", "d/f\x00",
	}
	for _, c := range b.calls() {
		for _, name := range names {
			if err := c.do(name); !errors.Is(err, syscall.EINVAL) {
				b.Errorf("%s %q: error is %v, want %v", c.what, name, err, syscall.EINVAL)
			}
		}
		if c.what != "setmeta" && c.what != "syncdir" { // the root itself has metadata and names
			if err := c.do("."); err == nil {
				b.Errorf("%s %q: no error", c.what, ".")
			}
		}
		if err := c.do("other/f"); !errors.Is(err, syscall.ENOTDIR) {
			b.Errorf("%s below a file: error is %v, want %v", c.what, err, syscall.ENOTDIR)
		}
		err := c.do(strings.Repeat("n", 256))
		lacking := strings.HasPrefix(c.what, "exchange") && !exchanges && errors.Is(err, syscall.EINVAL)
		if !errors.Is(err, syscall.ENAMETOOLONG) && !lacking {
			b.Errorf("%s a name of 256 bytes: error is %v, want %v", c.what, err, syscall.ENAMETOOLONG)
		}
		b.unchanged(before, c.what)
	}
}

func testOddNames(b *bench) {
	b.ok(b.Mkdir("dir"))
	for _, name := range []string{
		strings.Repeat("n", 255), "new\nline", "\xff\xfe not UTF-8", " ", "...", "..x", "-rf", "*", `back\slash`, "\x01", "~",
	} {
		in := "dir/" + name
		b.make(name, "1")
		b.ok(b.Rename(name, in))
		b.ok(b.Link(in, name))
		b.ok(b.SetMeta(in, disk.Meta{UID: -1, GID: -1, Mode: 0o640}))
		b.has(name, "1")
		b.mode(name, 0o640)
		b.ok(b.Remove(name))
		b.ok(b.Remove(in))
		b.ok(b.Mkdir(name))
		b.make(name+"/f", "2")
		b.ok(b.SyncDir(name))
		b.has(name+"/f", "2")
	}
}

func testErrors(b *bench) {
	b.put("other", "o")
	b.put("d/f", "f")
	exchanges := b.exchanges()
	for _, c := range b.calls() {
		const name = "missing/name"
		err := c.do(name)
		if strings.HasPrefix(c.what, "exchange") && !exchanges && errors.Is(err, syscall.EINVAL) {
			continue
		}
		b.is(err, syscall.ENOENT)
		var pe *fs.PathError
		var le *os.LinkError
		two := strings.Contains(c.what, " ") || strings.HasPrefix(c.what, "exchange")
		switch {
		case two && !errors.As(err, &le):
			b.Errorf("%s: error is a %T, want a %T", c.what, err, le)
		case two && (!strings.HasSuffix(le.Old, "other") && !strings.HasSuffix(le.Old, name) ||
			!strings.HasSuffix(le.New, "another") && !strings.HasSuffix(le.New, "other") && !strings.HasSuffix(le.New, name)):
			b.Errorf("%s: error %q does not hold both names", c.what, err)
		case !two && !errors.As(err, &pe):
			b.Errorf("%s: error is a %T, want a %T", c.what, err, pe)
		case !two && !strings.HasSuffix(pe.Path, name):
			b.Errorf("%s: error %q does not hold the name", c.what, err)
		}
	}
}

// testDirectoriesThatMove: a name means what it means now, also where a disk
// holds directories open.
func testDirectoriesThatMove(b *bench) {
	b.ok(b.Mkdir("a"))
	b.ok(b.Mkdir("a/in"))
	b.make("a/in/1", "1")
	b.ok(b.Rename("a", "b"))
	b.is(b.Mkdir("a/in/x"), syscall.ENOENT)
	b.ok(b.Mkdir("a"))
	b.ok(b.Mkdir("a/in"))
	b.make("a/in/2", "2")
	b.make("b/in/3", "3")
	b.swap("a", "b")
	b.make("a/in/4", "4")
	b.make("b/in/5", "5")
	for name, text := range map[string]string{"a/in/1": "1", "a/in/3": "3", "a/in/4": "4", "b/in/2": "2", "b/in/5": "5"} {
		b.has(name, text)
	}
	b.ok(b.Remove("b/in/2"))
	b.ok(b.Remove("b/in/5"))
	b.ok(b.Remove("b/in"))
	b.is(b.SyncDir("b/in"), syscall.ENOENT)
	b.ok(b.Rename("a/in", "b/in"))
	b.make("b/in/6", "6")
	b.has("b/in/6", "6")
	b.ok(b.Symlink("b", "l"))
	b.swap("l", "b")
	if err := b.Mkdir("b/in/x"); err == nil {
		b.Error("a directory whose name is a link by now was entered")
	}
	b.make("l/in/7", "7")
	b.has("l/in/7", "7")
	for i := range 300 { // more than anybody would hold open
		b.ok(b.Mkdir(fmt.Sprint("many", i)))
		b.make(fmt.Sprint("many", i, "/f"), "x")
	}
	b.make("l/in/8", "8")
	b.has("l/in/8", "8")
}
