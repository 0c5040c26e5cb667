package linkcheck

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"moult.example/internal/testneed"
)

// The loader of musl has rules of its own: one search path, run paths that are
// inherited in either form, and no versions.
func TestMusl(t *testing.T) {
	testneed.Tool(t, "musl-gcc")
	musl := []string{"-specs", muslSpecs(t)}
	lib := func(w *world, name, src string, args ...string) {
		w.lib(name, src, append(append([]string{}, args...), musl...)...)
	}
	simple := func(w *world) {
		lib(w, "libx", fooLib)
		w.prog(fooMain, append([]string{"-lx"}, musl...)...)
	}
	for _, c := range []loadCase{
		{name: "function gone", old: simple, new: func(w *world) { lib(w, "libx", `int bar(void){return 0;}`) }, want: []string{"break missing-symbol main foo"}},
		{name: "library removed", old: simple, new: func(*world) {}, removed: []string{"lib/libx.so.1"}, want: []string{"break missing-library main"}},
		{name: "version gone", new: func(w *world) { lib(w, "libx", fooLib, w.script("V2 { global: foo; bar; local: *; };")) }, old: func(w *world) {
			lib(w, "libx", fooLib, w.script("V1 { global: foo; bar; local: *; };"))
			w.prog(fooMain, append([]string{"-lx"}, musl...)...)
		}},
		{
			name: "run path is inherited", old: func(w *world) {
				lib(w, "libx", fooLib)
				lib(w, "liby", `int foo(void); int y(void){return foo();}`, "-lx")
				w.cc("bin/main", `int y(void); int main(void){return y();}`, append([]string{"-ly", "-Wl,-rpath-link," + w.at("lib"), runPathHere}, musl...)...)
			},
			new: func(w *world) { lib(w, "libx", fooLib+` int more(void){return 1;}`) },
		},
		{name: "weak reference to nothing", old: simple, new: func(w *world) {
			lib(w, "libx", `__attribute__((weak)) int optional(void); int foo(void){return optional ? optional() : 0;} int bar(void){return 0;}`)
		}},
	} {
		t.Run(c.name, c.run)
	}
}

// muslSpecs is where Debian and others keep what musl-gcc gives to gcc.
func muslSpecs(t *testing.T) string {
	var found []string
	for _, pattern := range []string{"/usr/lib/*-linux-musl/musl-gcc.specs", "/usr/*-linux-musl/lib*/musl-gcc.specs", "/usr/lib/musl-gcc.specs"} {
		m, _ := filepath.Glob(pattern)
		found = append(found, m...)
	}
	slices.Sort(found)
	for _, p := range found {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	testneed.Skip(t, "musl-gcc is here and its specs are not")
	return ""
}
