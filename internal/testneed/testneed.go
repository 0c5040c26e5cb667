// Package testneed says what a test needs of the machine it runs on.
//
// A test whose need is not met is skipped with the reason. Under MOULT_CI=1 it
// fails instead: there a test that must run and was skipped is a fault of the
// set-up (see scripts/setup).
package testneed

import (
	"os"
	"os/exec"
	"testing"
)

// Skip skips the test for a reason, or fails it under MOULT_CI=1.
func Skip(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("MOULT_CI") == "1" {
		t.Fatalf("must run here, but: %s", why)
	}
	t.Skip(why)
}

// Root needs the test to run as root.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Skip(t, "needs root")
	}
}

// Tool needs a program in PATH and returns where it is.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Skip(t, "needs the program "+name)
	}
	return path
}
