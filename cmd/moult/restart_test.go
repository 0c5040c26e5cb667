package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/restart/restarttest"
	"moult.example/internal/testneed"
)

// servedTarget is a target with a service that runs from it, under a systemd of
// our own.
type servedTarget struct {
	*restarttest.Systemd
	t      *testing.T
	dir    string
	target string
	url    string
	pace   time.Duration // the longest that a moult has taken that has succeeded
}

// patience is a limit for what cannot get well, in which what can surely does on
// this machine: ten times what anything has taken so far.
func (s *servedTarget) patience() string {
	return max(5*time.Second, 10*s.pace).Round(time.Second).String()
}

const okStatus = "200 OK"

func newServedTarget(t *testing.T, layout string) *servedTarget {
	t.Helper()
	restarttest.Apart(t)
	port := testneed.Port(t)
	s := &servedTarget{Systemd: restarttest.Start(t, -1), t: t, dir: t.TempDir(), url: fmt.Sprintf("http://127.0.0.1:%d/", port)}
	s.target = filepath.Join(s.dir, "target")
	s.moult(0, "apply", "--layout", layout, s.release("1", okStatus), s.target)
	s.Add(restarttest.Unit{Name: "app.service", Argv: []string{s.target + "/bin/server", fmt.Sprintf("port=%d", port)}})
	return s
}

// release makes a release whose service answers with an HTTP status.
func (s *servedTarget) release(version, status string) string {
	s.t.Helper()
	dir := filepath.Join(s.dir, "release-"+version)
	if err := os.MkdirAll(dir+"/bin", 0o755); err != nil {
		s.t.Fatal(err)
	}
	restarttest.Server(s.t, dir+"/bin/server", version, status)
	text := "name = \"app\"\nversion = \"" + version + "\"\n"
	if err := os.WriteFile(dir+"/moult.toml", []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	return dir
}

// moult runs the program and wants a status.
func (s *servedTarget) moult(status int, args ...string) (stdout, stderr string) {
	s.t.Helper()
	var out, errs bytes.Buffer
	s.moultTo(&out, &errs, status, args...)
	return out.String(), errs.String()
}

func (s *servedTarget) moultTo(out, errs *bytes.Buffer, status int, args ...string) {
	s.t.Helper()
	cmd := exec.Command("moult", args...)
	cmd.Env = append(os.Environ(), "MOULT_STATE_DIR="+s.dir+"/state", "DBUS_SYSTEM_BUS_ADDRESS="+s.Address)
	cmd.Stdout, cmd.Stderr = out, errs
	began := time.Now()
	err := cmd.Run()
	if err == nil {
		s.pace = max(s.pace, time.Since(began))
	}
	var exit *exec.ExitError
	got := 0
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		s.t.Fatal(err)
	}
	if got != status {
		s.t.Fatalf("moult %s: status %d, want %d\n%s%s", strings.Join(args, " "), got, status, out.String(), errs.String())
	}
}

// runsVersion wants the service to be a process of the version.
func (s *servedTarget) runsVersion(version string) {
	s.t.Helper()
	pid := s.PID("app.service")
	exe, err := os.ReadFile(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		s.t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(s.dir, "release-"+version, "bin/server"))
	if err != nil {
		s.t.Fatal(err)
	}
	if !bytes.Equal(exe, file) {
		s.t.Errorf("process %d does not run version %s", pid, version)
	}
}

// mentions wants parts of a text.
func mentions(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in %q", part, text)
		}
	}
}

func testLayouts(t *testing.T, test func(t *testing.T, layout string)) {
	cleanUp(t)
	var all sync.WaitGroup // and not t.Parallel, which counts processors: they mostly wait
	defer all.Wait()
	for _, layout := range []string{"shared", "owned"} {
		all.Go(func() { t.Run(layout, func(t *testing.T) { test(t, layout) }) })
	}
}

// cleanUp removes in the end what the test and its parts have in common.
func cleanUp(t *testing.T) {
	t.Cleanup(restarttest.RemoveServers)
	t.Cleanup(restarttest.RemoveGroups)
}

