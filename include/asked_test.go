package include_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Who asks has a file tried again whose preflight failed: it may have been the
// machine that was not fit.
func TestAskedAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	source := filepath.Join(dir, "early.c")
	os.WriteFile(source, []byte(`#include <stdlib.h>
#include <unistd.h>
__attribute__((constructor)) void early_exit(void) { if (getenv("MOULT_PREFLIGHT") && access("`+filepath.Join(dir, "fit")+`", F_OK)) _exit(7); }
`), 0o644)
	two := compile(t, "gcc", cServer, filepath.Join(dir, "two"), "-std=gnu99", "-w", source, version("2"))
	path := filepath.Join(dir, "server")
	place(t, server(t, version("1")), path)
	p := start(t, path)
	place(t, two, path)
	p.says("its preflight ended with status 7")
	os.WriteFile(filepath.Join(dir, "fit"), nil, 0o644)
	p.cmd.Process.Signal(syscall.SIGUSR2)
	if a := p.serves("2"); a.generation != 1 {
		t.Errorf("generation %d, want 1", a.generation)
	}
}

// What was asked for when it could not be done is done when it can.
func TestAskedTooEarly(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "server")
	place(t, server(t, version("1")), path)
	p := start(t, path)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	p.cmd.Process.Signal(syscall.SIGUSR2) // for the same file
	p.says("not executable")
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	p.wait("generation 1", func() bool { a, err := get(p.port); return err == nil && a.generation == 1 })
}
