package linkcheck

import (
	"debug/elf"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"moult.example/internal/testneed"
)

func needsOf(t testing.TB, path string) (Info, error) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return Needs(f, fi.Size())
}

// elfFiles are ELF files of this host, of all kinds.
func elfFiles(t testing.TB, limit int) []string {
	t.Helper()
	var files []string
	for _, dir := range []string{"/usr/bin", "/usr/sbin", "/usr/libexec", "/usr/lib"} {
		count := 0
		filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil
			}
			if count == limit {
				return fs.SkipAll
			}
			f, err := os.Open(path)
			if err != nil {
				return nil
			}
			defer f.Close()
			var magic [4]byte
			if n, _ := f.Read(magic[:]); n == 4 && string(magic[:]) == elf.ELFMAG {
				files = append(files, path)
				count++
			}
			return nil
		})
	}
	if len(files) < 100 {
		t.Fatalf("found %d ELF files, want at least 100", len(files))
	}
	return files
}

// What readelf says of this host's programs and libraries, we say, too.
func TestAgainstReadelf(t *testing.T) {
	readelf := testneed.Tool(t, "readelf")
	files := elfFiles(t, 400)
	cmd := exec.Command(readelf, append([]string{"-Whld"}, files...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(out), "\nFile: ")[1:]
	if len(parts) != len(files) {
		t.Fatalf("readelf speaks of %d files, want %d", len(parts), len(files))
	}
	kinds := map[Kind]int{}
	for i, text := range parts {
		if !strings.HasPrefix(text, files[i]+"\n") {
			t.Fatalf("readelf speaks of %.80q, want %s", text, files[i])
		}
		got, err := needsOf(t, files[i])
		if err != nil {
			t.Errorf("%s: %v", files[i], err)
			continue
		}
		want := fromReadelf(text)
		if got.Class != want.Class || got.Interp != want.Interp || got.Soname != want.Soname || !slices.Equal(got.Needed, want.Needed) {
			t.Errorf("%s: got %+v, want %+v", files[i], got, want)
		}
		if got.Kind != want.Kind {
			t.Errorf("%s: got a %v, want a %v", files[i], got.Kind, want.Kind)
		}
		kinds[got.Kind]++
	}
	if kinds[Program] == 0 || kinds[Library] == 0 {
		t.Errorf("got kinds %v, want programs and libraries", kinds)
	}
}

var (
	readelfType   = regexp.MustCompile(`(?m)^ +Type: +(\S+) \(([^)]*)`)
	readelfInterp = regexp.MustCompile(`Requesting program interpreter: (.*)\]`)
	readelfSoname = regexp.MustCompile(`\(SONAME\) +Library soname: \[(.*)\]`)
	readelfNeeded = regexp.MustCompile(`\(NEEDED\) +Shared library: \[(.*)\]`)
)

func fromReadelf(text string) Info {
	info := Info{Class: elf.ELFCLASS64, Kind: Other}
	if strings.Contains(text, "ELF32") {
		info.Class = elf.ELFCLASS32
	}
	if m := readelfInterp.FindStringSubmatch(text); m != nil {
		info.Interp = m[1]
	}
	if m := readelfSoname.FindStringSubmatch(text); m != nil {
		info.Soname = m[1]
	}
	for _, m := range readelfNeeded.FindAllStringSubmatch(text, -1) {
		info.Needed = append(info.Needed, m[1])
	}
	switch m := readelfType.FindStringSubmatch(text); {
	case m[1] == "EXEC", strings.HasPrefix(m[2], "Position-Independent"):
		info.Kind = Program
	case m[1] == "DYN" && info.Interp != "" && info.Soname == "": // not marked
		info.Kind = Program
	case m[1] == "DYN":
		info.Kind = Library
	}
	return info
}

// Each kind of file, made by the compiler.
func TestKinds(t *testing.T) {
	cc := testneed.Tool(t, "cc")
	dir := t.TempDir()
	source := filepath.Join(dir, "x.c")
	if err := os.WriteFile(source, []byte("int main(void) { return 0; }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		flags []string
		want  Info
	}{
		"pie":        {[]string{"-pie", "-fPIE"}, Info{Kind: Program, Interp: "?", Needed: []string{"libc.so.6"}}},
		"no-pie":     {[]string{"-no-pie"}, Info{Kind: Program, Interp: "?", Needed: []string{"libc.so.6"}}},
		"static":     {[]string{"-static", "-nostdlib", "-Wl,-e,main"}, Info{Kind: Program}},
		"static-pie": {[]string{"-static-pie", "-fPIE", "-nostdlib", "-Wl,-e,main"}, Info{Kind: Program}},
		"plugin":     {[]string{"-shared", "-fPIC"}, Info{Kind: Library, Needed: []string{"libc.so.6"}}},
		"library":    {[]string{"-shared", "-fPIC", "-Wl,-soname,libx.so.1"}, Info{Kind: Library, Soname: "libx.so.1", Needed: []string{"libc.so.6"}}},
		"alone":      {[]string{"-shared", "-fPIC", "-nostdlib"}, Info{Kind: Library}},
		"object":     {[]string{"-c"}, Info{Kind: Other}},
		"by path": {[]string{"-shared", "-fPIC", "-nostdlib", dir + "/alone"},
			Info{Kind: Library, Needed: []string{dir + "/alone"}}},
	}
	for _, name := range []string{"pie", "no-pie", "static", "static-pie", "plugin", "library", "alone", "object", "by path"} {
		tt := tests[name]
		file := filepath.Join(dir, name)
		args := append([]string{"-o", file, "-Wl,--no-as-needed", source}, tt.flags...)
		if out, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
			t.Fatalf("cc %q: %v\n%s", args, err, out)
		}
		check := func(path string) {
			t.Helper()
			got, err := needsOf(t, path)
			want := tt.want
			if want.Interp == "?" && strings.Contains(got.Interp, "/ld-linux") {
				want.Interp = got.Interp
			}
			if err != nil || got.Kind != want.Kind || got.Interp != want.Interp || got.Soname != want.Soname || !slices.Equal(got.Needed, want.Needed) {
				t.Errorf("%s: got %+v, %v, want %+v", path, got, err, want)
			}
			if self, _ := needsOf(t, "/proc/self/exe"); got.Machine != self.Machine || got.Class != self.Class {
				t.Errorf("%s: got %v %v, want this host's", path, got.Class, got.Machine)
			}
		}
		check(file)
		if name != "object" {
			stripSections(t, file, file+".nosections")
			check(file + ".nosections")
		}
	}
}

// The C library can be executed and is a library all the same.
func TestExecutableLibrary(t *testing.T) {
	out, err := exec.Command(testneed.Tool(t, "cc"), "-print-file-name=libc.so.6").Output()
	if err != nil {
		t.Fatal(err)
	}
	got, err := needsOf(t, strings.TrimSpace(string(out)))
	if err != nil || got.Kind != Library || got.Interp == "" || got.Soname != "libc.so.6" {
		t.Errorf("got %+v, %v, want the library libc.so.6 with an interpreter", got, err)
	}
}

// stripSections copies a 64-bit file and takes its section headers away, which
// no loader needs.
func stripSections(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	clear(b[40:48]) // e_shoff
	clear(b[58:64]) // e_shentsize, e_shnum, e_shstrndx
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkNeeds(b *testing.B) {
	files := elfFiles(b, 200)
	var open []*os.File
	var sizes []int64
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		fi, err := f.Stat()
		if err != nil {
			b.Fatal(err)
		}
		open, sizes = append(open, f), append(sizes, fi.Size())
	}
	for i := 0; b.Loop(); i++ {
		if _, err := Needs(open[i%len(open)], sizes[i%len(open)]); err != nil {
			b.Fatal(err)
		}
	}
}
