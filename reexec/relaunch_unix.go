//go:build unix

package reexec

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

func relaunch(o RelaunchOptions) error {
	path, err := programFile()
	if err != nil {
		return fmt.Errorf("relaunch this program: %w", err)
	}
	name := filepath.Base(path)
	if len(os.Args) > 0 {
		name = os.Args[0]
	}
	// syscall.Exec gives the soft limit of open files back to what it was when
	// the program started, and leaves it there if execve(2) fails (Go 1.26).
	var limit syscall.Rlimit
	limited := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil
	err = syscall.Exec(path, append([]string{name}, o.args()...), os.Environ())
	if limited {
		syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
	return fmt.Errorf("relaunch this program: %w", &os.PathError{Op: "exec", Path: path, Err: err})
}

func launched() <-chan struct{} {
	done := make(chan struct{})
	close(done)
	return done
}
