package restarttest

import (
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"moult.example/internal/testneed"
)

//go:embed testdata/server.c
var serverSource string

var built struct {
	sync.Mutex
	dir   string
	files map[string]string // by version and status
}

// Server puts the service of testdata/server.c at path, as a version of it that answers
// with an HTTP status. It replaces what is there by a rename, as moult does.
func Server(t testing.TB, path, version, status string) {
	t.Helper()
	from := compile(t, version, status)
	data, err := os.ReadFile(from)
	if err == nil {
		// A process that another test forks meanwhile would hold the file open for
		// writing, and nobody could execute it: ETXTBSY.
		syscall.ForkLock.RLock()
		err = os.WriteFile(path+".new", data, 0o755)
		syscall.ForkLock.RUnlock()
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// compile compiles each version once; they are removed by RemoveServers.
func compile(t testing.TB, version, status string) string {
	t.Helper()
	cc := testneed.Tool(t, "cc")
	built.Lock()
	defer built.Unlock()
	if file, ok := built.files[version+status]; ok {
		return file
	}
	if built.dir == "" {
		dir, err := os.MkdirTemp("", "moult-restarttest-")
		if err != nil {
			t.Fatal(err)
		}
		built.dir, built.files = dir, map[string]string{}
	}
	source := filepath.Join(built.dir, "server.c")
	if err := os.WriteFile(source, []byte(serverSource), 0o644); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(built.dir, "server-"+version+"-"+status[:3])
	cmd := exec.Command(cc, "-O1", "-Wall", "-o", file, `-DVERSION="`+version+`"`, `-DSTATUS="`+status+`"`, source, "-ldl")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	built.files[version+status] = file
	return file
}

// Library makes a shared library at path, replacing what is there by a rename.
func Library(t testing.TB, path, version string) {
	t.Helper()
	cc := testneed.Tool(t, "cc")
	cmd := exec.Command(cc, "-shared", "-fPIC", "-x", "c", "-o", path+".new", "-")
	cmd.Stdin = strings.NewReader("const char library_version[] = \"" + version + "\";\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// RemoveServers removes what Server has compiled; a TestMain calls it, or a
// clean-up.
func RemoveServers() {
	built.Lock()
	defer built.Unlock()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	built.dir, built.files = "", nil
}
