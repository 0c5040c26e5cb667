package realtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"moult.example/internal/testneed"
)

// The program under test, and a directory for what the tests compile.
var (
	moultBinary string
	buildDir    string
)

func TestMain(m *testing.M) {
	testneed.InOwnProcesses()
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "moult-realtest-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	// Users other than root run what is in it.
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	buildDir, moultBinary = dir, filepath.Join(dir, "moult")
	build := exec.Command("go", "build", "-o", moultBinary, "moult.example/cmd/moult")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build moult: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// host is a place of the test's own: a directory, and a registry of targets.
type host struct {
	testing.TB
	dir string   // for everything
	via []string // a command that runs moult, such as nsenter; empty to run it itself
	env []string // in addition
}

func newHost(t testing.TB) *host {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755)) // it is made 0700, and others are to run what is in it
	must(t, os.Mkdir(dir+"/state", 0o755))
	return &host{TB: t, dir: dir}
}

// path is a path in the host's directory.
func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

// ended is a command that has ended.
type ended struct {
	args           string
	status         int
	stdout, stderr string
}

func (e ended) String() string {
	return fmt.Sprintf("%s: status %d\n%s%s", e.args, e.status, e.stdout, e.stderr)
}

// command is moult with these arguments, not started yet.
func (h *host) command(args ...string) *exec.Cmd {
	all := append(append([]string{}, h.via...), moultBinary)
	all = append(all, args...)
	cmd := exec.Command(all[0], all[1:]...)
	cmd.Env = append(append(os.Environ(), "MOULT_STATE_DIR="+h.dir+"/state"), h.env...)
	return cmd
}

// moult runs moult.
func (h *host) moult(args ...string) ended {
	h.Helper()
	return finish(h, h.command(args...))
}

// finish runs a command to its end, whatever that is.
func finish(t testing.TB, cmd *exec.Cmd) ended {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", strings.Join(cmd.Args, " "), err)
	}
	return ended{strings.Join(cmd.Args, " "), cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// ok runs moult, which must succeed.
func (h *host) ok(args ...string) ended {
	h.Helper()
	return h.status(0, args...)
}

// status runs moult, which must end with this exit status.
func (h *host) status(want int, args ...string) ended {
	h.Helper()
	got := h.moult(args...)
	if got.status != want {
		h.Fatalf("want status %d, got %v", want, got)
	}
	return got
}

// document runs moult --json with a given exit status and reads its result.
func (h *host) document(v any, status int, args ...string) {
	h.Helper()
	got := h.status(status, append([]string{"--json"}, args...)...)
	if err := json.Unmarshal([]byte(got.stdout), v); err != nil {
		h.Fatalf("%v: %v", got, err)
	}
}

// run runs a program that must succeed and returns what it prints.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	got := finish(t, exec.Command(name, args...))
	if got.status != 0 {
		t.Fatal(got)
	}
	return got.stdout
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
