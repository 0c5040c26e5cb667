package reexec_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"moult.example/internal/testneed"
	"moult.example/reexec"
)

// TestOpenForWriting: who has written the new file still holds it open, so that
// it cannot be executed yet. That is no fault of the file.
func TestOpenForWriting(t *testing.T) {
	t.Parallel()
	s := startServer(t, config{})
	program(t, s.exe+".new", trailer{Version: 2})
	writer, err := os.OpenFile(s.exe+".new", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	if err := os.Rename(s.exe+".new", s.exe); err != nil {
		t.Fatal(err)
	}
	if line := s.wait("event failed "); !strings.Contains(line, unix.ETXTBSY.Error()) {
		t.Errorf("it says %q, want %v", line, unix.ETXTBSY)
	}
	writer.Close()
	s.waitVersion(2)
	if rejected := s.lines("event rejected "); len(rejected) > 0 {
		t.Errorf("rejected: %q, want it tried again", rejected)
	}
}

// TestUnreadable: a program that has dropped root may execute the new file, and
// cannot look at it.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	testneed.Root(t)
	s, c := newServer(t, config{User: 65534})
	s.exe = filepath.Join(publicDir(t), "server")
	program(t, s.exe, trailer{Version: 1})
	s.run(c, s.exe)
	b, err := os.ReadFile(s.exe)
	if err != nil {
		t.Fatal(err)
	}
	place(t, s.exe, append(b, ' '), 0o711)
	if line := s.wait("event failed "); !strings.Contains(line, "permission denied") {
		t.Errorf("it says %q, want why", line)
	}
}

// TestTrialOrphan: when the process is killed during a trial, the trial ends as
// well: it holds the sockets, and the next start could not listen.
func TestTrialOrphan(t *testing.T) {
	t.Parallel()
	s := startServer(t, config{Options: reexec.Options{Preflight: reexec.Trial}})
	program(t, s.exe, trailer{Version: 2, Fails: "hang"})
	s.until("the trial", func() bool {
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", s.cmd.Process.Pid))
		for _, list := range lists {
			if text, _ := os.ReadFile(list); len(text) > 0 {
				return true
			}
		}
		return false
	})
	s.cmd.Process.Kill()
	<-s.end
	s.until("the port to be free", func() bool {
		ln, err := net.Listen("tcp", s.addr)
		if err == nil {
			ln.Close()
		}
		return err == nil
	})
}

// TestRollBackWithoutDescriptors: the new code has used up all descriptors, and
// the old one comes back all the same.
func TestRollBackWithoutDescriptors(t *testing.T) {
	t.Parallel()
	s, c := newServer(t, config{})
	s.runCommand(exec.Command("/bin/sh", "-c", `ulimit -n 200; exec "$0" serve "$1"`, s.exe, c.text()))
	program(t, s.exe, trailer{Version: 2, Fails: "descriptors"})
	s.wait("event rolled-back ")
	s.waitVersion(1)
}

// TestRejectedAndMended: what a preflight found missing is there when the service
// manager starts the program: it runs, and not the last good version.
func TestRejectedAndMended(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	needs := filepath.Join(dir, "needs")
	s, c := newServer(t, config{Options: reexec.Options{StateDir: dir, Probation: 20 * time.Millisecond}})
	s.env = []string{"MOULT_TEST_NEEDS=" + needs}
	s.run(c, s.exe)
	s.until("the good one", func() bool {
		text, _ := os.ReadFile(filepath.Join(dir, "reexec.json"))
		return strings.Contains(string(text), `"good"`)
	})
	program(t, s.exe, trailer{Version: 2, Fails: "needs"})
	s.wait("event rejected ")
	s.cmd.Process.Kill()
	<-s.end
	if err := os.WriteFile(needs, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.run(c, s.exe)
	if got := s.status(); got.Version != 2 {
		t.Errorf("version %d runs, want 2", got.Version)
	}
}

// TestHostileState: what is in StateDir neither holds the program up nor makes it
// forget that a version has run for long.
func TestHostileState(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		put  func(path string) error
	}{
		{"garbage", func(path string) error { return os.WriteFile(path, []byte("{\x00"), 0o600) }},
		{"FIFO", func(path string) error { return unix.Mkfifo(path, 0o600) }},
		{"without end", func(path string) error { return os.Symlink("/dev/zero", path) }},
		{"huge", func(path string) error {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				return err
			}
			return os.Truncate(path, 1<<40)
		}},
		{"directory", func(path string) error { return os.Mkdir(path, 0o700) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := test.put(filepath.Join(dir, "reexec.json")); err != nil {
				t.Fatal(err)
			}
			s := startServer(t, config{Options: reexec.Options{StateDir: dir}})
			if line := s.wait("event warning "); !strings.Contains(line, "state: ") {
				t.Errorf("it says %q, want a word about the state", line)
			}
		})
	}
}

// TestNoRoomForGood: the copy of the last good executable cannot be made. The
// version has survived all the same, and its later ends are no crash loop.
func TestNoRoomForGood(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "reexec.good"), 0o700); err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(dir, ".reexec.good.4194305") // above the highest PID
	if err := os.WriteFile(dead, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, c := newServer(t, config{Options: reexec.Options{StateDir: dir, Probation: 20 * time.Millisecond}})
	for n := 1; n <= 5; n++ {
		s.run(c, s.exe)
		s.waitN("event warning ", n)
		s.cmd.Process.Kill()
		<-s.end
	}
	if loops := s.lines("event boot-loop "); len(loops) > 0 {
		t.Errorf("it says %q, want nothing of the kind", loops)
	}
	if _, err := os.Lstat(dead); err == nil {
		t.Errorf("%s of a dead process is still there", dead)
	}
}
