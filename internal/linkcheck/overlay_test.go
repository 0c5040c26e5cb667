package linkcheck

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"moult.example/internal/testneed"
)

// seen is what a check finds, in words.
func seen(t *testing.T, o Options, paths ...string) (all []string) {
	t.Helper()
	for _, f := range checked(t, paths, o).Findings {
		all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s %s", f.Problem, f.Object, f.Needs)))
	}
	return all
}

// A root in which /usr/bin/p needs libx.so.1 and has no run path.
func overlaid(t *testing.T) (root, staged string) {
	t.Helper()
	root, staged = t.TempDir(), t.TempDir()
	put(t, root, "usr/bin/p", tiny{needed: []string{"libx.so.1"}})
	put(t, root, "usr/lib/other.so", tiny{soname: "other.so"})
	put(t, staged, "libx.so.1", tiny{soname: "libx.so.1"})
	put(t, staged, "tree/deep/libx.so.1", tiny{soname: "libx.so.1"})
	put(t, staged, "libx-3.so", tiny{soname: "libx.so.1"})
	if err := os.Symlink("usr/lib", filepath.Join(root, "lib")); err != nil {
		t.Fatal(err)
	}
	return root, staged
}

func TestOverlay(t *testing.T) {
	root, staged := overlaid(t)
	at := func(name string) string { return filepath.Join(staged, name) }
	conf := filepath.Join(root, "etc/ld.so.conf.d/app.conf")
	if err := os.MkdirAll(filepath.Dir(conf), 0o755); err != nil {
		t.Fatal(err)
	}
	for p, text := range map[string]string{
		conf: "# ours\n/opt/app/lib\n", filepath.Join(root, "etc/ld.so.conf"): "include ld.so.conf.d/*.conf\n",
	} {
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	missing := []string{"missing-library /usr/bin/p libx.so.1"}
	for _, c := range []struct {
		name    string
		overlay map[string]string
		path    []string
		want    []string
	}{
		{name: "nothing", want: missing},
		{name: "in a default directory", overlay: map[string]string{"/usr/lib/libx.so.1": at("libx.so.1")}},
		{name: "through a link", overlay: map[string]string{"/lib/libx.so.1": at("libx.so.1")}},
		{name: "in a directory that nobody searches", overlay: map[string]string{"/opt/private/libx.so.1": at("libx.so.1")}, want: missing},
		{name: "in a new directory on the path", overlay: map[string]string{"/opt/new/libx.so.1": at("libx.so.1")}, path: []string{"/opt/new"}},
		{name: "a whole directory", overlay: map[string]string{"/opt/tree": at("tree")}, path: []string{"/opt/tree/deep"}},
		{name: "a directory removed", overlay: map[string]string{"/usr/lib": "", "/opt/tree": at("tree")}, want: missing},
		{name: "where ldconfig will look, by its SONAME", overlay: map[string]string{"/opt/app/lib/libx-3.so": at("libx-3.so")}},
		{name: "a library that is another's file", overlay: map[string]string{"/usr/lib/libx.so.1": filepath.Join(root, "usr/lib/other.so")}, want: []string{"soname-differs /usr/bin/p libx.so.1"}},
		{name: "the program removed", overlay: map[string]string{"/usr/bin/p": ""}, want: []string{"unread"}},
	} {
		o := Options{Root: root, Overlay: c.overlay, LibraryPath: c.path}
		if slices.Equal(c.want, []string{"unread"}) {
			r := reported(t, []string{"/usr/bin/p"}, o)
			if len(r.Unread) != 1 || r.Unread[0].Path != "/usr/bin/p" {
				t.Errorf("%s: got %+v, want a file that is not there", c.name, r)
			}
			continue
		}
		if got := seen(t, o, "/usr/bin/p"); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	if _, err := newTree("", map[string]string{"relative": ""}, nil); err == nil {
		t.Error("an overlay of a relative path: got no error")
	}
}

// A program that gains privileges has no use for what its user says.
func TestPrivileged(t *testing.T) {
	root, _ := overlaid(t)
	put(t, root, "opt/new/libx.so.1", tiny{soname: "libx.so.1"})
	put(t, root, "opt/near/bin/q", tiny{needed: []string{"libx.so.1"}, runpath: "$ORIGIN/../lib"})
	put(t, root, "opt/near/lib/libx.so.1", tiny{soname: "libx.so.1"})
	o := Options{Root: root, LibraryPath: []string{"/opt/new"}}
	if got := seen(t, o, "/usr/bin/p", "/opt/near/bin/q"); len(got) != 0 {
		t.Errorf("got %q, want nothing", got)
	}
	for _, p := range []string{"usr/bin/p", "opt/near/bin/q"} {
		if err := os.Chmod(filepath.Join(root, p), 0o755|os.ModeSetuid); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"missing-library /opt/near/bin/q libx.so.1", "missing-library /usr/bin/p libx.so.1"}
	if got := seen(t, o, "/usr/bin/p", "/opt/near/bin/q"); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Before glibc 2.30 a symbol had to be in the very file of which its version is
// wanted.
func TestOldLibc(t *testing.T) {
	testneed.Tool(t, "gcc")
	const libc = "/usr/lib/x86_64-linux-gnu/libc.so.6"
	b, err := os.ReadFile(libc)
	if err != nil {
		testneed.Skip(t, "no "+libc+" here")
	}
	old := &world{t: t, dir: t.TempDir()}
	old.lib("libx", fooLib, old.script("V1 { global: foo; bar; local: *; };"))
	old.prog(fooMain, "-lx")
	staged := &world{t: t, dir: t.TempDir(), with: old.dir}
	staged.lib("liby", `int foo(void){return 0;}`, staged.script("V1 { global: foo; local: *; };"))
	staged.lib("libx", `int foo(void); int bar(void){return foo();}`, staged.script("V1 { global: bar; local: *; };"), "-Wl,--no-as-needed", "-l:liby.so.1", "-Wl,-rpath,$ORIGIN")
	overlay := map[string]string{}
	for _, name := range []string{"lib/libx.so.1", "lib/liby.so.1"} {
		overlay[old.at(name)] = staged.at(name)
	}
	if got := seen(t, Options{Overlay: overlay}, old.at("bin/main")); len(got) != 0 {
		t.Errorf("with the libc that is here: got %q, want nothing", got)
	}
	from, to := []byte("GLIBC_2.30\x00"), []byte("GLIBC_2.0x\x00")
	staged.write(staged.at("libc.so.6"), string(bytes.ReplaceAll(b, from, to)))
	overlay[libc] = staged.at("libc.so.6")
	if got := seen(t, Options{Overlay: overlay}, old.at("bin/main")); slices.ContainsFunc(got, isMissingSymbol) {
		t.Errorf("with an old libc and the loader that is here: got %q, want no symbol missing", got)
	}
	loader := realPath("/lib64/ld-linux-x86-64.so.2")
	if b, err = os.ReadFile(loader); err != nil {
		t.Fatal(err)
	}
	staged.write(staged.at("ld.so"), string(bytes.ReplaceAll(b, []byte("glibc-hwcaps"), []byte("no-hwcaps-no"))))
	overlay[loader] = staged.at("ld.so")
	if got, want := seen(t, Options{Overlay: overlay}, old.at("bin/main")), "missing-symbol "+old.at("bin/main")+" libx.so.1"; !slices.Contains(got, want) {
		t.Errorf("with an old libc: got %q, want %q", got, want)
	}
}

func isMissingSymbol(finding string) bool { return strings.HasPrefix(finding, "missing-symbol ") }

// Packed relocations are the loader's matter, whatever C library is beside it; it
// refuses them only of who wants versions, and not the one of those who know them.
func TestPackedRelocations(t *testing.T) {
	testneed.Tool(t, "gcc")
	w := &world{t: t, dir: t.TempDir()}
	w.lib("libx", fooLib+` void* table[64] = {&foo, &bar};`, w.script("V1 { global: foo; bar; local: *; };"), "-Wl,-z,pack-relative-relocs", "-Wl,--no-as-needed", "-lc")
	lib := w.at("lib/libx.so.1")
	b, err := os.ReadFile(lib)
	if err != nil {
		t.Fatal(err)
	}
	im, err := parseImage(b)
	if err != nil {
		t.Fatal(err)
	}
	if !im.relr || len(im.needs) == 0 {
		testneed.Skip(t, "this linker knows no packed relocations")
	}
	overlay := map[string]string{}
	lay := func(at, from, to string) {
		t.Helper()
		b, err := os.ReadFile(at)
		if err != nil {
			t.Fatal(err)
		}
		staged := filepath.Join(w.dir, filepath.Base(at)+".laid")
		if err := os.WriteFile(staged, bytes.ReplaceAll(b, []byte(from), []byte(to)), 0o755); err != nil {
			t.Fatal(err)
		}
		overlay[at] = staged
	}
	relr := func(want bool) {
		t.Helper()
		got := seen(t, Options{Overlay: overlay}, lib)
		if slices.ContainsFunc(got, func(f string) bool { return strings.HasPrefix(f, string(RelativeNeedsLibc)) }) != want {
			t.Errorf("got %q, want %s among them: %v", got, RelativeNeedsLibc, want)
		}
	}
	relr(false)
	lay(lib, relativeVersion, "GLIBC_ABI_xx_xxxx")
	relr(true)
	lay(lib, "\xfe\xff\xff\x6f\x00\x00\x00\x00", "\x00\xfd\xff\x6f\x00\x00\x00\x00") // DT_VERNEED
	relr(false)
	lay(realPath("/lib64/ld-linux-x86-64.so.2"), relativeVersion, "GLIBC_ABI_xx_xxxx")
	relr(true)
}
