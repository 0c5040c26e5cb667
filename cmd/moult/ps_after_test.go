package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestStillRuns wants that a commit, a rollback and an install tell how many
// processes run what was there before, and that they do not take long for it.
func TestStillRuns(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("MOULT_STATE_DIR", dir+"/state")
	for _, version := range []string{"1", "2"} {
		copyProgram(t, "sleep", filepath.Join(dir, "v"+version, "bin", "sleep"), version)
	}
	type answer struct{ Stale *int }
	moult := func(budget time.Duration, args ...string) answer {
		t.Helper()
		var out bytes.Buffer
		a := newApp(strings.NewReader(""), &out, io.Discard, nil)
		a.lookBudget = budget
		if status := a.run(t.Context(), append(args, "--json")); status != 0 {
			t.Fatalf("moult %v: status %d: %s", args, status, out.String())
		}
		var got answer
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		return got
	}
	wants := func(got answer, want int) {
		t.Helper()
		if got.Stale == nil || *got.Stale != want {
			t.Errorf("stale is %v, want %d", got.Stale, want)
		}
	}
	const patience = limit
	for _, layout := range []string{"shared", "owned"} {
		target := dir + "/" + layout
		moult(patience, "apply", "--layout", layout, dir+"/v1", target)
		start(t, target+"/bin/sleep", "1000")
		start(t, target+"/bin/sleep", "1000")
		wants(moult(patience, "apply", dir+"/v2", target), 2)
		wants(moult(patience, "rollback", target), 0)
		wants(moult(patience, "rollback", target, "2"), 2)
		if got := moult(0, "rollback", target, "1"); got.Stale != nil {
			t.Errorf("stale is %d, want nothing: there was no time", *got.Stale)
		}
	}
	copyProgram(t, "sleep", dir+"/sleep", "1")
	start(t, dir+"/sleep", "1000")
	wants(moult(patience, "install", dir+"/v2/bin/sleep", dir+"/sleep"), 1)

	target := dir + "/owned"
	// A person is told in words, on a terminal.
	for budget, want := range map[time.Duration]string{
		patience: "2 processes still run what was there before: moult ps " + target,
		0:        "moult ps " + target + " says who still runs what was there before",
	} {
		p := openTerminal(t, 200, 24)
		a := newApp(strings.NewReader(""), p.device, io.Discard, nil)
		a.lookBudget = budget
		if status := a.run(t.Context(), []string{"rollback", target, "2"}); status != 0 {
			t.Fatalf("status %d: %s", status, p.text())
		}
		p.shows(t, 0, want)
		if status := a.run(t.Context(), []string{"rollback", target, "1"}); status != 0 {
			t.Fatal(status)
		}
	}
	if _, stdout, _ := runMoult("rollback", target, "2"); strings.Contains(stdout, "moult ps") {
		t.Errorf("printed %q, want no remark where there is no terminal", stdout)
	}
}

// copyProgram copies a program of this host, and makes another of it that does
// the same.
func copyProgram(t *testing.T, name, to, mark string) {
	t.Helper()
	from, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, append(b, mark...), 0o755); err != nil {
		t.Fatal(err)
	}
}

// start runs a program until the test ends, and waits until it runs.
func start(t *testing.T, path string, args ...string) {
	t.Helper()
	cmd := exec.Command(path, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); _ = cmd.Wait() })
}
