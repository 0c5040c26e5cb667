package abi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"moult.example/internal/testneed"
)

// build compiles a library with debug information: the header is written beside
// the source, so that what it defines is public.
func build(t testing.TB, compiler, header, source string, flags ...string) []byte {
	t.Helper()
	tool := testneed.Tool(t, compiler)
	dir := t.TempDir()
	name := "lib.c"
	if compiler == "c++" {
		name = "lib.cpp"
	}
	write(t, dir+"/lib.h", header)
	write(t, dir+"/"+name, "#include \"lib.h\"\n"+source)
	out := filepath.Join(dir, "lib.so")
	args := append([]string{"-g", "-shared", "-fPIC", "-o", out, dir + "/" + name}, flags...)
	if text, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", tool, err, text)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func compare(t testing.TB, old, new []byte, o Options) Report {
	t.Helper()
	r, err := Compare(context.Background(), bytes.NewReader(old), bytes.NewReader(new), int64(len(old)), int64(len(new)), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Each pair of versions differs in one thing; want "" is a change that breaks no
// caller. "sure " begins what callers are certain to see.
func TestCompare(t *testing.T) {
	point := "struct point { int x, y; };\n"
	for name, tt := range map[string]struct {
		cxx            bool
		was, wasSource string
		is, isSource   string // "" is as it was
		want           string
	}{
		"the same": {was: point, wasSource: "int f(struct point *p) { return p->x; }"},
		"a parameter more": {
			wasSource: "int f(int a) { return a; }", isSource: "int f(int a, int b) { return a + b; }",
			want: "sure parameters: took 1, takes 2",
		},
		"a parameter's size": {
			wasSource: "int f(int a) { return a; }", isSource: "int f(long a) { return a; }",
			want: "sure parameter 1: was int (4 bytes), is long int (8 bytes)",
		},
		"a parameter's kind": {
			wasSource: "int f(long a) { return a; }", isSource: "int f(double a) { return a; }",
			want: "sure parameter 1: was long int (8 bytes), is double (8 bytes)",
		},
		"a sign":      {wasSource: "int f(int a) { return a; }", isSource: "int f(unsigned a) { return a; }"},
		"an enum for": {wasSource: "int f(int a) { return a; }", isSource: "enum e { A }; int f(enum e a) { return a; }"},
		"the result": {
			wasSource: "int f(void) { return 1; }", isSource: "void f(void) { }",
			want: "sure the result: was int, is void",
		},
		"what a pointer leads to": {
			wasSource: "void f(int *a) { *a = 1; }", isSource: "void f(long *a) { *a = 1; }",
			want: "sure parameter 1: was int (4 bytes), is long int (8 bytes)",
		},
		"a void pointer": {wasSource: "void f(void *a) { *(int *)a = 1; }", isSource: "void f(long *a) { *a = 1; }"},
		"by a typedef":   {was: "typedef int number;", wasSource: "number f(number a) { return a; }", isSource: "int f(int a) { return a; }"},
		"a member more, by value": {
			was: point, wasSource: "int f(struct point p) { return p.x; }", is: "struct point { int x, y, z; };",
			want: "sure struct point: was 8 bytes, is 12 bytes: who makes one makes it too small or too large",
		},
		"a member more, by pointer": {
			was: point, wasSource: "int f(struct point *p) { return p->x; }", is: "struct point { int x, y, z; };",
			want: "struct point: was 8 bytes, is 12 bytes",
		},
		"members in another order": {
			was: point, wasSource: "int f(struct point *p) { return p->x; }", is: "struct point { int y, x; };",
			want: "struct point: x was at byte 0, is at byte 4",
		},
		"a member's type": {
			was: point, wasSource: "int f(struct point *p) { return p->x; }", is: "struct point { float x; int y; };",
			want: "struct point, member x: was int (4 bytes), is float (4 bytes)",
		},
		"a member's name": {was: point, wasSource: "int f(struct point *p) { return p->y; }", is: "struct point { int width, y; };"},
		"a member that is gone": {
			was: point, wasSource: "int f(struct point *p) { return p->x; }", is: "struct point { int x; };",
			want: "struct point: y is gone",
		},
		"deep inside": {
			was: point + "struct line { struct point *from; };", wasSource: "int f(struct line **l) { return (*l)->from->x; }",
			is:   "struct point { long x; int y; }; struct line { struct point *from; };",
			want: "struct point, member x: was int (4 bytes), is long int (8 bytes)",
		},
		"private": {
			was: "struct secret;", wasSource: "struct secret { int x; }; int f(struct secret *s) { return s->x; }",
			isSource: "struct secret { int a, b, x; }; int f(struct secret *s) { return s->x; }",
		},
		"a bit field": {
			was: "struct bits { int a : 3, b : 5; };", wasSource: "int f(struct bits *s) { return s->b; }", is: "struct bits { int a : 4, b : 4; };",
			want: "struct bits: ",
		},
		"an array's length": {
			was: "extern int table[8];", wasSource: "int table[8] = { 1 };", is: "extern int table[4];", isSource: "int table[4] = { 1 };",
			want: "sure the object: was an array of 8, is one of 4",
		},
		"an enumeration's values": {
			was: "enum color { RED, GREEN };", wasSource: "int f(enum color c) { return c; }", is: "enum color { WHITE, RED, GREEN };",
			want: "sure enum color: GREEN was 1, is 2",
		},
		"a value more": {was: "enum color { RED, GREEN };", wasSource: "int f(enum color c) { return c; }", is: "enum color { RED, GREEN, BLUE };"},
		"a callback": {
			wasSource: "int f(int (*g)(int)) { return g(1); }", isSource: "int f(int (*g)(int, int)) { return g(1, 2); }",
			want: "sure parameter 1, which is a function: parameters: took 1, takes 2",
		},
		"a virtual function in between": {
			cxx: true, was: "struct shape { virtual int area(); virtual int edge(); int n; };",
			wasSource: "int shape::area() { return n; } int shape::edge() { return 1; }",
			is:        "struct shape { virtual int area(); virtual int color(); virtual int edge(); int n; };",
			isSource:  "int shape::area() { return n; } int shape::edge() { return 1; } int shape::color() { return 2; }",
			want:      "struct shape: virtual function 1 was _ZN5shape4edgeEv, is _ZN5shape5colorEv",
		},
		"a member of a class": {
			cxx: true, was: "class shape { public: int area(); private: int n; };", wasSource: "int shape::area() { return n; }",
			is:   "class shape { public: int area(); private: int m; int n; int k; };",
			want: "class shape: n was at byte 0, is at byte 4",
		},
		"in a namespace": {
			cxx: true, wasSource: "namespace a { int f(int n) { return n; } }", isSource: "namespace a { long f(int n) { return n; } }",
			want: "sure the result: was int (4 bytes), is long int (8 bytes)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			compiler := "cc"
			if tt.cxx {
				compiler = "c++"
			}
			if tt.is == "" {
				tt.is = tt.was
			}
			if tt.isSource == "" {
				tt.isSource = tt.wasSource
			}
			r := compare(t, build(t, compiler, tt.was, tt.wasSource), build(t, compiler, tt.is, tt.isSource), Options{})
			if r.Compared == 0 {
				t.Fatalf("nothing was compared: %s", r.Why)
			}
			var got []string
			for _, c := range r.Changes {
				text := c.String()
				if c.Sure {
					text = "sure " + text
				}
				got = append(got, text)
			}
			switch {
			case tt.want == "" && len(got) > 0:
				t.Errorf("got %q, want no change", got)
			case tt.want != "" && (len(got) == 0 || !strings.HasPrefix(got[0], tt.want)):
				t.Errorf("got %q, want %q first", got, tt.want)
			}
		})
	}
}

// Compilers write the same types down in several forms. One is compared with
// another, and what cannot be told in one is no change.
func TestCompareForms(t *testing.T) {
	const header = "enum e { A, B };\nunion u { int i; float f; };\nstruct in { int x; };\n" +
		"typedef struct s { char c; int a : 3, b : 5; struct in in; enum e e; union u u; struct s *next; } s_t;\n"
	const source = "int f(struct s *p) { return p->b; } s_t v; struct in g(int x, enum e e, union u *u) { struct in i = { x + e + u->i }; return i; }"
	old := build(t, "cc", header, source)
	for form, compared := range map[string]int{
		"-gdwarf-5": 3, "-gdwarf-4": 3, "-gdwarf-3 -gstrict-dwarf": 3, "-gdwarf-2": 3, "-gz": 3, "-O2": 3,
		"-gdwarf-5 -fdebug-types-section": 3,
		"-gdwarf-4 -fdebug-types-section": 3, // of what is in a unit of its own, nothing
		"-g1":                             0,
	} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			flags := strings.Fields(form)
			other := build(t, "cc", header, source, flags...)
			for _, pair := range [][2][]byte{{old, other}, {other, old}} {
				if r := compare(t, pair[0], pair[1], Options{}); r.Compared != compared || len(r.Changes) > 0 {
					t.Errorf("the same types: got %d compared, %v, want %d, no change", r.Compared, r.Changes, compared)
				}
			}
			if compared == 0 || form == "-gdwarf-4 -fdebug-types-section" {
				return
			}
			r := compare(t, old, build(t, "cc", strings.Replace(header, "b : 5", "b : 6", 1), source, flags...), Options{})
			if got := fmt.Sprint(r.Changes); !strings.Contains(got, "struct s: b was at bit ") {
				t.Errorf("a bit more: got %s", got)
			}
			r = compare(t, old, build(t, "cc", strings.Replace(header, "int x;", "int x, y;", 1), source, flags...), Options{})
			if got := fmt.Sprint(r.Changes); !strings.Contains(got, "struct in: was 4 bytes, is 8 bytes") {
				t.Errorf("a member more: got %s", got)
			}
		})
	}
}

