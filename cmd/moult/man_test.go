//go:build man

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestManPages wants a page for each command, with its exit statuses.
func TestManPages(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1750000000")
	dir := t.TempDir()
	for range 2 { // the second time over the first
		if status, _, stderr := runMoult("man", dir); status != 0 {
			t.Fatalf("moult man: status %d, %s", status, stderr)
		}
	}
	for _, name := range commands() {
		file := "moult.1"
		if name != "" {
			file = "moult-" + name + ".1"
		}
		page, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, part := range []string{".nr HY 0\n", ".SH NAME", ".SH EXIT STATUS", "interrupted; nothing changed", ".SH EXAMPLE"} {
			if !bytes.Contains(page, []byte(part)) {
				t.Errorf("%s has no %q", file, part)
			}
		}
	}
	page, err := os.ReadFile(filepath.Join(dir, "moult-apply.1"))
	if want := []byte(`\fB--wait\fP TIME`); err != nil || !bytes.Contains(page, want) {
		t.Errorf("moult-apply.1 (%v) has no %q: the value of a flag", err, want)
	}
	page, err = os.ReadFile(filepath.Join(dir, "moult.1"))
	for _, want := range []string{".SH COMMANDS", "make an earlier generation live again"} {
		if err != nil || !bytes.Contains(page, []byte(want)) {
			t.Errorf("moult.1 (%v) has no %q: the commands", err, want)
		}
	}
	files, _ := filepath.Glob(dir + "/.*.new")
	if len(files) > 0 {
		t.Errorf("left behind: %v", files)
	}
}
