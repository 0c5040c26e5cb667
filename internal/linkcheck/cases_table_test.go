package linkcheck

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
)

// breaking are changes that break what loads the library, or the program.
var breaking = []loadCase{
	{name: "function gone", old: plain, new: newLib(`int bar(void){return 0;}`), want: []string{"break missing-symbol main foo"}},
	{
		name: "variable gone", old: func(w *world) {
			w.lib("libx", `int v = 1; int bar(void){return 0;}`)
			w.lib("liby", `extern int v; int y(void){return v-1;}`, "-lx")
			w.cc("bin/main", `int y(void); int main(void){return y();}`, "-ly", "-Wl,-rpath-link,"+w.at("lib"), "-Wl,--disable-new-dtags,-rpath,$ORIGIN/../lib")
		},
		new: newLib(`int bar(void){return 0;}`), want: []string{"break missing-symbol liby.so.1 v"},
	},
	{
		name: "version gone", old: versioned,
		new:  func(w *world) { w.lib("libx", fooLib, w.script("V2 { global: foo; bar; local: *; };")) },
		want: []string{"break missing-version main"},
	},
	{
		name: "symbol moved to another version", old: versioned,
		new: func(w *world) {
			w.lib("libx", fooLib, w.script("V1 { global: bar; local: *; }; V2 { global: foo; } V1;"))
		},
		want: []string{"break missing-symbol main foo"},
	},
	{
		name: "newer C library wanted", old: plain,
		new: func(w *world) {
			w.prog(fooMain, "-lx")
			w.patch("bin/main", wantNewerLibc)
		},
		want: []string{"break newer-libc main"},
	},
	{name: "versions gone altogether", old: versioned, new: newLib(fooLib), want: []string{"break no-versions main"}},
	{name: "library removed", old: plain, new: func(*world) {}, removed: []string{"lib/libx.so.1"}, want: []string{"break missing-library main"}},
	{
		name: "library moved", old: plain,
		new:     func(w *world) { w.cc("lib/private/libx.so.1", fooLib, "-shared", "-fPIC", "-Wl,-soname,libx.so.1") },
		removed: []string{"lib/libx.so.1"}, want: []string{"break missing-library main"},
	},
	{
		name: "run path no longer inherited", old: func(w *world) { inherited(w, "-Wl,--disable-new-dtags,-rpath,$ORIGIN/../lib") },
		new: func(w *world) {
			w.cc("bin/main", `int y(void); int main(void){return y();}`, "-ly", "-Wl,-rpath-link,"+w.with+"/lib", runPathHere)
		},
		want: []string{"break missing-library liby.so.1"},
	},
	{
		name: "copied object grew", silent: true,
		old:  func(w *world) { copied(w, `int v[4] = {1};`) },
		new:  newLib(`int v[8] = {1};`),
		want: []string{"break copy-size main v"},
	},
	{
		name: "copied object is a function", silent: true,
		old:  func(w *world) { copied(w, `int v[4] = {1};`) },
		new:  newLib(`int v(void){return 0;}`),
		want: []string{"break kind-changed main v"},
	},
	{name: "function became data", silent: true, old: plain, new: newLib(`int foo = 7; int bar(void){return 0;}`), want: []string{"break kind-changed main foo"}},
	{
		name: "thread-local variable no longer is one", silent: true,
		old: func(w *world) {
			w.lib("libx", `__thread int v = 1;`)
			w.prog(`extern __thread int v; int main(void){return v-1;}`, "-lx")
		},
		new: newLib(`int v = 1;`), want: []string{"break kind-changed main v"},
	},
	{
		name: "variable became thread-local", silent: true,
		old: func(w *world) {
			w.lib("libx", `int v = 1;`)
			w.lib("liby", `extern int v; int y(void){return v-1;}`, "-lx", "-Wl,-rpath,$ORIGIN")
			w.prog(`int y(void); int main(void){return y();}`, "-ly", "-Wl,-rpath-link,"+w.at("lib"))
		},
		new: newLib(`__thread int v = 1;`), want: []string{"break kind-changed liby.so.1 v"},
	},
	{name: "symbol hidden", old: plain, new: newLib(`__attribute__((visibility("hidden"))) int foo(void){return 0;} int bar(void){return 0;}`), want: []string{"break missing-symbol main foo"}},
	{
		name: "library for another machine", old: plain,
		new: func(w *world) {
			w.lib("libx", fooLib)
			w.patch("lib/libx.so.1", func(b []byte) []byte {
				binary.LittleEndian.PutUint16(b[18:], uint16(elf.EM_AARCH64))
				return b
			})
		},
		want: []string{"break missing-library main"},
	},
	{
		name: "library of a library removed", old: func(w *world) { inherited(w, "-Wl,--disable-new-dtags,-rpath,$ORIGIN/../lib") },
		new: func(*world) {}, removed: []string{"lib/libx.so.1"}, want: []string{"break missing-library liby.so.1"},
	},
	{
		name: "other major", old: plain,
		new:     func(w *world) { w.cc("lib/libx.so.2", fooLib, "-shared", "-fPIC", "-Wl,-soname,libx.so.2") },
		removed: []string{"lib/libx.so.1"}, want: []string{"break missing-library main"},
	},
	{
		name: "plugin misses a symbol of its host", silent: true, old: plugged,
		new:     func(w *world) { w.prog(`int host_api2(void){return 0;} int main(void){return 0;}`, "-rdynamic") },
		plugins: map[string][]string{"lib/plugin.so": {"bin/main"}},
		want:    []string{"break missing-symbol plugin.so host_api"},
	},
	{
		name: "plugin wants too much static storage", silent: true, old: plugged,
		new: func(w *world) {
			w.cc("lib/plugin.so", `__thread __attribute__((tls_model("initial-exec"))) char v[9000]; char* f(void){return v;}`, "-shared", "-fPIC")
		},
		plugins: map[string][]string{"lib/plugin.so": {"bin/main"}},
		want:    []string{"warning static-tls plugin.so"},
	},
	{
		name: "interpreter is not here", old: plain,
		new:  func(w *world) { w.prog(fooMain, "-lx", "-Wl,--dynamic-linker=/lib64/ld-elsewhere.so.2") },
		want: []string{"break missing-interpreter main"},
	},
	{
		name: "library cut short", old: plain,
		new: func(w *world) {
			w.lib("libx", fooLib)
			w.patch("lib/libx.so.1", func(b []byte) []byte { return b[:len(b)/3] })
		},
		want: []string{"break bad-file libx.so.1"},
	},
	{
		name: "library is a text", old: plain, new: func(w *world) { w.write(w.at("lib/libx.so.1"), "INPUT(libx.so.2)\n") },
		want: []string{"break bad-file libx.so.1"},
	},
	{
		name: "library needs what is not there", old: plain,
		new: func(w *world) {
			w.cc("lib/libz9.so", `int z9(void){return 0;}`, "-shared", "-fPIC", "-Wl,-soname,libz9.so.1")
			w.lib("libx", `int z9(void); int foo(void){return z9();} int bar(void){return 0;}`, "-lz9")
			os.Remove(w.at("lib/libz9.so"))
		},
		want: []string{"break missing-library libx.so.1"},
	},
	{
		name: "function gone, no section headers", old: plain,
		new: func(w *world) {
			w.lib("libx", `int bar(void){return 0;}`)
			w.patch("lib/libx.so.1", stripHeaders)
		},
		want: []string{"break missing-symbol main foo"},
	},
	{
		name: "library lacks a symbol itself", old: plain,
		new:  newLib(`int nobody_has_this(void); int foo(void){return nobody_has_this();} int bar(void){return 0;}`),
		want: []string{"break missing-symbol libx.so.1 nobody_has_this"},
	},
	{
		name: "C++ parameters changed",
		old: func(w *world) {
			w.lib("libx", "//C++\nstruct S { int get(int); }; int S::get(int v) { return v; }")
			w.prog("//C++\nstruct S { int get(int); }; int main() { S s; return s.get(0); }", "-lx")
		},
		new:  newLib("//C++\nstruct S { int get(long); }; int S::get(long v) { return v; }"),
		want: []string{"break missing-symbol main _ZN1S3getEi"},
	},
	{
		name: "reference to another's thread-local variable is protected", silent: true, // glibc divides by nought
		old: func(w *world) {
			w.lib("liby", `__thread int far = 1;`)
			w.lib("libx", borrowsTLS, "-ly", "-Wl,-rpath,$ORIGIN")
			w.prog(fooMain, "-lx", "-Wl,-rpath-link,"+w.at("lib"))
		},
		new: func(w *world) {
			w.lib("libx", borrowsTLS, "-l:liby.so.1", "-Wl,-rpath,$ORIGIN")
			w.patch("lib/libx.so.1", protectReferences)
		},
		want: []string{"break bad-file libx.so.1"},
	},
	{
		name: "copied object is protected in the program", silent: true, // glibc copies it from nowhere
		old: func(w *world) { copied(w, `int v[4] = {0};`) },
		new: func(w *world) {
			w.prog(`extern int v[4]; int main(void){return v[0] > 1;}`, "-l:libx.so.1", "-fno-pie", "-no-pie")
			w.patch("bin/main", protectReferences)
		},
		want: []string{"break bad-file main"},
	},
	{
		name: "only a weak definition of another kind is left", silent: true, old: plain,
		new:  newLib(`__attribute__((weak)) int foo = 1; int bar(void){return 0;}`),
		want: []string{"break kind-changed main foo"},
	},
}

