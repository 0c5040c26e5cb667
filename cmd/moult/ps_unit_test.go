package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUnitWithout tells a unit that is stopped from one that nobody knows.
func TestUnitWithout(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"app.service", "tick.timer", "many@.service", "masked.service", "linked.service"} {
		at := filepath.Join(dir, name)
		var err error
		switch name {
		case "masked.service":
			err = os.Symlink(os.DevNull, at)
		case "linked.service":
			elsewhere := filepath.Join(t.TempDir(), name)
			if err = os.WriteFile(elsewhere, nil, 0o644); err == nil {
				err = os.Symlink(elsewhere, at)
			}
		default:
			err = os.WriteFile(at, nil, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("app.service", filepath.Join(dir, "other.service")); err != nil {
		t.Fatal(err)
	}
	for unit, want := range map[string]string{
		"app": "", "app.service": "", "ap*": "", "masked": "", "linked": "",
		"many@1": "", "many@1.service": "", "many@*": "", "m*": "",
		"ap":            "and systemd has none of that name",
		"few@1":         "none of that name",
		"many@1.socket": "none of that name",
		"tick.timer":    "none of that name", // no process is ever in it
		"other":         "that is another name of app.service",
	} {
		f := &psFlags{unit: unit, unitDirs: []string{dir, filepath.Join(dir, "missing")}}
		e := f.unitWithout(false)
		err := e.err()
		switch {
		case want == "" && err != nil:
			t.Errorf("--unit %s: %v, want no error", unit, err)
		case want == "" && !strings.Contains(e.text(), "it does not run"):
			t.Errorf("--unit %s: %q", unit, e.text())
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("--unit %s: %v, want %q", unit, err, want)
		case err != nil && (diagnose(err).Status != statusFailed || diagnose(err).Hint == ""):
			t.Errorf("--unit %s: %+v", unit, diagnose(err))
		}
	}
}
