package disktest

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
)

func testCreate(b *bench) {
	f, err := b.Create("f")
	b.ok(err)
	b.mode("f", 0o600)
	b.ok(f.Close())
	b.ok(b.Mkdir("d"))
	b.mode("d", 0o700)
	b.make("d/f", "text")
	b.has("d/f", "text")
	b.ok(b.Symlink("nowhere", "dangling"))
	for _, name := range []string{"f", "d", "dangling", "d/f"} {
		before := b.snapshot()
		for _, c := range b.calls() {
			if c.what == "create" || c.what == "mkdir" || c.what == "symlink" {
				b.is(c.do(name), syscall.EEXIST)
			}
		}
		b.unchanged(before, "what was refused")
	}
	b.lacks("nowhere")
	if text, err := os.Readlink(b.path("dangling")); text != "nowhere" {
		b.Errorf("link holds %q (%v), want %q", text, err, "nowhere")
	}
}

// testLinksOnTheWay: nobody who can make a link below the root leads us out.
func testLinksOnTheWay(b *bench) {
	b.put("other", "o")
	b.put("d/sub/f", "f")
	b.ok(os.Mkdir(b.above+"/outside", 0o755))
	b.ok(os.Mkdir(b.above+"/outside/sub", 0o755))
	b.ok(os.WriteFile(b.above+"/outside/f", []byte("out"), 0o644))
	b.ok(os.Symlink("../outside", b.path("out")))
	b.ok(os.Symlink(b.above+"/outside", b.path("absolute")))
	b.ok(os.Symlink("d", b.path("inside")))
	b.ok(os.Symlink("../../outside", b.path("d/deep")))
	before := b.snapshot()
	for _, c := range b.calls() {
		for _, name := range []string{
			"out/f", "absolute/f", "inside/sub", "inside/sub/f", "d/deep/f", "out/new", "inside/new", "d/deep/new",
			"out/sub/new", "inside/sub/new",
		} {
			if err := c.do(name); err == nil {
				b.Errorf("%s %q: no error", c.what, name)
			}
		}
		b.unchanged(before, c.what)
	}
}

// testLinksAtTheEnd: the last component is never followed.
func testLinksAtTheEnd(b *bench) {
	b.put("file", "text")
	b.ok(os.Mkdir(b.path("dir"), 0o755))
	for link, text := range map[string]string{"to-file": "file", "to-dir": "dir", "to-nothing": "nothing", "to-log": "log"} {
		b.ok(os.Symlink(text, b.path(link)))
	}
	if err := b.Append("to-log", []byte("x")); err == nil {
		b.Error("append followed a link")
	}
	b.lacks("log")
	if err := b.Append("to-file", []byte("x")); err == nil {
		b.Error("append followed a link")
	}
	if err := b.SyncDir("to-dir"); err == nil {
		b.Error("syncdir followed a link")
	}
	b.ok(b.Link("to-file", "second"))
	if b.stat("second").Ino != b.stat("to-file").Ino {
		b.Error("link followed a link")
	}
	for _, link := range []string{"to-file", "to-dir", "to-nothing"} {
		b.ok(b.SetMeta(link, disk.Meta{UID: -1, GID: -1, Mode: 0o700}))
	}
	b.mode("file", 0o644)
	b.mode("dir", 0o755)
	b.make("new", "1")
	b.ok(b.Rename("new", "to-dir"))
	b.has("to-dir", "1")
	b.swap("to-file", "to-dir")
	b.has("to-file", "1")
	b.ok(b.Remove("to-dir"))
	b.has("file", "text")
	b.make("new", "2")
	b.is(b.Place("new", "to-nothing"), syscall.EEXIST)
	b.lacks("nothing")
	b.ok(b.Rename("second", "moved"))
	if text, err := os.Readlink(b.path("moved")); text != "file" {
		b.Errorf("link holds %q (%v), want %q", text, err, "file")
	}
}

func testRename(b *bench) {
	b.make("a", "1")
	b.make("b", "2")
	ino := b.stat("a").Ino
	b.ok(b.Rename("a", "b"))
	b.lacks("a")
	b.has("b", "1")
	if got := b.stat("b").Ino; got != ino {
		b.Errorf("inode is %d, want the old one, %d", got, ino)
	}
	b.is(b.Rename("a", "b"), syscall.ENOENT)
	b.has("b", "1")

	// rename(2) does nothing for two names of one inode.
	b.ok(b.Mkdir("d"))
	b.ok(b.Link("b", "d/c"))
	b.ok(b.Rename("b", "d/c"))
	b.lacks("b")
	b.has("d/c", "1")
	b.ok(b.Rename("d/c", "d/c"))
	b.has("d/c", "1")

	b.ok(b.Mkdir("e"))
	if err := b.Rename("e", "d"); !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.EEXIST) { // XFS says EEXIST
		b.Errorf("error is %v, want %v", err, syscall.ENOTEMPTY)
	}
	b.is(b.Rename("d", "d/in"), syscall.EINVAL)
	b.is(b.Rename("d/c", "e"), syscall.EISDIR)
	b.is(b.Rename("e", "d/c"), syscall.ENOTDIR)
	b.ok(b.Rename("d", "e"))
	b.has("e/c", "1")
	b.lacks("d")
}

