package reexecload_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"moult.example/internal/reexecload"
	"moult.example/internal/testneed"
)

const root = "../.."

// builds builds two versions of an example.
func builds(t *testing.T, e reexecload.Example, dir string) (files []string) {
	t.Helper()
	testneed.Tool(t, e.Compiler)
	for _, version := range []string{"1", "2"} {
		out := filepath.Join(dir, e.Name+"-"+version)
		if err := e.Build(t.Context(), root, out, version); err != nil {
			t.Fatal(err)
		}
		files = append(files, out)
	}
	return files
}

// load upgrades a program under load, and wants nothing lost and nothing leaked.
func load(t *testing.T, p reexecload.Program, upgrades int) {
	t.Helper()
	run, err := p.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer run.Stop()
	// The first upgrades settle what is open: compare after an even number.
	settled := func() []string {
		t.Helper()
		if _, err := (reexecload.Trial{Workers: 2, Upgrades: 2, Every: 100 * time.Millisecond}).Run(t.Context(), run.Server); err != nil {
			t.Fatalf("%v; it says %q", err, run.Said())
		}
		return idle(t, run)
	}
	before := settled()
	r, err := reexecload.Trial{Think: 20 * time.Millisecond, Upgrades: upgrades, Every: 100 * time.Millisecond}.Run(t.Context(), run.Server)
	if err != nil {
		t.Fatalf("%v; it says %q", err, run.Said())
	}
	t.Log(r)
	if all := r.All(); all.Lost+all.Wrong > 0 || r.Kept.Answered == 0 || r.New.Answered == 0 || r.Upgrades.Done != upgrades {
		t.Errorf("%d lost, %d wrong, %d upgrades; want none, none, %d: %s\nit says %q",
			all.Lost, all.Wrong, r.Upgrades.Done, upgrades, strings.Join(all.Why, "\n"), run.Said())
	}
	a, err := run.Ask()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := reexecload.Generation(a); err != nil || n != upgrades+2 {
		t.Errorf("generation %d, want %d: one for each upgrade (%v)", n, upgrades+2, err)
	}
	if got := a.Header["x-pid"]; got != fmt.Sprint(run.PID) {
		t.Errorf("PID %s, want %d as at the start", got, run.PID)
	}
	if after := settled(); len(after) != len(before) {
		t.Errorf("descriptors %q, want as many as before: %q", after, before)
	}
}

// idle lists the descriptors when no connection is left.
func idle(t *testing.T, run *reexecload.Process) (open []string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var err error
		if open, err = run.Descriptors(); err != nil {
			t.Fatal(err)
		}
		sockets := slices.DeleteFunc(slices.Clone(open), func(d string) bool { return !strings.Contains(d, "socket:") })
		if len(sockets) == 1 { // the listener
			return open
		}
	}
	t.Errorf("descriptors %q, want one socket", open)
	return open
}

// TestUpgrades replaces each of the example servers 200 times under load, in
// about 20 seconds, all at once.
func TestUpgrades(t *testing.T) {
	upgrades := 200
	if testing.Short() {
		upgrades = 20
	}
	for _, e := range reexecload.Examples(root) {
		t.Run(e.Name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			p, err := reexecload.Serve(e.Name, dir, builds(t, e, dir), []string{"1", "2"})
			if err != nil {
				t.Fatal(err)
			}
			load(t, p, upgrades)
		})
	}
}
