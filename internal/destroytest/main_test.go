package destroytest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// binaries is where the programs are built.
var binaries string

func TestMain(m *testing.M) {
	if alone, err := inOwnProcesses(); alone {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(testMain(m))
}

// inOwnProcesses runs the tests in a PID namespace of their own where there is
// a process that even root may not look into, as the init of some virtual
// machines. Such a process counts as a user of everything, so that nothing
// would ever be collected here.
func inOwnProcesses() (bool, error) {
	if os.Geteuid() != 0 || os.Getenv("MOULT_OWN_PROCESSES") != "" {
		return false, nil
	}
	if _, err := os.Readlink("/proc/1/cwd"); err == nil {
		return false, nil
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		return false, nil
	}
	// The shell is the one that waits for orphans.
	args := append([]string{"--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", `"$@"; exit $?`, "sh"}, os.Args...)
	cmd := exec.Command(unshare, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "MOULT_OWN_PROCESSES=1")
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		os.Exit(exit.ExitCode())
	}
	return true, err
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
