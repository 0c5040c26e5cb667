package destroytest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"moult.example/internal/disk/disktest"
)

// host is a place of the test's own: a directory for targets and releases, and
// a registry of targets.
type host struct {
	testing.TB
	dir string
}

func newHost(t testing.TB) *host {
	t.Helper()
	return newHostIn(t, disktest.TempDir(t))
}

// newHostIn is a host in a directory that has a reason, such as another file
// system.
func newHostIn(t testing.TB, dir string) *host {
	t.Helper()
	must(t, os.Chmod(dir, 0o755)) // others than root are to run what is in it
	return &host{t, dir}
}

// path is a path in the host's directory.
func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

// ended is a command that has ended.
type ended struct {
	args           string
	status         int // -1: killed
	killed         bool
	stdout, stderr string
}

func (e ended) String() string {
	return fmt.Sprintf("%s: status %d\n%s%s", e.args, e.status, e.stdout, e.stderr)
}

// command is moult with these arguments, in the host's directory, not started.
func (h *host) command(args ...string) *exec.Cmd {
	h.Helper()
	path, err := program()
	must(h, err)
	return h.with(path, nil, args)
}

// faulty is the same with a disk that goes wrong: env says how.
func (h *host) faulty(env []string, args ...string) *exec.Cmd {
	h.Helper()
	path, err := faulty()
	must(h, err)
	return h.with(path, env, args)
}

func (h *host) with(path string, env, args []string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Dir = h.dir
	cmd.Env = append(append(os.Environ(), "MOULT_STATE_DIR="+h.path("state"), "TZ=UTC"), env...)
	return cmd
}

// finish runs a command to its end, whatever that is.
func (h *host) finish(cmd *exec.Cmd) ended {
	h.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.Fatalf("%s: %v", strings.Join(cmd.Args, " "), err)
	}
	return endOf(cmd, stdout.String(), stderr.String())
}

func endOf(cmd *exec.Cmd, stdout, stderr string) ended {
	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ended{
		args: strings.Join(cmd.Args[1:], " "), status: cmd.ProcessState.ExitCode(),
		killed: status.Signaled() && status.Signal() == syscall.SIGKILL, stdout: stdout, stderr: stderr,
	}
}

// moult runs moult.
func (h *host) moult(args ...string) ended {
	h.Helper()
	return h.finish(h.command(args...))
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

// refused runs moult, which must end with status 1, name what it was about, and
// say all of says.
func (h *host) refused(says []string, args ...string) ended {
	h.Helper()
	got := h.status(1, args...)
	h.tells(got, says...)
	return got
}

// tells wants words in what a command has said on standard error.
func (h *host) tells(got ended, says ...string) {
	h.Helper()
	for _, words := range says {
		if !strings.Contains(got.stderr, words) {
			h.Errorf("the message does not say %q: %v", words, got)
		}
	}
}

// document runs moult --json with a given exit status and reads its result.
func (h *host) document(v any, status int, args ...string) {
	h.Helper()
	got := h.status(status, append([]string{"--json"}, args...)...)
	if err := json.Unmarshal([]byte(got.stdout), v); err != nil {
		h.Fatalf("%v: %v", err, got)
	}
}

// unchanged does something that must leave all of the host's directory as it
// was.
func (h *host) unchanged(do func()) {
	h.Helper()
	before := capture(h, h.dir)
	do()
	if diff := before.Diff(capture(h, h.dir)); diff != "" {
		h.Errorf("it has changed something:\n%s", diff)
	}
}

func capture(t testing.TB, dir string) *disktest.Tree {
	t.Helper()
	tree, err := disktest.Capture(dir)
	must(t, err)
	return tree
}

// run runs a program that must succeed and returns what it prints.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