func testPlace(b *bench) {
	b.ok(b.Mkdir("probe"))
	dirsToo := b.Place("probe", "probe2") == nil // not where link(2) has to do it
	b.make("a", "1")
	b.make("b", "2")
	b.ok(b.Mkdir("d"))
	b.make("d/in", "3")
	before := b.snapshot()
	for _, pair := range [][2]string{{"a", "b"}, {"a", "d"}, {"a", "a"}, {"d", "a"}, {"d", "d"}} {
		if pair[0] == "a" || dirsToo {
			b.is(b.Place(pair[0], pair[1]), syscall.EEXIST)
		}
	}
	b.ok(b.Link("a", "a2"))
	b.is(b.Place("a", "a2"), syscall.EEXIST)
	b.ok(b.Remove("a2"))
	b.is(b.Place("missing", "c"), syscall.ENOENT)
	b.unchanged(before, "what was refused")
	b.ok(b.Place("a", "d/a"))
	b.lacks("a")
	b.has("d/a", "1")
	if !dirsToo {
		b.is(b.Place("d", "e"), syscall.EPERM)
		b.lacks("e")
		return
	}
	b.ok(b.Place("d", "e"))
	b.lacks("d")
	b.has("e/a", "1")
	b.has("e/in", "3")
}

func testExchange(b *bench) {
	b.make("a", "1")
	b.ok(b.Mkdir("d"))
	b.make("d/in", "2")
	b.ok(b.Symlink("text", "l"))
	if !b.exchanges() {
		before := b.snapshot()
		b.is(b.Exchange("a", "d"), syscall.EINVAL)
		b.unchanged(before, "what cannot be done")
		return
	}
	b.is(b.Exchange("a", "missing"), syscall.ENOENT)
	b.is(b.Exchange("missing", "a"), syscall.ENOENT)
	b.lacks("missing")
	b.has("a", "1")
	b.ok(b.Exchange("a", "d"))
	b.has("d", "1")
	b.has("a/in", "2")
	b.ok(b.Exchange("a", "l"))
	b.has("l/in", "2")
	b.ok(b.Exchange("l/in", "d"))
	b.has("l/in", "1")
	b.has("d", "2")
	if text, err := os.Readlink(b.path("a")); text != "text" {
		b.Errorf("link holds %q (%v), want %q", text, err, "text")
	}
	if err := b.Exchange("l", "l/in"); err == nil {
		b.Error("a directory was exchanged with what is in it")
	}
}

func testLink(b *bench) {
	b.make("a", "1")
	b.ok(b.Mkdir("d"))
	b.ok(b.Link("a", "d/b"))
	if b.stat("a").Ino != b.stat("d/b").Ino || b.stat("a").Nlink != 2 {
		b.Error("two names, but not of one inode")
	}
	b.is(b.Link("a", "d/b"), syscall.EEXIST)
	b.is(b.Link("d", "e"), syscall.EPERM)
	b.is(b.Link("missing", "e"), syscall.ENOENT)
}

func testRemove(b *bench) {
	b.make("a", "1")
	b.ok(b.Mkdir("d"))
	b.make("d/in", "2")
	b.ok(b.Symlink("d", "l"))
	b.is(b.Remove("d"), syscall.ENOTEMPTY)
	b.is(b.Remove("missing"), syscall.ENOENT)
	for _, name := range []string{"l", "d/in", "d", "a"} {
		b.ok(b.Remove(name))
		b.lacks(name)
	}
}

func testImmutable(b *bench) {
	b.needsRoot()
	b.make("fixed", "1")
	b.make("new", "2")
	b.immutable("fixed", true)
	defer b.immutable("fixed", false)
	before := b.snapshot()
	for _, err := range []error{
		b.Remove("fixed"), b.Rename("fixed", "other"), b.Rename("new", "fixed"), b.Exchange("new", "fixed"), b.Link("fixed", "other"),
		b.SetMeta("fixed", disk.Meta{UID: -1, GID: -1, Mode: 0o711}),
	} {
		if !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.EINVAL) {
			b.Errorf("error is %v, want %v", err, syscall.EPERM)
		}
	}
	b.unchanged(before, "what was refused")
}

const immutableFlag = 0x10 // FS_IMMUTABLE_FL

// immutable sets or clears what chattr +i sets.
func (b *bench) immutable(name string, on bool) {
	b.Helper()
	f, err := os.Open(b.path(name))
	b.ok(err)
	defer f.Close()
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		b.Skipf("no flags here: %v", err)
	}
	flags &^= immutableFlag
	if on {
		flags |= immutableFlag
	}
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags)); err != nil {
		b.Skipf("no immutable files here: %v", err)
	}
}
