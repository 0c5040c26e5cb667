package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	ossignal "os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestInterrupt stops a moult that waits for the rest of a tar: it ends with 130,
// says that nothing has changed, and leaves nothing.
func TestInterrupt(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(signal.String(), func(t *testing.T) {
			// In the background of a shell it may be ignored, which moult would
			// inherit. What we catch is not ignored in a child.
			caught := make(chan os.Signal, 1)
			ossignal.Notify(caught, signal)
			defer ossignal.Stop(caught)
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "tmp"), 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("moult", "apply", "-", "target")
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "MOULT_STATE_DIR="+dir+"/state", "TMPDIR="+dir+"/tmp")
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			// A pipe holds 64 kB: when the last write is done, moult has read.
			if _, err := stdin.Write(beginningOfTar(t, 200<<10)); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			// A moult that does not hear it would wait for ever.
			deadline := time.AfterFunc(limit, func() { cmd.Process.Kill() })
			defer deadline.Stop()
			var exit *exec.ExitError
			if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != statusInterrupted {
				t.Errorf("moult ended with %v, want status 130; stderr %q", err, stderr.String())
			}
			if want := "moult: apply: interrupted, nothing has changed\n"; stderr.String() != want {
				t.Errorf("stderr is %q, want %q", stderr.String(), want)
			}
			left, _ := filepath.Glob(dir + "/*")
			inTmp, _ := filepath.Glob(dir + "/tmp/*")
			if got := strings.Join(append(left, inTmp...), " "); got != dir+"/tmp" {
				t.Errorf("left behind: %s", got)
			}
		})
	}
}

// beginningOfTar is a tar of one file of 1 GB, cut after n bytes of it.
func beginningOfTar(t *testing.T, n int) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "tool", Mode: 0o755, Size: 1 << 30}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestInput wants standard input read to its end.
func TestInput(t *testing.T) {
	status, stdout, stderr := runMoult("apply", "-", filepath.Join(t.TempDir(), "target"))
	if status != statusFailed || stdout != "" || stderr == "" {
		t.Errorf("an empty input: status %d, stdout %q, stderr %q, want 1 and an error", status, stdout, stderr)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString("abc"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	a := newApp(r, io.Discard, io.Discard, nil)
	if got, err := io.ReadAll(a.input(t.Context())); string(got) != "abc" || err != nil {
		t.Errorf("read %q, %v, want abc", got, err)
	}
}
