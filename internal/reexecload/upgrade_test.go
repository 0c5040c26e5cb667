package reexecload_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
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
func load(t *testing.T, p reexecload.Program, upgrades int, every time.Duration) {
	t.Helper()
	run, err := p.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer run.Stop()
	// The first upgrades settle what is open: compare after an even number.
	settled := func(want int) int {
		t.Helper()
		if _, err := (reexecload.Trial{Workers: 2, Upgrades: 2, Every: 100 * time.Millisecond}).Run(t.Context(), run.Server); err != nil {
			t.Fatal(err)
		}
		return idle(t, run, want)
	}
	before := settled(0)
	r, err := reexecload.Trial{Think: 20 * time.Millisecond, Upgrades: upgrades, Every: every, Probe: 5 * time.Millisecond}.Run(t.Context(), run.Server)
	if err != nil {
		t.Fatal(err)
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
	if said := p.Said(a); said.Generation != upgrades+2 || said.PID != run.PID {
		t.Errorf("generation %d, PID %d; want %d, one for each upgrade, and %d as at the start", said.Generation, said.PID, upgrades+2, run.PID)
	}
	settled(before)
}

// idle counts the descriptors when no connection is left, seen alike twice, since
// the program may just be looking at a file. It waits until they are no more than
// that; 0 is any number.
func idle(t *testing.T, run *reexecload.Process, most int) (n int) {
	t.Helper()
	var open []string
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		last := n
		var err error
		if open, err = run.Descriptors(); err != nil {
			t.Fatal(err)
		}
		sockets := map[string]bool{}
		for _, d := range open {
			if _, to, _ := strings.Cut(d, " "); strings.HasPrefix(to, "socket:") {
				sockets[to] = true
			}
		}
		n = len(open)
		// One socket is the listener's, under one number or two.
		if len(sockets) == 1 && n == last && (most == 0 || n <= most) {
			return n
		}
	}
	t.Errorf("descriptors %q, want one socket, and at most %d in all if that is not 0", open, most)
	return n
}

// TestUpgrades replaces each of the example servers 200 times under load, in
// about 20 seconds, all at once; and meanwhile has a server in Go, and one in C
// or C++, take each other's place: what one hands over the other takes. Others
// get code that does not become ready, and go back.
func TestUpgrades(t *testing.T) {
	upgrades, mixed := 200, 40
	if testing.Short() {
		upgrades, mixed = 20, 4
	}
	twin := filepath.Join(t.TempDir(), "twin")
	cmd := exec.Command("go", "build", "-o", twin, "./testdata/twin")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, text)
	}
	broken := filepath.Join(t.TempDir(), "broken")
	if err := reexecload.BuildBroken(t.Context(), root, broken); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup // and not t.Parallel, which counts processors
	defer all.Wait()
	for _, e := range reexecload.Examples(root) {
		dir := t.TempDir()
		files := builds(t, e, dir)
		start := func(name string, files, versions []string, n int) {
			p := e.Serve(t.TempDir(), testneed.Port(t), files, versions)
			all.Go(func() {
				t.Run(name, func(t *testing.T) { load(t, p, n, 100*time.Millisecond*time.Duration(upgrades/n)) })
			})
		}
		start(e.Name, files, []string{"1", "2"}, upgrades)
		bad := e.Serve(t.TempDir(), testneed.Port(t), files[:1], []string{"1"})
		bad.Broken = broken
		all.Go(func() {
			t.Run(e.Name+", taken back", func(t *testing.T) { takenBack(t, bad) })
		})
		if e.Name != "go-server" {
			start("go and "+e.Name, []string{twin, files[0]}, []string{"go", "1"}, mixed)
		}
	}
}
