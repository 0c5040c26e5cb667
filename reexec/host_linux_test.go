package reexec_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"moult.example/internal/testneed"
)

// publicDir is a directory that other users can look into.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "moult-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestDroppedRoot: the program listened as root and is somebody else now, who
// could not listen there.
func TestDroppedRoot(t *testing.T) {
	t.Parallel()
	testneed.Root(t)
	// An address of its own: no other test has a port there.
	addr := fmt.Sprintf("127.%d.%d.%d:900", 1+rand.N(254), rand.N(256), 1+rand.N(254))
	s, c := newServer(t, config{User: 65534, Addr: addr})
	s.exe = filepath.Join(publicDir(t), "server")
	program(t, s.exe, trailer{Version: 1})
	s.run(c, s.exe)
	program(t, s.exe, trailer{Version: 2})
	if got := s.waitVersion(2); got.UID != 65534 || got.PID != s.cmd.Process.Pid {
		t.Errorf("user %d in PID %d, want 65534 in %d", got.UID, got.PID, s.cmd.Process.Pid)
	}
	// The way back, too.
	program(t, s.exe, trailer{Version: 3, Fails: "state"})
	s.wait("event rolled-back ")
	if got := s.waitVersion(2); got.UID != 65534 {
		t.Errorf("user %d, want 65534", got.UID)
	}
}

// TestSetUserID: such a program is not replaced, and does not believe what its
// environment says.
func TestSetUserID(t *testing.T) {
	t.Parallel()
	testneed.Root(t)
	s, c := newServer(t, config{})
	s.exe = filepath.Join(publicDir(t), "server")
	program(t, s.exe, trailer{Version: 1})
	if err := os.Chmod(s.exe, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	s.env = []string{"MOULT_PREFLIGHT=0123456789abcdef", "MOULT_FD=99"}
	cmd := exec.Command(s.exe, "serve", c.text())
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	s.runCommand(cmd)
	if got := s.status(); got.UID != 0 {
		testneed.Skip(t, "set-user-id has no effect here")
	}
	answer, err := s.post("/upgrade", "")
	if err != nil || !strings.Contains(answer, "not supported") {
		t.Errorf("upgrade: %q, %v; want that it is not supported", answer, err)
	}
	program(t, s.exe, trailer{Version: 2})
	s.cmd.Process.Signal(unix.SIGUSR2)
	time.Sleep(100 * time.Millisecond) // ten looks
	if got := s.status(); got.Version != 1 || got.Generation != 0 {
		t.Errorf("version %d, generation %d; want 1, 0", got.Version, got.Generation)
	}
}

// TestChroot: no /proc, another root, a static program.
func TestChroot(t *testing.T) {
	t.Parallel()
	testneed.Root(t)
	root := publicDir(t)
	os.Mkdir(filepath.Join(root, "dev"), 0o755)
	if err := unix.Mknod(filepath.Join(root, "dev/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		testneed.Skip(t, "mknod: "+err.Error())
	}
	build := func(version string) {
		cmd := exec.Command("go", "build", "-ldflags", "-X main.version="+version, "-o", filepath.Join(root, "new"), "../examples/go-server")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build: %v\n%s", err, out)
		}
		if err := os.Rename(filepath.Join(root, "new"), filepath.Join(root, "server")); err != nil {
			t.Fatal(err)
		}
	}
	build("1")
	addr := "127.0.0.1:" + itoa(testneed.Port(t))
	cmd := exec.Command("/server", "-addr", addr, "-poll", "10ms", "-settle", "30ms")
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	cmd.Dir = "/"
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, addr: addr, cmd: cmd, log: log.Name()}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	waitAnswer := func(want string) {
		t.Helper()
		s.until("an answer with "+want+"; it says "+s.said(), func() bool {
			got, err := s.post("/", "x")
			return err == nil && strings.Contains(got, want)
		})
	}
	waitAnswer("version=1 pid=" + itoa(cmd.Process.Pid))
	build("2")
	waitAnswer("version=2 pid=" + itoa(cmd.Process.Pid))
	place(t, filepath.Join(root, "server"), []byte("nonsense"), 0o755)
	s.until("the rejection", func() bool { return strings.Contains(s.said(), "reexec: rejected") })
	waitAnswer("version=2")
	cmd.Process.Signal(unix.SIGUSR2) // asked for, it is looked at again
	s.until("the second one", func() bool { return strings.Count(s.said(), "reexec: rejected") > 1 })
	waitAnswer("version=2 pid=" + itoa(cmd.Process.Pid))
}

// TestChildren: a child of the old code goes on, and when it ends it is no zombie
// of the new one.
func TestChildren(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, config{Child: "read line < " + pipe})
	child := field(s.wait("child "), "pid")
	program(t, s.exe, trailer{Version: 2})
	s.waitVersion(2)
	if _, err := os.Stat("/proc/" + child); err != nil {
		t.Errorf("the child: %v, want it alive", err)
	}
	if err := os.WriteFile(pipe, []byte("end\n"), 0); err != nil {
		t.Fatal(err)
	}
	s.until("the child to be gone", func() bool { _, err := os.Stat("/proc/" + child); return err != nil })
}

// TestFirstProcess: as PID 1 of a container, which no signal ends by default.
func TestFirstProcess(t *testing.T) {
	t.Parallel()
	testneed.Root(t)
	s, c := newServer(t, config{})
	cmd := exec.Command("/bin/sh", "-c", `mount -t proc proc /proc && exec "$0" serve "$1"`, s.exe, c.text())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Unshareflags: unix.CLONE_NEWNS}
	s.runCommand(cmd)
	for version := 2; version <= 3; version++ {
		program(t, s.exe, trailer{Version: version})
		if got := s.waitVersion(version); got.PID != 1 {
			t.Errorf("PID %d, want 1", got.PID)
		}
	}
	program(t, s.exe, trailer{Version: 4, Fails: "state"})
	s.wait("event rolled-back ")
	if got := s.waitVersion(3); got.PID != 1 {
		t.Errorf("PID %d, want 1", got.PID)
	}
}
