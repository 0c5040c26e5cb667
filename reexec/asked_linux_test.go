package reexec_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAskedInVain: who has asked for an upgrade that is rejected is told so by
// what the program shows of itself; what it has rejected unasked is no answer.
func TestAskedInVain(t *testing.T) {
	t.Parallel()
	s := startServer(t, config{})
	program(t, s.exe+".new", trailer{Version: 2})
	os.Chmod(s.exe+".new", 0o644)
	os.Rename(s.exe+".new", s.exe)
	s.wait("event rejected ")
	for _, want := range []string{"\nrejected 0\n", "\nrejected 1\n", "\nrejected 2\n"} {
		s.until("that it shows "+want+" in one file", func() bool {
			text, n := shownInfo(s.cmd.Process.Pid)
			return strings.Contains(text, want) && n == 1
		})
		s.cmd.Process.Signal(unix.SIGUSR2)
	}
}

// TestStarting: new code shows that it is not ready yet, and may be taken back.
func TestStarting(t *testing.T) {
	t.Parallel()
	s, c := newServer(t, config{})
	needs := filepath.Join(t.TempDir(), "needs")
	s.env = []string{"MOULT_TEST_NEEDS=" + needs}
	s.run(c, s.exe)
	shows := func(what, want string, starting bool) {
		t.Helper()
		s.until(what, func() bool {
			text, n := shownInfo(s.cmd.Process.Pid)
			return n == 1 && strings.Contains(text, want) && strings.Contains(text, "\nstarting 1\n") == starting
		})
	}
	shows("the first to be ready", "\ngeneration 0\n", false)
	program(t, s.exe, trailer{Version: 2, Fails: "awaits"})
	shows("the second one", "\ngeneration 1\n", true)
	if err := os.WriteFile(needs, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	shows("the first to be back", "\ngeneration 2\n", false)
}

// shownInfo is what a process shows of itself, and in how many files.
func shownInfo(pid int) (text string, n int) {
	all, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, fd := range all {
		if to, err := os.Readlink(fd); err == nil && to == "/memfd:moult-reexec (deleted)" {
			data, _ := os.ReadFile(fd)
			text, n = string(data), n+1
		}
	}
	return text, n
}
