//go:build unix

package testneed

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// longestTemp is how long the path of the directory for temporary files may be
// for a test: it makes sockets there, whose paths have 108 bytes, and messages of
// servers are cut.
const longestTemp = 24

// Whoever runs the tests, and from wherever: what they make has the modes that
// they compare, and what tools say is English. What they mount is their own.
// Programs that a test makes of its own binary have other names, and are left as
// they were started.
func init() {
	if !strings.HasSuffix(os.Args[0], ".test") {
		return
	}
	ownMounts()
	unix.Umask(0o022)
	os.Setenv("LC_ALL", "C.UTF-8")
	if dir := os.TempDir(); len(dir) > longestTemp || strings.ContainsAny(dir, " \t\n:;,") {
		os.Setenv("TMPDIR", "/tmp") // tools take these for the ends of names
	}
}