// TestApplyRestart brings a service along, and back again where the new release
// is not well.
func TestApplyRestart(t *testing.T) {
	testLayouts(t, func(t *testing.T, layout string) {
		s := newServedTarget(t, layout)
		first := s.PID("app.service")
		out, _ := s.moult(0, "apply", "--restart", "--health", s.url, s.release("2", okStatus), s.target)
		mentions(t, out, "generation 2 is live, was 1", s.target+": 1 restart done", "done  app.service  process ", "well: "+s.url)
		s.runsVersion("2")
		if second := s.PID("app.service"); second == first || s.Restarted("app.service") != 1 {
			t.Errorf("process %d after %d, restarted %v, want another, restarted once", second, first, s.Calls())
		}

		// Old generations are kept, however long ago they were live.
		out, errs := s.moult(4, "apply", "--generations", "9", "--restart", "--health", s.url, "--health-timeout", s.patience(), s.release("3", "503 Service Unavailable"), s.target)
		mentions(t, out, "generation 3 is live, was 2", "not well: "+s.url+`: it answers "503 Service Unavailable"`, "generation 2 is live, was 3", "well: "+s.url+" (")
		mentions(t, errs, "moult: apply: generation 3: ", "; generation 2 is live again, and well\n", "moult: hint: ")
		s.runsVersion("2")
		if s.Restarted("app.service") != 3 {
			t.Errorf("restarted %v, want it twice more", s.Calls())
		}

		// Neither is well: what is said is what there is.
		out, errs = s.moult(4, "apply", "--generations", "9", "--json", "--restart", "--health", "false", "--health-timeout", "400ms", s.release("4", okStatus), s.target)
		var d struct {
			Schema, Generation int
			Restart            struct{ Healthy bool }
			Rollback           struct{ Generation int }
			Again              struct{ Healthy bool } `json:"restart_after_rollback"`
		}
		if err := json.Unmarshal([]byte(out), &d); err != nil || d.Schema != 1 || d.Generation < 3 || d.Restart.Healthy || d.Rollback.Generation != 2 || d.Again.Healthy {
			t.Errorf("got %+v, %v, want generation 4, not healthy, a rollback to 2, not healthy", d, err)
		}
		mentions(t, errs, "generation 2 is live again, and that is not well either: ")
		s.runsVersion("2")

		// What is no good does not come back unless it is named.
		out, _ = s.moult(0, "history", s.target)
		mentions(t, out, "done, rolled back: not healthy")
		out, errs = s.moult(0, "rollback", "--dry-run", s.target)
		mentions(t, out, "generation 1 can be live again")
		mentions(t, errs, "which a rollback has left: not healthy: passed over")

		// The same release once more: it is live, and nothing of it is this
		// command's, so nothing is taken back.
		out, errs = s.moult(4, "apply", "--restart", "--health", "false", "--health-timeout", "400ms", s.release("2", okStatus), s.target)
		mentions(t, out, "generation 2 is live already", "nothing to restart")
		mentions(t, out, "not well: false: ")
		mentions(t, errs, "generation 2 is live: not all is well")
		s.moult(0, "apply", "--restart", "--health", "true", s.release("2", okStatus), s.target)
	})
}

// TestOrder wants each thing said once, when it has happened, by whichever
// stream: a person sees both.
func TestOrder(t *testing.T) {
	cleanUp(t)
	s := newServedTarget(t, "owned")
	var both bytes.Buffer
	s.moultTo(&both, &both, 4, "apply", "--restart", "--timeout", limit.String(), "--health", s.url, "--health-timeout", s.patience(), s.release("2", "503 Service Unavailable"), s.target)
	at := 0
	for _, part := range []string{
		"generation 2 is live, was 1", "1 restart done", "503 Service Unavailable", "moult: not well, going back to generation 1\n",
		"generation 1 is live, was 2", "1 restart done", "well: " + s.url, "moult: apply: generation 2: not all is well; generation 1 is live again, and well\n",
	} {
		i := strings.Index(both.String()[at:], part)
		if i < 0 {
			t.Fatalf("no %q where it should be:\n%s", part, both.String())
		}
		at += i + len(part)
	}
	if n := strings.Count(both.String(), "503"); n != 1 {
		t.Errorf("the reason is said %d times, want once:\n%s", n, both.String())
	}
}

// TestWithoutProgram has a release without the service's program: it could not be
// started again, so with a probe the release does not stay, though the old process
// answers well.
func TestWithoutProgram(t *testing.T) {
	cleanUp(t)
	s := newServedTarget(t, "owned") // in a shared one a program in use keeps its name
	bad := s.release("2", okStatus)
	if err := os.Rename(bad+"/bin/server", bad+"/bin/other"); err != nil {
		t.Fatal(err)
	}
	pid := s.PID("app.service")
	out, errs := s.moult(4, "apply", "--restart", "--health", s.url, bad, s.target)
	mentions(t, out, "generation 2 is live, was 1", "left alone:", "a restart would fail: ", "generation 1 is live, was 2", "well: "+s.url)
	mentions(t, errs, "moult: apply: generation 2: not all is well; generation 1 is live again, and well\n")
	if s.PID("app.service") != pid || strings.Count(out, "well: ") != 1 {
		t.Errorf("process %d after %d, want the same, and one question: %s", s.PID("app.service"), pid, out)
	}
	s.runsVersion("1")

	// Who asks nothing finds out, and hears what it is that is missing.
	out, errs = s.moult(3, "apply", "--restart", bad, s.target)
	mentions(t, out, "a restart would fail: ", "1 process is still stale")
	mentions(t, errs, "moult: apply: stale processes remain: 1\nmoult: hint: "+goneHint+"\n")
}

