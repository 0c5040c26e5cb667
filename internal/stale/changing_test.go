package stale

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"moult.example/internal/testneed"
)

// A process that executes one program after the other is never taken for a
// mixture of both, and processes that come and go are no trouble.
func TestFindWhileExecuting(t *testing.T) {
	testneed.Tool(t, "cc")
	dir := t.TempDir()
	src := "#include <unistd.h>\nint main(int n, char **v) { execl(v[1], v[1], v[0], (char *)0); return 1; }\n"
	if err := os.WriteFile(dir+"/flip.c", []byte(src), 0o644); err != nil {
		t.Fatal(err)
	}
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	run(t, "cc", "-static", "-O1", "-o", a, dir+"/flip.c")
	run(t, "cc", "-static", "-O1", "-g", "-o", b, dir+"/flip.c")
	cmd := exec.Command(a, b)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for range 1000 {
		rep, err := Find(t.Context(), Options{PIDs: []int{cmd.Process.Pid}})
		if err != nil {
			t.Fatal(err)
		}
		if v, note, text := judged(rep, cmd.Process.Pid); v != None || note {
			t.Fatalf("verdict %q, note %v, want none: %s", v, note, text)
		}
	}
}
