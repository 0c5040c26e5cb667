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
