package testneed

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

const withOwnMounts = "MOULT_OWN_MOUNTS"

// ownMounts executes the tests of a package anew in a mount namespace of their
// own, if it may. Packages are tested side by side, and who makes such a
// namespace for a program copies all mounts that are there at that moment: it
// would use, and keep busy, what another package has mounted and is about to
// unmount.
func ownMounts() {
	if os.Geteuid() != 0 || os.Getenv(withOwnMounts) != "" {
		return
	}
	// By its path: /proc/self/exe leads to where the file is mounted for who runs the
	// tests, which in a chroot(2) is a path that is not there.
	path, err := os.Executable()
	if err != nil {
		return
	}
	// The namespace is that of the thread until it executes something.
	runtime.LockOSThread()
	if unix.Unshare(unix.CLONE_NEWNS) != nil {
		runtime.UnlockOSThread()
		return
	}
	// What we catch is not ignored after that: in the background of a shell some
	// signals are, and programs that a test interrupts would not hear it.
	signal.Notify(make(chan os.Signal, 1), unix.SIGINT, unix.SIGQUIT, unix.SIGHUP, unix.SIGTERM)
	_ = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") // who may not do this has to do without
	os.Setenv(withOwnMounts, "1")
	err = syscall.Exec(path, os.Args, os.Environ())
	panic(fmt.Sprintf("execute the tests in a mount namespace: %v", err))
}