// Only what callers use counts, and structs that they know the inside of are
// certain to matter; those that they do not know are not told.
func TestCompareForCallers(t *testing.T) {
	source := "int f(struct point *p) { return p->x; } int g(int a) { return a; }"
	old := build(t, "cc", "struct point { int x, y; };\n", source)
	new := build(t, "cc", "struct point { int y, x; };\n", strings.Replace(source, "int a", "long a", 1))
	for name, tt := range map[string]struct {
		o    Options
		want string
	}{
		"all":           {Options{}, "[{f struct point x was at byte 0, is at byte 4 false} {f struct point y was at byte 4, is at byte 0 false} {g parameter 1 was int (4 bytes), is long int (8 bytes) true}]"},
		"who uses g":    {Options{Symbols: map[string]bool{"g": true}}, "[{g parameter 1 was int (4 bytes), is long int (8 bytes) true}]"},
		"who knows it":  {Options{Symbols: map[string]bool{"f": true}, Seen: map[string]bool{"point": true}}, "[{f struct point x was at byte 0, is at byte 4 true} {f struct point y was at byte 4, is at byte 0 true}]"},
		"who does not":  {Options{Symbols: map[string]bool{"f": true}, Seen: map[string]bool{}}, "[]"},
		"who uses none": {Options{Symbols: map[string]bool{}}, "[]"},
	} {
		var all []string
		for _, c := range compare(t, old, new, tt.o).Changes {
			all = append(all, fmt.Sprintf("{%s %s %s %v}", c.Symbol, c.What, c.Why, c.Sure))
		}
		if got := fmt.Sprint(all); got != tt.want {
			t.Errorf("%s: got %s, want %s", name, got, tt.want)
		}
	}
	caller := build(t, "cc", "struct point { int x, y; }; struct other;\nint f(struct point *p), g(int a);\n",
		"int h(void) { struct point p = { 1, 2 }; struct other *o = 0; return f(&p) + (o != 0); }")
	c, err := ReadCaller(context.Background(), bytes.NewReader(caller), int64(len(caller)), Options{})
	if err != nil || !c.Debug || fmt.Sprint(c.Defines) != "[point]" || !strings.Contains(fmt.Sprint(c.Imports), "f") {
		t.Errorf("got %+v, %v; want a caller of f that knows point", c, err)
	}
}

