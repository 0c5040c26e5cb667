package disktest_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
	"moult.example/internal/disk/disktest"
)

// Each operation of the sample protocols fails in turn, with each errno: the
// job must see that errno, and the one-file protocol must not have harmed what
// was there.
func TestEachOperationFailsInTurn(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.EIO, unix.ENOSPC, unix.EXDEV, unix.EROFS, unix.EDQUOT} {
		count := 0
		for n := 1; ; n++ {
			dir := disktest.TempDir(t)
			plant(t, dir, one.initial)
			in := disktest.Inject(open(t, dir), disktest.Fault{At: n, Errno: errno})
			err := replaceOne(in)
			op, hit := in.Hit()
			if !hit {
				must(t, err)
				break
			}
			count++
			var pe *fs.PathError
			var le *os.LinkError
			if op.Kind == disktest.OpClose {
				must(t, err) // the protocol does not look
			} else if !errors.Is(err, errno) || !errors.As(err, &pe) && !errors.As(err, &le) {
				t.Errorf("%v at %s: the job sees %v", errno, op, err)
			}
			if err := one.check(dir, false); err != nil {
				t.Errorf("%v at %s: %v", errno, op, err)
			}
		}
		if count != 7 {
			t.Errorf("%d operations failed, want 7", count)
		}
	}
}

func TestInjectorCountsAndGoesOn(t *testing.T) {
	dir := disktest.TempDir(t)
	counting := disktest.Inject(open(t, dir), disktest.Fault{})
	must(t, counting.Mkdir("d"))
	must(t, counting.SyncFS())
	if got := counting.Count(); got != 2 {
		t.Errorf("counted %d, want 2", got)
	}
	on := disktest.Inject(counting, disktest.Fault{At: 2, On: true, Errno: unix.EIO, Match: disktest.Is(disktest.OpMkdir, "")})
	for n, want := range []error{nil, unix.EIO, unix.EIO} {
		if err := on.Mkdir("x" + string(rune('0'+n))); !errors.Is(err, want) {
			t.Errorf("mkdir %d: %v, want %v", n, err, want)
		}
		must(t, on.SyncDir("."))
	}
	if op, hit := on.Hit(); !hit || op.Name != "x1" {
		t.Errorf("hit %v %v, want x1", op, hit)
	}
}

// A disk fills up in the middle of a write, and close(2) closes even if it
// fails.
func TestFaultsAreLikeRealOnes(t *testing.T) {
	dir := disktest.TempDir(t)
	in := disktest.Inject(open(t, dir), disktest.Fault{At: 1, Errno: unix.ENOSPC, Match: disktest.Is(disktest.OpWrite, "")})
	f, err := in.Create("f")
	must(t, err)
	if n, err := f.Write([]byte("123456")); n != 3 || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("wrote %d (%v), want 3 and %v", n, err, unix.ENOSPC)
	}
	must(t, f.Close())
	if got, _ := os.ReadFile(filepath.Join(dir, "f")); string(got) != "123" {
		t.Errorf("file holds %q, want %q", got, "123")
	}
	in = disktest.Inject(open(t, dir), disktest.Fault{At: 1, Errno: unix.EIO, Match: disktest.Is(disktest.OpClose, "")})
	f, err = in.Create("g")
	must(t, err)
	if err := f.Close(); !errors.Is(err, unix.EIO) {
		t.Errorf("close: %v, want %v", err, unix.EIO)
	}
	if _, err := f.Write([]byte("x")); err == nil {
		t.Error("the file is still open")
	}
}

func TestDropAndDelay(t *testing.T) {
	dir := disktest.TempDir(t)
	rec := disktest.Record(t, dir, open(t, dir))
	kinds := func(from int) (s string) {
		for _, o := range rec.Log()[from:] {
			s += string(o.Kind) + " "
		}
		return s
	}
	run := func(fs disk.FS) string {
		from := len(rec.Log())
		f, err := fs.Create("f")
		must(t, err)
		p := []byte("text")
		if n, err := f.Write(p); n != 4 || err != nil {
			t.Errorf("wrote %d (%v), want 4", n, err)
		}
		copy(p, "XXXX")
		must(t, f.Sync())
		must(t, fs.Rename("f", "g"))
		must(t, f.Close())
		must(t, fs.SyncDir("."))
		return kinds(from)
	}
	is := disktest.Is
	for _, c := range []struct {
		fs   disk.FS
		want string
	}{
		{rec, "create write sync rename close syncdir "},
		{disktest.NoSync(rec), "create write rename close "},
		{disktest.Drop(rec, is(disktest.OpWrite, "f")), "create sync rename close syncdir "},
		{disktest.Drop(rec, is("", "f")), "create close syncdir "},
		{disktest.Drop(rec, disktest.Nth(2, is(disktest.OpSync, ""))), "create write sync rename close syncdir "},
		{disktest.Drop(rec, disktest.Nth(1, is(disktest.OpSync, ""))), "create write rename close syncdir "},
		{disktest.Delay(rec, is(disktest.OpSync, ""), is(disktest.OpRename, "")), "create write rename sync close syncdir "},
		{disktest.Delay(rec, is(disktest.OpRename, ""), is(disktest.OpRemove, "")), "create write sync close syncdir "},
	} {
		if got := run(c.fs); got != c.want {
			t.Errorf("done: %s, want %s", got, c.want)
		}
		os.Remove(filepath.Join(dir, "f"))
	}
	run(disktest.Delay(rec, is(disktest.OpWrite, ""), is(disktest.OpSync, "")))
	if got, _ := os.ReadFile(filepath.Join(dir, "g")); string(got) != "text" {
		t.Errorf("file holds %q, want %q", got, "text")
	}
}

func TestIs(t *testing.T) {
	rename := disktest.Op{Kind: disktest.OpRename, Name: "lib/.new", New: "lib/x.so"}
	for _, c := range []struct {
		kind    disktest.Kind
		pattern string
		want    bool
	}{
		{"", "", true}, {disktest.OpRename, "", true}, {disktest.OpLink, "", false},
		{"", "x.so", true}, {"", "*.so", true}, {"", ".new", true}, {"", "lib/*", true}, {"", "bin/*", false}, {"", "lib", false},
	} {
		if got := disktest.Is(c.kind, c.pattern)(rename); got != c.want {
			t.Errorf("Is(%q, %q) is %v, want %v", c.kind, c.pattern, got, c.want)
		}
	}
}
