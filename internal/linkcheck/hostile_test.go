package linkcheck

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"moult.example/internal/testneed"
)

// small is a real library whose headers are all in place, to be broken.
func small(t testing.TB) []byte {
	for _, p := range []string{"/usr/lib/x86_64-linux-gnu/libdl.so.2", "/lib64/libdl.so.2", "/usr/lib/x86_64-linux-gnu/libBrokenLocale.so.1"} {
		if b, err := os.ReadFile(p); err == nil {
			return b
		}
	}
	testneed.Skip(t, "no small library here")
	return nil
}

// exercise does to a file all that Check does to one.
func exercise(b []byte) (*image, error) {
	im, err := parseImage(b)
	if err != nil {
		return im, err
	}
	refs, err := im.references(false, &tally{})
	var w wanted
	for _, r := range refs {
		sym, _ := im.symbol(r.index)
		w = wanted{name: im.text(sym.name), defined: r.use&useJump != 0}
		w.gnu = gnuHashOf(w.name)
		if v, _, ok := im.versionOf(r.index); ok && v.hash != 0 {
			w.version = v
		}
		im.find(&w, false)
		im.find(&w, true)
	}
	im.same(&w, func(*version) {})
	im.similar(w.name, 1000)
	for i := range im.versions {
		im.nearVersions(im.versions[i].name)
	}
	demangled(string(w.name))
	return im, err
}

func FuzzImage(f *testing.F) {
	f.Add(small(f))
	f.Add(handmade(elf.ELFCLASS64, binary.LittleEndian, "\x00a.so\x00", tagNeeded, 1, tagStrtab, 0, tagNull, 0))
	f.Add(handmade(elf.ELFCLASS32, binary.BigEndian, "\x00a.so\x00", tagNeeded, 1, tagStrtab, 0, tagNull, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		im, err := exercise(b)
		if err != nil {
			if _, ok := err.(*FormatError); !ok {
				t.Errorf("got %v, want a FormatError", err)
			}
		}
		limit := uint64(1<<23) + 1024*uint64(len(b))
		if im.work.steps > limit || im.work.names > 2*maxNames+64*uint64(len(b)) {
			t.Errorf("%d steps and %d bytes of names for a file of %d", im.work.steps, im.work.names, len(b))
		}
	})
}

func FuzzCache(f *testing.F) {
	if b, err := os.ReadFile("/etc/ld.so.cache"); err == nil {
		f.Add(b)
	}
	f.Add([]byte(newCacheMagic + strings.Repeat("\x00", 60)))
	f.Add([]byte(oldCacheMagic + "\x00\x00\x00\x00" + newCacheMagic + strings.Repeat("\x00", 60)))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseCache(b)
		if err != nil {
			return
		}
		for name := range c.entries {
			c.lookup(name, 0x303, []string{"x86-64-v3"})
		}
	})
}

func FuzzIndex(f *testing.F) {
	ix := &Index{}
	if _, err := ix.Refresh(context.Background(), Options{}, "/usr/lib/x86_64-linux-gnu/security"); err != nil {
		f.Fatal(err)
	}
	var b bytes.Buffer
	if err := ix.Write(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes()[len(indexMagic) : b.Len()-4])
	f.Fuzz(func(t *testing.T, b []byte) {
		d := indexDecoder{b: b}
		ix := &Index{dirs: map[string]*indexDir{}}
		d.number()
		d.text()
		d.bytes()
		for range d.count() {
			p := d.text()
			ix.dirs[p] = d.dir(p)
		}
		ix.Dependants("/lib/libc.so.6")
	})
}

// The cache of this host says what ldconfig says.
func TestCacheAgainstLdconfig(t *testing.T) {
	b, err := os.ReadFile("/etc/ld.so.cache")
	if err != nil {
		testneed.Skip(t, err.Error())
	}
	c, err := parseCache(b)
	if err != nil {
		t.Fatal(err)
	}
	p, ok := c.lookup("libc.so.6", 0x303, nil)
	if !ok || !strings.HasSuffix(p, "/libc.so.6") {
		t.Errorf("got %q, %v, want the path of libc.so.6", p, ok)
	}
	for n := 0; n < len(b); n += 1 + n/50 {
		if _, err := parseCache(b[:n]); err == nil {
			t.Errorf("cut to %d of %d bytes: got no error", n, len(b))
			break
		}
	}
}

