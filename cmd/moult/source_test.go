package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestSpoolsSwept: what a killed moult has left is removed, what a running one
// works in, or is about to, stays.
func TestSpoolsSwept(t *testing.T) {
	dir := t.TempDir()
	a := &app{getenv: func(string) string { return dir }}
	hourAgo := time.Now().Add(-time.Hour)
	left := func(name string, when time.Time) string {
		path := filepath.Join(dir, name)
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+"/0", []byte("bytes"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
		return path
	}
	killed, fresh, others := left(spoolPrefix+"1", hourAgo), left(spoolPrefix+"2", time.Now()), left("moult-lab", hourAgo)
	running, err := a.newSpool()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(running.path, hourAgo, hourAgo); err != nil {
		t.Fatal(err)
	}
	second, err := a.newSpool()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{killed: false, fresh: true, others: true, running.path: true, second.path: true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: there %v, want %v", path, err == nil, want)
		}
	}
	for _, s := range []*spool{running, second} {
		if err := s.remove(); err != nil {
			t.Error(err)
		}
	}
}
