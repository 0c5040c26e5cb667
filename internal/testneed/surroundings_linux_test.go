package testneed

import (
	"fmt"
	"os"
	"os/signal"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSurroundings: tests have mounts of their own, hear signals, and make files
// with the modes that they compare, whoever runs them.
func TestSurroundings(t *testing.T) {
	mask := unix.Umask(0)
	if unix.Umask(mask); mask != 0o022 {
		t.Errorf("umask %03o, want 022", mask)
	}
	Root(t)
	if os.Getenv(withOwnMounts) == "" {
		Skip(t, "needs a mount namespace of its own, which even root may not have everywhere")
	}
	ours, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", os.Getppid()))
	if err != nil {
		Skip(t, err.Error())
	}
	if ours == theirs {
		t.Error("the mounts are those of who runs the tests")
	}
	if signal.Ignored(unix.SIGINT) || signal.Ignored(unix.SIGHUP) {
		t.Error("SIGINT or SIGHUP is ignored")
	}
}
