//go:build linux

package reexec_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"moult.example/internal/testneed"
)

const exampleProgram = "moult.example/examples/selfupdate"

// worker is examples/selfupdate at work.
type worker struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
}

func (w *worker) path(name string) string { return filepath.Join(w.dir, name) }

func (w *worker) log() string {
	text, _ := os.ReadFile(w.path("work/log"))
	return string(text)
}

// start starts the worker; command is its command line.
func start(t *testing.T, dir string, cmd *exec.Cmd) *worker {
	t.Helper()
	w := &worker{t, dir, cmd}
	if err := os.MkdirAll(w.path("work"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	w.wait("works")
	return w
}

// wait waits for a line of the log.
func (w *worker) wait(text string) {
	w.t.Helper()
	waitFor(w.t, fmt.Sprintf("%q in the log", text), func() bool { return strings.Contains(w.log(), text) })
}

// become gives the worker a new program, complete at once.
func (w *worker) become(program string) {
	w.t.Helper()
	text, err := os.ReadFile(w.path(program))
	if err == nil {
		err = os.WriteFile(w.path("work/new.part"), text, 0o755)
	}
	if err == nil {
		err = os.Rename(w.path("work/new.part"), w.path("work/new"))
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *worker) stop() {
	w.t.Helper()
	if err := os.WriteFile(w.path("work/stop"), nil, 0o644); err != nil {
		w.t.Fatal(err)
	}
	w.wait("stops")
}

// buildExample builds versions of the example: 1.exe, 2.exe and so on.
func buildExample(t *testing.T, dir, goos string, versions ...string) {
	t.Helper()
	for _, v := range versions {
		build(t, filepath.Join(dir, v+".exe"), goos, exampleProgram, "build", "-ldflags", "-s -w -X main.version="+v)
	}
}

func digest(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// TestSelfUpdate: a program that was started through a link, and whose file
// another updater has moved meanwhile, replaces the file that it was started
// from, and becomes it in the same process.
func TestSelfUpdate(t *testing.T) {
	dir := t.TempDir()
	buildExample(t, dir, "linux", "1", "2")
	for _, err := range []error{
		os.Rename(filepath.Join(dir, "1.exe"), filepath.Join(dir, "app")),
		os.Symlink("app", filepath.Join(dir, "link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w := start(t, dir, exec.Command(filepath.Join(dir, "link"), "work", filepath.Join(dir, "work")))
	// The two renames of an updater that is not ours.
	text, err := os.ReadFile(w.path("app"))
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.WriteFile(w.path("app.new"), text, 0o755),
		os.Rename(w.path("app"), w.path(".app.old")),
		os.Rename(w.path("app.new"), w.path("app")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w.become("2.exe")
	w.wait("2 works")
	w.stop()
	pid := w.cmd.Process.Pid
	if want := fmt.Sprintf("1 works (%d)\n1 is replaced (%[1]d)\n2 works (%[1]d)\n2 stops (%[1]d)\n", pid); w.log() != want {
		t.Errorf("log %q, want %q", w.log(), want)
	}
	if got, want := digest(t, w.path("app")), digest(t, w.path("2.exe")); got != want {
		t.Errorf("app has digest %s, want that of version 2, %s", got, want)
	}
	if text, err := os.Readlink(w.path("link")); text != "app" {
		t.Errorf("link %q, want app (%v)", text, err)
	}
	if left, _ := filepath.Glob(w.path(".*")); len(left) != 1 || filepath.Base(left[0]) != ".app.old" {
		t.Errorf("hidden files %v, want .app.old alone", left)
	}
}

// TestSelfUpdateVerified: the command line of the example, which checks a digest.
func TestSelfUpdateVerified(t *testing.T) {
	dir := t.TempDir()
	buildExample(t, dir, "linux", "1", "2")
	one, two := filepath.Join(dir, "1.exe"), filepath.Join(dir, "2.exe")
	version := func() string {
		out, err := exec.Command(one, "version").Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	if out, err := exec.Command(one, "update", two, digest(t, one)).CombinedOutput(); err == nil || !strings.Contains(string(out), "digest") || version() != "1" {
		t.Errorf("a wrong digest: %v, %q, version %s; want an error and version 1", err, out, version())
	}
	if out, err := exec.Command(one, "update", two, digest(t, two)).CombinedOutput(); err != nil || version() != "2" {
		t.Errorf("the right digest: %v, %q, version %s; want version 2", err, out, version())
	}
}

// TestWindows runs what is for Windows under Wine: the tests of this package,
// and the example, from version 1 to one that does not work and back, and on to
// version 2. What Wine cannot show is in docs/selfupdate.md.
func TestWindows(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	testneed.Tool(t, "wine")
	w := newWine(t)
	build(t, filepath.Join(w.dir, "unit.exe"), "windows", "moult.example/reexec", "test", "-c")
	if out, err := w.output(w.command("unit.exe", "-test.v", "-test.run=Windows")); err != nil || strings.Count(out, "--- PASS: TestWindows") < 4 || !strings.Contains(out, "\nPASS") {
		t.Errorf("the tests for Windows: %v\n%s", err, out)
	}

	buildExample(t, w.dir, "windows", "1", "2", "broken")
	if err := os.Rename(filepath.Join(w.dir, "1.exe"), filepath.Join(w.dir, "app.exe")); err != nil {
		t.Fatal(err)
	}
	one := digest(t, filepath.Join(w.dir, "app.exe"))
	app := start(t, w.dir, w.command("app.exe", "work", `C:\moult\work`))
	leftovers := func() []string {
		names, _ := filepath.Glob(app.path("app.exe.*"))
		return names
	}

	app.become("broken.exe")
	app.wait("1 goes on: ")
	if !strings.Contains(app.log(), "ended before it had launched") || digest(t, app.path("app.exe")) != one {
		t.Errorf("after a version that does not work: log %q, digest %s; want that said, and the old program back", app.log(), digest(t, app.path("app.exe")))
	}
	waitFor(t, "nothing left of the broken version", func() bool { return len(leftovers()) == 0 })

	app.become("2.exe")
	app.wait("2 works")
	app.wait("1 ends")
	waitFor(t, "nothing left of version 1", func() bool { return len(leftovers()) == 0 })
	if got, want := digest(t, app.path("app.exe")), digest(t, app.path("2.exe")); got != want {
		t.Errorf("app.exe has digest %s, want that of version 2, %s", got, want)
	}
	app.stop()
}