// Debug information in a file of its own is found by build id; without any,
// nothing is said.
func TestCompareSeparate(t *testing.T) {
	objcopy := testneed.Tool(t, "objcopy")
	var stripped, debug [2][]byte
	for i, source := range []string{"int f(int a) { return a; }", "int f(int a, int b) { return a + b; }"} {
		dir := t.TempDir()
		write(t, dir+"/lib", string(build(t, "cc", "", source, "-Wl,--build-id")))
		for out, flag := range map[string]string{"debug": "--only-keep-debug", "stripped": "--strip-debug"} {
			if text, err := exec.Command(objcopy, flag, dir+"/lib", dir+"/"+out).CombinedOutput(); err != nil {
				t.Fatalf("objcopy: %v\n%s", err, text)
			}
		}
		var err error
		if stripped[i], err = os.ReadFile(dir + "/stripped"); err != nil {
			t.Fatal(err)
		}
		if debug[i], err = os.ReadFile(dir + "/debug"); err != nil {
			t.Fatal(err)
		}
	}
	r := compare(t, stripped[0], stripped[1], Options{})
	if len(r.Changes) != 0 || r.Why != "neither version has debug information" {
		t.Errorf("got %+v, want a word that there is no debug information", r)
	}
	n := 0
	r = compare(t, stripped[0], stripped[1], Options{Debug: func(id string) (io.ReaderAt, int64, error) {
		n++
		return bytes.NewReader(debug[n-1]), int64(len(debug[n-1])), nil
	}})
	if len(r.Changes) != 1 {
		t.Errorf("got %+v, want the parameter that was added", r)
	}
}

