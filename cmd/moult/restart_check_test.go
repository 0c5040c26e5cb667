package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"moult.example/internal/deploy"
	"moult.example/internal/restart"
	"moult.example/internal/stale"
	"moult.example/internal/testneed"
)

// TestWouldStart: a program whose new library lacks a function is not stopped,
// however it finds its libraries.
func TestWouldStart(t *testing.T) {
	testneed.Tool(t, "cc")
	dir := t.TempDir()
	cc := func(source string, args ...string) {
		t.Helper()
		cmd := exec.Command("cc", append([]string{"-x", "c", "-", "-x", "none"}, args...)...)
		cmd.Dir, cmd.Stdin = dir, strings.NewReader(source)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("cc: %v\n%s", err, out)
		}
	}
	library := func(source string) {
		cc(source, "-shared", "-fPIC", "-Wl,-soname,libx.so.1", "-o", "new.so")
		if err := os.Rename(filepath.Join(dir, "new.so"), filepath.Join(dir, "libx.so.1")); err != nil {
			t.Fatal(err)
		}
	}
	library("int one(void) { return 1; } int two(void) { return 2; }")
	program := "#include <unistd.h>\nint one(void), two(void); int main(void) { if (one() + two() != 3) return 1; write(1, \"up\", 2); for (;;) pause(); }"
	cc(program, "-o", "fixed", "-Wl,-rpath,"+dir, "-L.", "-l:libx.so.1")
	cc(program, "-o", "told", "-L.", "-l:libx.so.1")

	places := deploy.NewPlaces(deploy.Options{StateDir: t.TempDir()})
	var processes []stale.Process
	for _, name := range []string{"fixed", "told"} {
		cmd := exec.Command(filepath.Join(dir, name))
		if name == "told" {
			cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH=/nowhere:"+dir)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		if _, err := out.Read(make([]byte, 2)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		processes = append(processes, stale.Process{PID: cmd.Process.Pid, Exe: cmd.Path})
	}
	for _, p := range processes {
		if err := wouldStart(t.Context(), p, places); err != nil {
			t.Errorf("%s: %v, want nothing: the library is whole", p.Exe, err)
		}
	}
	library("int one(void) { return 1; }")
	for _, p := range processes {
		if err := wouldStart(t.Context(), p, places); err == nil || !strings.Contains(err.Error(), "two") {
			t.Errorf("%s: %v, want that two is missing", p.Exe, err)
		}
	}
}

// TestRemarkLeft wants a hint that fits the reason, of a plan and of a real run;
// a plan has none where there is nothing to be done about it.
func TestRemarkLeft(t *testing.T) {
	for _, c := range []struct {
		reasons []restart.Reason
		want    string
	}{
		{nil, ""},
		{[]restart.Reason{restart.ForDenied, restart.ForContainer}, ""},
		{[]restart.Reason{restart.ForDenied, restart.ForUnknown}, "moult: hint: " + ruleHint + "\n"},
		{[]restart.Reason{restart.ForUnknown, restart.ForGone}, "moult: hint: " + goneHint + "\n"},
		{[]restart.Reason{restart.ForForeign, restart.ForHost}, "moult: hint: " + foreignHint + "\n"},
	} {
		var left []restart.Left
		for _, r := range c.reasons {
			left = append(left, restart.Left{Reason: r})
		}
		var errs bytes.Buffer
		newApp(nil, nil, &errs, nil).remarkLeft(left)
		if got := errs.String(); got != c.want {
			t.Errorf("%v: %q, want %q", c.reasons, got, c.want)
		}
		d := diagnose(fmt.Errorf("x: %w", &restart.RemainsError{Count: 1, Left: left}))
		if d.Status != statusFound || c.want != "" && "moult: hint: "+d.Hint+"\n" != c.want || d.Hint == "" {
			t.Errorf("%v: status %d with the hint %q, want 3 and %q", c.reasons, d.Status, d.Hint, c.want)
		}
	}
}