// fine are changes that look like it and break nothing.
var fine = []loadCase{
	{name: "unused symbol gone", old: plain, new: newLib(`int foo(void){return 0;}`)},
	{name: "symbols added", old: plain, new: newLib(fooLib + ` int baz(void){return 0;}`)},
	{
		name: "symbol moved to a library that is needed now",
		old:  func(w *world) { plain(w); w.lib("liby", `int other(void){return 0;}`) },
		new: func(w *world) {
			w.lib("liby", `int foo(void){return 0;}`)
			w.lib("libx", `int foo(void); int bar(void){return foo();}`, "-Wl,--no-as-needed", "-l:liby.so.1", "-Wl,-rpath,$ORIGIN")
		},
	},
	{
		name: "old version kept beside the default", old: versioned,
		new: func(w *world) {
			w.lib("libx", `__asm__(".symver foo1,foo@V1"); __asm__(".symver foo2,foo@@V2"); int foo1(void){return 0;} int foo2(void){return 1;} int bar(void){return 0;}`,
				w.script("V1 { global: foo; bar; local: *; }; V2 { global: foo; } V1;"))
		},
	},
	{name: "no section headers", old: plain, new: func(w *world) { w.lib("libx", fooLib); w.patch("lib/libx.so.1", stripHeaders) }},
	{
		name: "weak reference to nothing", old: plain,
		new: newLib(`__attribute__((weak)) int optional(void); int foo(void){return optional ? optional() : 0;} int bar(void){return 0;}`),
	},
	{
		name: "function chosen at run time", old: plain,
		new: newLib(`static int f(void){return 0;} static void* pick(void){return f;} int foo(void) __attribute__((ifunc("pick"))); int bar(void){return 0;}`),
	},
	{name: "packed relocations", old: plain, new: newLib(fooLib+` void* table[64] = {&foo, &bar};`, "-Wl,-z,pack-relative-relocs")},
	{name: "aligned to 64 KB", old: plain, new: newLib(fooLib, "-Wl,-z,max-page-size=65536")},
	{name: "protected function", old: plain, new: newLib(`__attribute__((visibility("protected"))) int foo(void){return 0;} int bar(void){return 0;}`)},
	{
		name: "versions are new", old: plain,
		new: func(w *world) { w.lib("libx", fooLib, w.script("V1 { global: foo; bar; local: *; };")) },
	},
	{
		name: "file has another name, and a link", old: plain,
		new: func(w *world) {
			w.cc("lib/libx.so.1.7", fooLib, "-shared", "-fPIC", "-Wl,-soname,libx.so.1")
			if err := os.Symlink("libx.so.1.7", w.at("lib/libx.so.1")); err != nil {
				w.t.Fatal(err)
			}
		},
	},
	{name: "copied object keeps its size", old: func(w *world) { copied(w, `int v[4] = {0};`) }, new: newLib(`int v[4] = {0, 2};`)},
	{name: "only the old kind of hash table", old: plain, new: newLib(fooLib, "-Wl,--hash-style=sysv")},
	{
		name: "plugin and host change together", silent: true, old: plugged,
		new: func(w *world) {
			w.prog(`int host_api2(void){return 0;} int main(void){return 0;}`, "-rdynamic")
			w.cc("lib/plugin.so", `int host_api2(void); int plug(void){return host_api2();}`, "-shared", "-fPIC")
		},
		plugins: map[string][]string{"lib/plugin.so": {"bin/main"}},
	},
	{
		name: "a library comes before the one that was meant",
		old: func(w *world) {
			w.lib("liby", `int other(void){return 0;}`, w.script("V1 { global: other; local: *; };"))
			w.lib("libx", fooLib, w.script("V1 { global: foo; bar; local: *; };"))
			w.prog(`int foo(void); int other(void); int main(void){return foo()+other();}`, "-ly", "-lx")
		},
		new: func(w *world) {
			w.lib("liby", `int other(void){return 0;} int foo(void){return 0;}`, w.script("V1 { global: other; foo; local: *; };"))
		},
		want: []string{"note interposed main foo"},
	},
	{
		name: "SONAME of another major in the old file name", old: plain, new: newLib(fooLib, "-Wl,-soname,libx.so.2"),
		want: []string{"warning soname-differs main"},
	},
	{
		name: "copied object shrank", old: func(w *world) { copied(w, `int v[4] = {0};`) }, new: newLib(`int v[2] = {0};`),
		want: []string{"warning copy-size main v"},
	},
}