// TestRestartAfterCrash has a release whose service does not stay up: systemd has
// given it up by the time of the rollback, and it must come up again.
func TestRestartAfterCrash(t *testing.T) {
	testLayouts(t, func(t *testing.T, layout string) {
		s := newServedTarget(t, layout)
		for version, script := range map[string]string{"2": "exit 1", "3": "sleep 0.3; exit 1"} {
			bad := s.release(version, okStatus)
			if err := os.WriteFile(bad+"/bin/server", []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			out, errs := s.moult(4, "apply", "--restart", "--health", s.url, "--health-timeout", s.patience(), bad, s.target)
			mentions(t, errs, "; generation 1 is live again, and well\n")
			mentions(t, out, "well: "+s.url+" (")
			s.runsVersion("1")
		}
	})
}

// TestCommitRestart is the same for commit, and for a rollback, which is never
// followed by another.
func TestCommitRestart(t *testing.T) {
	testLayouts(t, func(t *testing.T, layout string) {
		s := newServedTarget(t, layout)
		s.moult(0, "stage", s.release("2", okStatus), s.target)
		s.moult(0, "commit", "--restart", s.target)
		s.runsVersion("2")
		out, errs := s.moult(4, "rollback", "--restart", "--health", "false", "--health-timeout", "400ms", s.target)
		mentions(t, out, "generation 1 is live, was 2")
		mentions(t, errs, "moult: rollback: generation 1 is live: ")
		s.runsVersion("1")
		s.moult(0, "stage", s.release("3", "500 No"), s.target)
		_, errs = s.moult(4, "commit", "--restart", "--health", s.url, "--health-timeout", s.patience(), s.target)
		mentions(t, errs, "generation 1 is live again, and well")
		s.runsVersion("1")
		// Not well, and nobody was to be restarted.
		s.moult(0, "apply", s.release("2", okStatus), s.target)
		out, errs = s.moult(4, "rollback", "--health", "false", "--health-timeout", "400ms", s.target)
		mentions(t, errs, "generation 1 is live: not all is well")
		mentions(t, out, "not well: false")

		// What somebody else makes live meanwhile stays. A probe is repeated until
		// the time is over: one that is in its apply then would hold the target.
		meanwhile := "mkdir " + t.TempDir() + "/once && moult apply " + s.release("5", okStatus) + " " + s.target + " >&2; false"
		out, errs = s.moult(4, "apply", "--health", meanwhile, "--health-timeout", s.patience(), s.release("4", okStatus), s.target)
		mentions(t, errs, "; there was no rollback: somebody has made generation ", " live meanwhile, which stays")
		if strings.Contains(out, "is live, was 4") {
			t.Errorf("it was taken back: %s", out)
		}
	})
}

// TestRestart plans and restarts by itself.
func TestRestart(t *testing.T) {
	testLayouts(t, func(t *testing.T, layout string) {
		s := newServedTarget(t, layout)
		out, _ := s.moult(0, "restart", s.target)
		mentions(t, out, s.target+": nothing to restart\n")
		s.moult(0, "apply", s.release("2", okStatus), s.target)
		out, _ = s.moult(0, "restart", "--dry-run", s.target)
		mentions(t, out, "1 restart planned", fmt.Sprintf("unit  app.service  for process %d\n", s.PID("app.service")))
		out, _ = s.moult(0, "restart", "--dry-run", "--json", s.target)
		mentions(t, out, `"schema": 1`, `"dry_run": true`, `"method": "unit"`, `"foreign": false`)
		out, errs := s.moult(3, "restart", "--deny", "app.*", s.target)
		mentions(t, out, "nothing that moult can restart", "left alone:", "server (", "it is denied (app.*)", "1 process is still stale")
		mentions(t, errs, "moult: restart: stale processes remain: 1\nmoult: hint: ")
		s.runsVersion("1")
		s.Change("app.service", func(u *restarttest.Unit) { u.Denied = true })
		out, errs = s.moult(1, "restart", s.target)
		mentions(t, out, "FAILED  app.service")
		mentions(t, errs, "Interactive authentication required")
		s.Change("app.service", func(u *restarttest.Unit) { u.Denied, u.JobFails = false, true })
		_, errs = s.moult(4, "restart", s.target)
		mentions(t, errs, `its job ended with "failed"`)
		s.moult(2, "restart", "--health", "tcp:80", s.target)
		s.moult(2, "rollback", "--timeout", "5s", s.target)
		_, errs = s.moult(1, "restart", s.dir)
		mentions(t, errs, "not a moult target")
	})
}

// TestRestartAsks does nothing on a terminal where programs would be restarted
// that are not the target's own, and says how to.
func TestRestartAsks(t *testing.T) {
	cleanUp(t)
	s := newServedTarget(t, "shared")
	for _, version := range []string{"2", "3"} {
		dir := s.release(version, okStatus)
		if err := os.Mkdir(dir+"/lib", 0o755); err != nil {
			t.Fatal(err)
		}
		restarttest.Library(t, dir+"/lib/libx.so", version)
	}
	s.moult(0, "apply", "--restart", s.dir+"/release-2", s.target)
	foreign := filepath.Join(s.dir, "foreign")
	restarttest.Server(t, foreign, "1", okStatus)
	s.Add(restarttest.Unit{Name: "foreign.service", Argv: []string{foreign, "load=" + s.target + "/lib/libx.so"}})
	before := s.PID("foreign.service")
	mapped := func() bool {
		maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", before))
		return err == nil && strings.Contains(string(maps), "libx.so")
	}
	for deadline := time.Now().Add(limit); !mapped(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the foreign service does not load the library")
		}
	}
	// apply restarts what is the target's own, and leaves the others.
	status, out := s.onTerminal("apply", "--restart", s.dir+"/release-3", s.target)
	mentions(t, out, "1 restart done", "app.service", "left alone:", "foreign (", "--yes restarts it too", "stale processes remain: 1")
	if status != statusFound {
		t.Errorf("status %d, want %d", status, statusFound)
	}
	status, out = s.onTerminal("restart", s.target)
	mentions(t, out, "foreign.service", "(not the target's own)", "nothing was done: 1 restart is not of programs of "+s.target, "hint: --yes does")
	if status != statusFailed || s.PID("foreign.service") != before {
		t.Errorf("status %d, want %d and nothing restarted", status, statusFailed)
	}
	status, out = s.onTerminal("restart", "--yes", s.target)
	mentions(t, out, "1 restart done")
	if status != 0 || s.Restarted("foreign.service") != 1 {
		t.Errorf("status %d, calls %v, want 0 and foreign.service restarted", status, s.Calls())
	}
}

