package stale

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMapped: what the kernel answers is what it prints, whatever the files are
// called; and with parts that lie side by side each file comes once.
func TestMapped(t *testing.T) {
	dir := t.TempDir()
	page := os.Getpagesize()
	text := make([]byte, 3*page)
	for _, name := range []string{"plain", "a\nb", `a\012b`, "gone", "é\xff", " x", "gone too (deleted)"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		mem, err := unix.Mmap(int(f.Fd()), 0, len(text), unix.PROT_READ, unix.MAP_PRIVATE)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Munmap(mem)
		if err := unix.Mprotect(mem[page:2*page], unix.PROT_NONE); err != nil { // three parts
			t.Fatal(err)
		}
		if name[0] == 'g' {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	var literal unix.Stat_t // not a newline, though maps shows one
	if err := unix.Lstat(filepath.Join(dir, `a\012b`), &literal); err != nil {
		t.Fatal(err)
	}
	p, err := openProcess("/proc", os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	fd, err := openAt(p.dir, "maps", unix.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	_, err = new(asker).next(fd, 0)
	asked := err == nil // Linux 6.11
	got, want := map[string]int{}, map[string]int{}
	for m, err := range p.mapped() {
		if err != nil {
			t.Fatal(err)
		}
		got[fmt.Sprintf("%d %q", m.ino, m.path)]++
	}
	for m, err := range p.mappings() {
		if err != nil {
			t.Fatal(err)
		}
		name := m.names()[0]
		if m.ino == literal.Ino {
			name = string(m.path)
		}
		want[fmt.Sprintf("%d %q", m.ino, name)]++
	}
	if g, w := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)); !slices.Equal(g, w) {
		t.Errorf("asked, got\n%q\nread, want\n%q", g, w)
	}
	for key, n := range got {
		if asked && n > 1 && want[key] == 3 {
			t.Errorf("%s came %d times, want once", key, n)
		}
	}
	if len(got) < 7 {
		t.Errorf("got %d files, want those of this test at least", len(got))
	}
}
