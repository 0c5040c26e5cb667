package linkcheck

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// indexed is a root with a library, a library that needs it, and a program that
// needs that one.
func indexed(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	put(t, root, "usr/lib/liba.so.1.0", tiny{soname: "liba.so.1"})
	put(t, root, "usr/lib/libb.so.1", tiny{soname: "libb.so.1", needed: []string{"liba.so.1"}})
	put(t, root, "usr/bin/p", tiny{needed: []string{"libb.so.1"}})
	put(t, root, "usr/bin/q", tiny{needed: []string{"libother.so"}})
	put(t, root, "opt/app/.moult/generations/1/bin/r", tiny{needed: []string{"liba.so"}})
	for at, to := range map[string]string{
		"usr/lib/liba.so.1": "liba.so.1.0", "usr/lib/liba.so": "liba.so.1", "lib": "usr/lib",
		"opt/app/.moult/live": "generations/1", "opt/app/bin": ".moult/live/bin",
	} {
		if err := os.Symlink(to, filepath.Join(root, at)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func put(t *testing.T, root, name string, l tiny) {
	t.Helper()
	l.machine, l.wide = elf.EM_X86_64, true
	p := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, l.bytes(), 0o755); err != nil {
		t.Fatal(err)
	}
}

func refreshed(t *testing.T, ix *Index, root string, want bool) {
	t.Helper()
	changed, err := ix.Refresh(context.Background(), Options{Root: root})
	if err != nil || changed != want {
		t.Errorf("got changed %v, %v, want %v", changed, err, want)
	}
}

func dependants(ix *Index, libraries ...string) (paths []string) {
	for _, d := range ix.Dependants(libraries...) {
		p := d.Path
		if d.Direct {
			p += " direct"
		}
		paths = append(paths, p)
	}
	return paths
}

func TestDependants(t *testing.T) {
	root := indexed(t)
	ix := &Index{}
	refreshed(t, ix, root, true)
	refreshed(t, ix, root, false)
	want := []string{"/opt/app/bin/r direct", "/usr/bin/p", "/usr/lib/libb.so.1 direct"}
	if got := dependants(ix, "/usr/lib/liba.so.1.0"); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := dependants(ix, "/usr/lib/libother.so"); !slices.Equal(got, []string{"/usr/bin/q direct"}) {
		t.Errorf("got %q, want what needs a library that is not there", got)
	}
	if got := dependants(ix, "/usr/bin/p"); len(got) != 0 {
		t.Errorf("got %q, want nobody", got)
	}

	// What was written is what is read, and up to date.
	var b bytes.Buffer
	if err := ix.Write(&b); err != nil {
		t.Fatal(err)
	}
	whole := b.Bytes()
	again, err := ReadIndex(bytes.NewReader(whole))
	if err != nil || !slices.Equal(again.Paths(), ix.Paths()) {
		t.Errorf("got %q, %v, want %q", again.Paths(), err, ix.Paths())
	}
	refreshed(t, again, root, false)
	for _, bad := range [][]byte{nil, whole[:len(whole)-1], append([]byte("x"), whole...), bytes.Replace(whole, []byte("libb"), []byte("libc"), 1)} {
		if ix, err := ReadIndex(bytes.NewReader(bad)); err != nil || len(ix.Paths()) != 0 {
			t.Errorf("%d bytes: got %q, %v, want an empty index", len(bad), ix.Paths(), err)
		}
	}

	// Changes are seen: in place, by a new name, by removal.
	put(t, root, "usr/bin/q", tiny{needed: []string{"libb.so.1"}})
	put(t, root, "usr/bin/new", tiny{needed: []string{"libb.so.1"}})
	if err := os.Remove(filepath.Join(root, "usr/bin/p")); err != nil {
		t.Fatal(err)
	}
	refreshed(t, again, root, true)
	want = []string{"/usr/bin/new direct", "/usr/bin/q direct"}
	if got := dependants(again, "/usr/lib/libb.so.1"); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The report of a host is remembered as long as nothing changes.
func TestIndexCheck(t *testing.T) {
	root := indexed(t)
	ix := &Index{}
	refreshed(t, ix, root, true)
	o := Options{Root: root}
	first, err := ix.Check(context.Background(), o)
	if err != nil || first.Loaded == 0 {
		t.Fatalf("got %+v, %v, want a report", first, err)
	}
	var b bytes.Buffer
	if err := ix.Write(&b); err != nil {
		t.Fatal(err)
	}
	if ix, err = ReadIndex(&b); err != nil {
		t.Fatal(err)
	}
	refreshed(t, ix, root, false)
	key := ix.memory.key
	second, err := ix.Check(context.Background(), o)
	if err != nil || len(second.Findings) != len(first.Findings) || second.Loaded != first.Loaded || key == "" || ix.memory.key != key {
		t.Errorf("got %+v, %v, want %+v, remembered", second, err, first)
	}
	put(t, root, "usr/bin/another", tiny{needed: []string{"libnowhere.so"}})
	refreshed(t, ix, root, true)
	third, err := ix.Check(context.Background(), o)
	if err != nil || len(third.Findings) <= len(first.Findings) {
		t.Errorf("got %d findings, %v, want more than %d", len(third.Findings), err, len(first.Findings))
	}
}

// More names than the kernel gives at once, and the loader's among them.
func TestIndexOfManyNames(t *testing.T) {
	root := t.TempDir()
	put(t, root, "usr/lib/liba.so.1", tiny{soname: "liba.so.1"})
	for i := range 900 {
		name := fmt.Sprintf("%04d-%s", i, strings.Repeat("n", 150))
		if i%300 == 299 {
			put(t, root, "usr/lib/"+name, tiny{needed: []string{"liba.so.1"}})
			continue
		}
		if err := os.WriteFile(filepath.Join(root, "usr/lib", name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var ix Index
	refreshed(t, &ix, root, true)
	if got := ix.Paths(); len(got) != 4 {
		t.Errorf("got %q, want the library and three that need it", got)
	}
	refreshed(t, &ix, root, false)
}
