package destroytest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"moult.example/internal/testneed"
)

// binaries is where the programs are built.
var binaries string

func TestMain(m *testing.M) {
	testneed.InOwnProcesses()
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "moult-destroytest-")
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
	binaries = dir
	return m.Run()
}

// program is moult as it is shipped, faulty the same with a disk that fails or
// kills it where MOULT_FAULT says.
var (
	program = sync.OnceValues(func() (string, error) { return build("moult") })
	faulty  = sync.OnceValues(func() (string, error) { return build("faulty-moult", "-tags", "faults") })
)

func build(name string, flags ...string) (string, error) {
	path := filepath.Join(binaries, name)
	args := append(append([]string{"build", "-buildvcs=false", "-o", path}, flags...), "moult.example/cmd/moult")
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go %v: %w\n%s", args, err, out)
	}
	return path, nil
}
