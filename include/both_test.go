package include_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A program in C++ is replaced by one in Go, and back, on the same connection; and
// each of them takes back what the other one hands to a successor that fails.
func TestBothLanguages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	goes := filepath.Join(dir, "go")
	build := exec.Command("go", "build", "-o", goes, "./include/testdata/gosuccessor")
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	cpp := compile(t, "g++", cppServer, filepath.Join(dir, "cpp"), "-std=c++11", "-O0", version("cpp"))
	bad := compile(t, "gcc", cServer, filepath.Join(dir, "bad"), "-std=gnu99", "-w", "-DBROKEN=abort()")
	path := filepath.Join(dir, "server")
	place(t, cpp, path)
	p := start(t, path)
	c, err := dial(p.port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	same := func(version string) {
		t.Helper()
		p.serves(version)
		if a, err := c.post("x"); err != nil || a.version != version || a.pid != p.cmd.Process.Pid {
			t.Fatalf("on the old connection: got %+v, %v, want version %s in process %d", a, err, version, p.cmd.Process.Pid)
		}
	}
	same("cpp")
	place(t, goes, path)
	same("go")
	place(t, bad, path) // Go, C that fails, Go
	p.says("aborted before it was ready")
	same("go")
	place(t, cpp, path)
	same("cpp")
	os.WriteFile(filepath.Join(dir, "gofault"), []byte("1"), 0o644)
	place(t, goes, path) // C++, Go that fails, C++
	p.says("taken back: ")
	p.says("no use for it")
	same("cpp")
	os.Remove(filepath.Join(dir, "gofault"))
	if data, err := os.ReadFile(goes); err != nil {
		t.Fatal(err)
	} else { // the same bytes would not be tried again
		put(t, append(data, '\n'), path, 0o755)
	}
	same("go")
}