// Damaged debug information is an error, or tells nothing; it never crashes, and
// takes no more than its size.
func FuzzCompare(f *testing.F) {
	old := build(f, "c++", "struct shape { virtual int area(); int n : 3; enum { A } e; };", "int shape::area() { return n; } int f(shape s, int (*g)(int), ...) { return 1; }")
	f.Add(old, 300, byte(7))
	f.Fuzz(func(t *testing.T, data []byte, at int, with byte) {
		if len(data) > 1<<20 {
			return
		}
		data = bytes.Clone(data)
		if at >= 0 && at < len(data) {
			data[at] = with
		}
		ctx := context.Background()
		_, _ = Compare(ctx, bytes.NewReader(old), bytes.NewReader(data), int64(len(old)), int64(len(data)), Options{})
		_, _ = Compare(ctx, bytes.NewReader(data), bytes.NewReader(old), int64(len(data)), int64(len(old)), Options{})
		_, _ = ReadCaller(ctx, bytes.NewReader(data), int64(len(data)), Options{})
	})
}

// The bytes of the debug information themselves, damaged one after the other: a
// fuzzer seldom finds them.
func TestDamaged(t *testing.T) {
	old := build(t, "c++", "struct shape { virtual int area(); int n : 3; };", "int shape::area() { return n; } int f(shape s, ...) { return 1; }")
	step := 97
	for at := 0; at < len(old); at += step {
		data := bytes.Clone(old)
		data[at] ^= 0xff
		_, _ = Compare(context.Background(), bytes.NewReader(data), bytes.NewReader(data), int64(len(data)), int64(len(data)), Options{})
	}
}

// Names are stored once and used by many: what is read of them is bounded, and so
// is what is told.
func TestLongNames(t *testing.T) {
	long := strings.Repeat("a", 100_000)
	one := "#define NAME " + long + "\nstruct point { int NAME; };\n"
	two := strings.Replace(one, "int NAME", "long long NAME", 1)
	r := compare(t, build(t, "cc", one, "int f(struct point p) { return 1; }"), build(t, "cc", two, "int f(struct point p) { return 1; }"), Options{})
	if len(r.Changes) == 0 {
		t.Error("got no change, want that of the member")
	}
	for _, c := range r.Changes {
		if len(c.What)+len(c.Why) > 4*maxName {
			t.Errorf("told in %d bytes, want few", len(c.What)+len(c.Why))
		}
	}
	var many strings.Builder
	for i := range 400 {
		fmt.Fprintf(&many, "int f%d(int NAME) { return NAME; }\n", i)
	}
	data := build(t, "cc", one, many.String())
	_, err := Compare(context.Background(), bytes.NewReader(data), bytes.NewReader(data), int64(len(data)), int64(len(data)), Options{})
	if !errors.Is(err, errTooLong) {
		t.Errorf("got %v of 400 names in a file of %d bytes, want that they are too long", err, len(data))
	}
}
