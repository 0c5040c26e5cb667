package testneed

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// InOwnProcesses runs the tests of a package, for its TestMain, in a PID
// namespace of their own where there is a process that even root may not look
// into, as the init of some virtual machines: such a process counts as a user of
// everything, and nothing would ever be collected. It does not return if it has
// run them.
func InOwnProcesses() {
	if os.Geteuid() != 0 || os.Getenv("MOULT_OWN_PROCESSES") != "" {
		return
	}
	if _, err := os.Readlink("/proc/1/cwd"); err == nil {
		return
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		return
	}
	// The shell is the one that waits for orphans.
	args := append([]string{"--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", `"$@"; exit $?`, "sh"}, os.Args...)
	cmd := exec.Command(unshare, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "MOULT_OWN_PROCESSES=1")
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		os.Exit(0)
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		os.Exit(exit.ExitCode())
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