// A library that is cut short while it is mapped is named, and does not end us.
func TestShrunk(t *testing.T) {
	dir := t.TempDir()
	p := filepath.Join(dir, "libx.so")
	b := small(t)
	if err := os.WriteFile(p, append(b, make([]byte, 1<<16)...), 0o644); err != nil {
		t.Fatal(err)
	}
	shrunk := map[fileID]bool{}
	c, err := newChecker(Options{}, shrunk)
	if err != nil {
		t.Fatal(err)
	}
	o, err := c.objects.open(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(p, 0); err != nil {
		t.Fatal(err)
	}
	id, err := c.guarded(context.Background(), []string{p})
	if id == nil || *id != o.id {
		t.Fatalf("got %v, %v, want the file that was cut short", id, err)
	}
	// With that known, it is a finding like any other.
	if err := os.WriteFile(p, b[:200], 0o644); err != nil {
		t.Fatal(err)
	}
	r := checked(t, []string{p}, Options{})
	if len(r.Findings) != 1 || r.Findings[0].Problem != BadFile || r.Findings[0].Object != p {
		t.Errorf("got %+v, want a bad file", r.Findings)
	}
}

// A million symbols that share one long name, and one chain for all of them,
// cost no more than their share.
func TestLinear(t *testing.T) {
	b := small(t)
	im, err := parseImage(b)
	if err != nil {
		t.Fatal(err)
	}
	im.work.lookups, im.work.steps = 10, 1<<22+256*10
	if im.step() {
		t.Error("a file that has had its share may go on")
	}
	if !im.spent() {
		t.Error("and nobody is told")
	}
	// A circle in the old kind of table ends.
	h := sysvHash{buckets: []byte{1, 0, 0, 0}, chain: []byte{0, 0, 0, 0, 1, 0, 0, 0}, count: 1}
	im.work = work{}
	h.each(im, 0, func(uint32) bool { return false })
	if im.work.steps > 1<<22+1 {
		t.Errorf("got %d steps, want an end", im.work.steps)
	}
}

// All that is in another root stays in it, links too.
func TestRoot(t *testing.T) {
	root := t.TempDir()
	lib := filepath.Join(root, "usr/lib")
	if err := os.MkdirAll(lib, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name string, needed string) {
		b := handmade(elf.ELFCLASS64, binary.LittleEndian, "\x00"+needed+"\x00", tagNeeded, 1, tagStrtab, 0, tagNull, 0)
		binary.LittleEndian.PutUint16(b[18:], uint16(elf.EM_X86_64))
		b[20] = 1
		if err := os.WriteFile(filepath.Join(lib, name), b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write("liba.so", "libb.so")
	write("libb-real.so", "liba.so")
	// absolute as that host sees it
	if err := os.Symlink("/usr/lib/libb-real.so", filepath.Join(lib, "libb.so")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("usr/lib", filepath.Join(root, "lib")); err != nil {
		t.Fatal(err)
	}
	r := checked(t, []string{"/lib/liba.so"}, Options{Root: root})
	if r.Loaded != 2 || len(r.Findings) != 0 {
		t.Errorf("got %d files and %+v, want 2 and nothing", r.Loaded, r.Findings)
	}
	for i, to := range []string{"../../../../../../../../etc/passwd", "/../../etc/passwd", "libb.so"} {
		os.Remove(filepath.Join(lib, "libb.so"))
		if err := os.Symlink(to, filepath.Join(lib, "libb.so")); err != nil {
			t.Fatal(err)
		}
		r := checked(t, []string{"/lib/liba.so"}, Options{Root: root})
		if len(r.Findings) != 1 || r.Findings[0].Problem != MissingLibrary || r.Loaded != 1 {
			t.Errorf("link %d: got %d files and %+v, want a missing library", i, r.Loaded, r.Findings)
		}
	}
}

func FuzzReport(f *testing.F) {
	f.Add(encodeReport(&Report{Programs: 1, Skipped: []string{"/a"}, Findings: []Finding{{Problem: MissingSymbol, Severity: Break, Object: "/a", Near: []string{"/a", "b"}}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ok := decodeReport(b)
		if !ok {
			return
		}
		again, ok := decodeReport(encodeReport(r))
		if !ok || len(again.Findings) != len(r.Findings) || again.References != r.References {
			t.Errorf("got %+v, %v, want %+v", again, ok, r)
		}
	})
}

// Many files that each ask for as much as one may are not worth more time than
// their number is: what is left of the work for all is shared.
func TestWorkForAll(t *testing.T) {
	root := t.TempDir()
	var dirs, names []string
	for i := range 1000 {
		dirs = append(dirs, "/nowhere/"+strconv.Itoa(i))
	}
	for i := range 20 {
		names = append(names, "libnone.so."+strconv.Itoa(i))
	}
	put(t, root, "lib/libmuch.so", tiny{runpath: strings.Join(dirs, ":"), needed: names})
	for _, done := range []int{0, 20 * maxProbes} {
		c, err := newChecker(Options{Root: root}, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.probes = done
		err = c.run(context.Background(), []string{"/lib/libmuch.so"})
		c.objects.close()
		if err != nil {
			t.Fatal(err)
		}
		if got, want := c.result.Findings[0].Problem == BadFile, done > 0; got != want {
			t.Errorf("after %d: got %+v, want it given up: %v", done, c.result.Findings[0], want)
		}
		if c.probes > done+probesEach+len(names)*len(dirs) {
			t.Errorf("after %d: got %d more", done, c.probes-done)
		}
	}
}