// onTerminal runs the program on a terminal of its own (pty(7)), as wide as any line.
func (s *servedTarget) onTerminal(args ...string) (status int, output string) {
	s.t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		testneed.Skip(s.t, "needs /dev/ptmx: "+err.Error())
	}
	defer master.Close()
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		s.t.Fatal(err)
	}
	number, err := unix.IoctlGetUint32(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: 9999, Row: 24}); err != nil {
		s.t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		testneed.Skip(s.t, err.Error())
	}
	var out bytes.Buffer
	read := make(chan struct{})
	go func() { io.Copy(&out, master); close(read) }() // ends with EIO when the last one has closed it
	cmd := exec.Command("moult", args...)
	cmd.Env = append(os.Environ(), "MOULT_STATE_DIR="+s.dir+"/state", "DBUS_SYSTEM_BUS_ADDRESS="+s.Address, "TERM=dumb")
	cmd.Stdout, cmd.Stderr = terminal, terminal
	err = cmd.Run()
	terminal.Close()
	<-read
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), out.String()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return 0, out.String()
}

// TestRestartInterrupted says that the release is live, though nobody has waited
// for its programs.
func TestRestartInterrupted(t *testing.T) {
	cleanUp(t)
	s := newServedTarget(t, "shared")
	s.Change("app.service", func(u *restarttest.Unit) { u.JobHangs = true })
	cmd := exec.Command("moult", "apply", "--restart", "--health", "false", s.release("2", okStatus), s.target)
	cmd.Env = append(os.Environ(), "MOULT_STATE_DIR="+s.dir+"/state", "DBUS_SYSTEM_BUS_ADDRESS="+s.Address)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(limit); s.Restarted("app.service") == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			cmd.Process.Kill()
			t.Fatal("systemd is not asked")
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != statusUnfinished {
		t.Errorf("ended with %v, want status 4", err)
	}
	mentions(t, out.String(), "generation 2 is live, was 1", "FAILED  app.service")
	mentions(t, errs.String(), "moult: apply: generation 2 is live: ", "interrupted")
}
