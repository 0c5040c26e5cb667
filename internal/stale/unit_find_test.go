package stale

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestInUnit finds units by the control groups of a recorded /proc.
func TestInUnit(t *testing.T) {
	proc := t.TempDir()
	for name, text := range map[string]string{
		"2/cgroup":    "0::/\n",
		"30/cgroup":   "0::/system.slice/nginx.service\n",
		"31/cgroup":   "0::/user.slice/user-7.slice/user@7.service/app.slice/mine.service\n",
		"32/cgroup":   strings.Repeat("x", 1<<20),
		"self/cgroup": "0::/system.slice/no-process.service\n",
	} {
		if err := os.MkdirAll(filepath.Join(proc, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(proc, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(proc, "33"), 0o755); err != nil { // ended while we looked
		t.Fatal(err)
	}
	look := func(unit string) (found, hidden bool) {
		found, hidden, err := InUnit(t.Context(), Options{Proc: proc}, func(u Unit) bool { return u.Name == unit })
		if err != nil {
			t.Fatal(err)
		}
		return found, hidden
	}
	for unit, want := range map[string]bool{"nginx.service": true, "mine.service": true, "no-process.service": false, "": false} {
		if found, hidden := look(unit); found != want || hidden == want {
			t.Errorf("unit %q: found %v, hidden %v, want %v and the contrary", unit, found, hidden, want)
		}
	}
	if err := os.Mkdir(filepath.Join(proc, "1"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, hidden := look("none"); hidden {
		t.Error("process 1 is there, and yet some are hidden")
	}
}
