package deploy

import (
	"os"
	"path/filepath"
	"testing"

	"moult.example/internal/testneed"
)

// A release may bring a newer library than the host's, to which a script leads
// by LD_LIBRARY_PATH; and no other program is judged with that.
func TestLinksOwnLibraries(t *testing.T) {
	for _, versioned := range []bool{false, true} {
		dir, all := t.TempDir(), t.TempDir()
		flags := []string{"-shared", "-fPIC", "-Wl,-soname,libm.so.6"} // every host has an older one
		must(t, os.WriteFile(all+"/map", []byte("MOULT_9 { global: brandnew; };\n"), 0o644))
		if versioned {
			flags = append(flags, "-Wl,--version-script="+all+"/map")
		}
		cc(t, dir, "lib/libm.so.6", "int brandnew(void) { return 0; }", flags...)
		cc(t, dir, "bin/app", "int brandnew(void); int main(void) { return brandnew(); }", dir+"/lib/libm.so.6")
		cc(t, dir, "bin/other", "double cos(double); int main(int n, char **v) { return cos(n) > 2; }", "-fno-builtin", "-lm")
		target := open(t, filepath.Join(t.TempDir(), "app"))
		if _, err := deliverDir(t, target, dir, false, ApplyOptions{}); err != nil {
			t.Errorf("versions %v: got %v, want it applied", versioned, err)
			continue
		}
		cc(t, dir, "lib/libm.so.6", "int another(void) { return 0; }", "-shared", "-fPIC", "-Wl,-soname,libm.so.6")
		_, err := deliverDir(t, target, dir, false, ApplyOptions{})
		wantRefused(t, err, "bin/app", map[bool]string{false: "brandnew", true: "MOULT_9"}[versioned])
		// Told once, it is nothing new.
		_, err = deliverDir(t, target, dir, false, ApplyOptions{Links: LinksWarn})
		must(t, err)
		cc(t, dir, "lib/libm.so.6", "int other(void) { return 0; }", "-shared", "-fPIC", "-Wl,-soname,libm.so.6")
		if _, err = deliverDir(t, target, dir, false, ApplyOptions{}); err != nil {
			t.Errorf("versions %v: got %v, want what was broken before to be no reason", versioned, err)
		}
	}
}

// What cannot be started here is no reason to refuse: files of other systems,
// the root directory of a container, test data, what is started in a directory of
// its own.
func TestLinksElsewhere(t *testing.T) {
	program := "int main(void) { return 0; }"
	interp := func(path string) string { return "-Wl,--dynamic-linker=" + path }
	for _, test := range []struct {
		name    string
		make    func(dir string)
		refused bool
	}{
		{name: "its loader is nowhere", refused: true, make: func(dir string) {
			cc(t, dir, "bin/app", program, interp("/lib/ld-nowhere.so.1"))
		}},
		{name: "its loader is in the tree", make: func(dir string) {
			cc(t, dir, "tree/bin/app", program, interp("/lib/ld-nowhere.so.1"))
			must(t, os.Mkdir(dir+"/tree/lib", 0o755))
			must(t, os.Symlink("libc.so", dir+"/tree/lib/ld-nowhere.so.1"))
		}},
		{name: "its loader is no absolute path", make: func(dir string) { cc(t, dir, "bin/app", program, interp("lib/ld.so")) }},
		{name: "OpenBSD", make: func(dir string) { cc(t, dir, "bin/app", program, interp("/usr/libexec/ld.so")) }},
		{name: "FreeBSD, by its header", make: func(dir string) {
			cc(t, dir, "bin/app", program, interp("/lib/ld-nowhere.so.1"))
			data, err := os.ReadFile(dir + "/bin/app")
			must(t, err)
			data[7] = 9 // EI_OSABI
			must(t, os.WriteFile(dir+"/bin/app", data, 0o755))
		}},
		{name: "nobody may execute it", make: func(dir string) {
			cc(t, dir, "testdata/app", program, interp("/lib/ld-nowhere.so.1"))
			must(t, os.Chmod(dir+"/testdata/app", 0o644))
		}},
		{name: "a library by a relative path", make: func(dir string) {
			cc(t, dir, "lib/libx.so", "int one(void) { return 0; }", "-shared", "-fPIC", "-Wl,-soname,./lib/libx.so")
			cc(t, dir, "bin/app", "int one(void); int main(void) { return one(); }", dir+"/lib/libx.so")
		}},
		{name: "one that is not there", refused: true, make: func(dir string) {
			cc(t, dir, "lib/libx.so", "int one(void) { return 0; }", "-shared", "-fPIC", "-Wl,-soname,./lib/libx.so")
			cc(t, dir, "bin/app", "int one(void); int main(void) { return one(); }", dir+"/lib/libx.so")
			must(t, os.Remove(dir+"/lib/libx.so"))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			testneed.Tool(t, "cc")
			dir := t.TempDir()
			test.make(dir)
			_, err := deliverDir(t, open(t, filepath.Join(t.TempDir(), "app")), dir, false, ApplyOptions{})
			if test.refused {
				wantRefused(t, err, "not")
			} else if err != nil {
				t.Errorf("got %v, want it applied", err)
			}
		})
	}
}

// Files that stay where they are, and are no longer what others need, or no
// longer anything that this host runs, refuse an update.
func TestLinksLost(t *testing.T) {
	edit := func(name string, at int, b byte) func(string) {
		return func(dir string) {
			data, err := os.ReadFile(dir + "/" + name)
			must(t, err)
			data[at] = b
			must(t, os.WriteFile(dir+"/"+name, data, 0o755))
		}
	}
	cut := func(name string, size int64) func(string) {
		return func(dir string) { must(t, os.Truncate(dir+"/"+name, size)) }
	}
	const lib = "lib/libx.so.1"
	for _, test := range []struct {
		name string
		make func(dir string)
		want string
	}{
		{"an empty library", cut(lib, 0), "invalid ELF header"},
		{"a library of 30 bytes", cut(lib, 30), "too short"},
		{"an object file", edit(lib, 16, 1), "neither a program"},
		{"a library of 32 bits", edit(lib, 4, 1), "another machine"},
		{"a library of FreeBSD", edit(lib, 7, 9), "another system"},
		{"a library of another version of the system", edit(lib, 8, 1), "version"},
		{"a directory", func(dir string) {
			must(t, os.Remove(dir+"/"+lib))
			must(t, os.MkdirAll(dir+"/"+lib+"/x", 0o755))
		}, "libx.so.1"},
		{"a program cut short", cut("bin/app", 40), "malformed"},
		{"a program without its headers' table", cut("bin/app", 500), "malformed"},
		{"a program for ARM", edit("bin/app", 18, 183), "another machine"},
		{"a directory of another name", func(dir string) { must(t, os.Rename(dir+"/lib", dir+"/libs")) }, "not found"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, layout := range []Layout{Owned, Shared} {
				target := open(t, filepath.Join(t.TempDir(), "app"))
				if _, err := deliverDir(t, target, linked(t, "one", "two"), false, ApplyOptions{Layout: layout}); err != nil {
					t.Fatal(err)
				}
				dir := linked(t, "one", "two")
				test.make(dir)
				_, err := deliverDir(t, target, dir, false, ApplyOptions{Layout: layout})
				wantRefused(t, err, test.want)
			}
		})
	}
}