// inherited: main needs liby, which needs libx and has no run path of its own.
func inherited(w *world, runPath string) {
	w.lib("libx", fooLib)
	w.lib("liby", `int foo(void); int y(void){return foo();}`, "-lx")
	w.cc("bin/main", `int y(void); int main(void){return y();}`, "-ly", "-Wl,-rpath-link,"+w.at("lib"), runPath)
}

// copied: a program with a copy relocation.
func copied(w *world, src string) {
	w.lib("libx", src)
	w.prog(`extern int v[4]; int main(void){return v[0] > 1;}`, "-lx", "-fno-pie", "-no-pie")
}

// plugged: a host that loads a plugin by name.
func plugged(w *world) {
	w.prog(`int host_api(void){return 0;} int main(void){return 0;}`, "-rdynamic")
	w.cc("lib/plugin.so", `int host_api(void); int plug(void){return host_api();}`, "-shared", "-fPIC")
}

// borrowsTLS uses a thread-local variable and has none.
const borrowsTLS = `extern __thread int far __attribute__((tls_model("initial-exec"))); int foo(void){return far-1;}`

// protectReferences makes a file take what it refers to for its own.
func protectReferences(b []byte) []byte {
	im, err := parseImage(b)
	if err != nil {
		return b
	}
	for i := range im.symbolCount() {
		if s, ok := im.symbol(uint32(i)); ok && (s.section == uint16(elf.SHN_UNDEF) || s.kind() == elf.STT_OBJECT) {
			im.symtab[i*im.symbolSize()+5] |= byte(elf.STV_PROTECTED)
		}
	}
	return b
}

// wantNewerLibc lets a program want a version that no C library has yet.
func wantNewerLibc(b []byte) []byte {
	old, wanted := []byte("GLIBC_2.34\x00"), []byte("GLIBC_9.99\x00")
	hash := func(name []byte) []byte {
		return binary.LittleEndian.AppendUint32(nil, sysvHashOf(name[:len(name)-1]))
	}
	return bytes.Replace(bytes.ReplaceAll(b, old, wanted), hash(old), hash(wanted), 1)
}
