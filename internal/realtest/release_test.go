package realtest

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"moult.example/internal/testneed"
)

// mark is what the compiled files have before the byte that is their version.
const mark = "MOULT-VERSION:"

// compile compiles a source of testdata once for all tests and returns where
// the result is. flags come after the source, as libraries have to.
func compile(t testing.TB, output, source string, flags ...string) string {
	t.Helper()
	cc := testneed.Tool(t, "cc")
	compiled.Lock()
	defer compiled.Unlock()
	path := filepath.Join(buildDir, output)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	args := append([]string{"-O1", "-Wall", "-o", path, "testdata/" + source}, flags...)
	run(t, cc, args...)
	return path
}

var compiled sync.Mutex

func compileLibrary(t testing.TB, name string) string {
	t.Helper()
	return compile(t, "lib"+name+".so.1", "part.c", "-shared", "-fPIC", "-nostdlib", "-DNAME="+name, "-Wl,-soname,lib"+name+".so.1")
}

// program makes a release of one version: two programs, three libraries, and a
// plugin that one of the programs loads late. They find the libraries by a run
// path from $ORIGIN. One library has its version in its file name, as most do.
func program(t testing.TB, dir string, version byte) string {
	t.Helper()
	libs := []string{compileLibrary(t, "a"), compileLibrary(t, "b"), compileLibrary(t, "c")}
	plugin := compile(t, "plugin.so", "part.c", "-shared", "-fPIC", "-nostdlib", "-DNAME=plugin")
	flags := append(libs, "-Wl,-z,now", "-Wl,-rpath,$ORIGIN/../lib", "-Wl,--enable-new-dtags")
	file := "libc.so.1." + itoa(int(version))
	for name, from := range map[string]string{
		"bin/quick":     compile(t, "quick", "quick.c", append([]string{"-nostdlib"}, flags...)...),
		"bin/late":      compile(t, "late", "late.c", append(flags, "-ldl")...),
		"lib/liba.so.1": libs[0],
		"lib/libb.so.1": libs[1],
		"lib/" + file:   libs[2],
		"lib/plugin.so": plugin,
	} {
		stamp(t, from, filepath.Join(dir, name), version)
	}
	return tree{"lib/libc.so.1": "->" + file}.write(t, dir)
}

// stamp copies a compiled file and writes the version into it.
func stamp(t testing.TB, from, to string, version byte) {
	t.Helper()
	data, err := os.ReadFile(from)
	must(t, err)
	if bytes.Count(data, []byte(mark+"\x01")) != 1 {
		t.Fatalf("%s: want the mark once, got it %d times", from, bytes.Count(data, []byte(mark+"\x01")))
	}
	data = bytes.Replace(data, []byte(mark+"\x01"), []byte(mark+string(rune(version))), 1)
	must(t, os.MkdirAll(filepath.Dir(to), 0o755))
	writeFile(t, to, string(data), 0o755)
}

// programs makes releases of several versions, counted from 1, below dir.
func programs(t testing.TB, dir string, n int) []string {
	t.Helper()
	var all []string
	for v := 1; v <= n; v++ {
		all = append(all, program(t, filepath.Join(dir, "v"+itoa(v)), byte(v)))
	}
	return all
}

// wantVersion wants a file to be the one of that version.
func wantVersion(t testing.TB, path string, version byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Errorf("%v, want version %d", err, version)
		return
	}
	_, after, found := bytes.Cut(data, []byte(mark))
	if !found || after[0] != version {
		t.Errorf("%s: got version %d (%v), want %d", path, after[:1], found, version)
	}
}

func itoa(n int) string { return strconv.Itoa(n) }
