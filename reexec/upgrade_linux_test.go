package reexec_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"moult.example/internal/testneed"
	"moult.example/reexec"
)

// TestUpgrade replaces the file a few times under load: same PID, nothing lost,
// saved bytes and kept files there, environment and signals as at the start.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	s := startServer(t, config{})
	first := s.status()
	l := s.load()
	for version := 2; version <= 5; version++ {
		program(t, s.exe, trailer{Version: version})
		got := s.waitVersion(version)
		if got.PID != first.PID || got.Generation != version-1 {
			t.Errorf("version %d: PID %d, generation %d; want %d, %d", version, got.PID, got.Generation, first.PID, version-1)
		}
	}
	l.end(t)
	s.until("connections to end", func() bool { return s.status().FDs <= first.FDs+1 })
	got := s.status()
	if got.Trace != "1,2,3,4," || got.Note != "1 2 3 4 " {
		t.Errorf("saved %q and kept %q, want 1,2,3,4, and 1 2 3 4", got.Trace, got.Note)
	}
	// One thread of the runtime blocks what nobody asks for, whichever it is.
	s.until("threads that block nothing", func() bool { return s.status().Blocked == "0000000000000000" })
	if got.Ignored != first.Ignored || got.Limit != first.Limit || got.Dir != first.Dir {
		t.Errorf("now %+v, want signals, limit and directory of %+v", got, first)
	}
}

// TestSame: the same bytes under another inode are no reason; asked for, the
// program is replaced by itself.
func TestSame(t *testing.T) {
	t.Parallel()
	s := startServer(t, config{})
	program(t, s.exe, trailer{Version: 1})
	s.wait("event same ")
	if got := s.status(); got.Generation != 0 {
		t.Errorf("generation %d after the same bytes, want 0", got.Generation)
	}
	s.cmd.Process.Signal(unix.SIGUSR2)
	s.waitGeneration(1)
	if n := len(s.lines("event changed")); n != 0 {
		t.Errorf("%d changes told, want none", n)
	}
}

// TestSettle: several replacements in a row are one upgrade.
func TestSettle(t *testing.T) {
	t.Parallel()
	const settle = time.Second
	s := startServer(t, config{Options: reexec.Options{Settle: settle}})
	for version := 2; version <= 4; version++ {
		program(t, s.exe+itoa(version), trailer{Version: version})
	}
	slow, last := false, time.Now()
	for version := 2; version <= 4; version++ {
		if err := os.Rename(s.exe+itoa(version), s.exe); err != nil {
			t.Fatal(err)
		}
		slow, last = slow || time.Since(last) > settle/2, time.Now()
		time.Sleep(30 * time.Millisecond) // for a look in between
	}
	if got := s.waitVersion(4); got.Generation != 1 && !slow {
		t.Errorf("generation %d, want 1", got.Generation)
	}
}

// TestPaths: the ways in which a file comes to be another.
func TestPaths(t *testing.T) {
	t.Parallel()
	t.Run("link turned", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		for n, name := range []string{"41", "42"} {
			os.MkdirAll(filepath.Join(dir, name, "bin"), 0o755)
			program(t, filepath.Join(dir, name, "bin/server"), trailer{Version: n + 1})
		}
		live := filepath.Join(dir, "live")
		os.Symlink("41", live)
		s, c := newServer(t, config{})
		s.run(c, filepath.Join(live, "bin/server"))
		turn := func(to string) {
			os.Symlink(to, live+".new")
			if err := os.Rename(live+".new", live); err != nil {
				t.Fatal(err)
			}
		}
		turn("42")
		s.waitVersion(2)
		if exe, err := os.Readlink("/proc/" + field(s.waitN("serving ", 2), "pid") + "/exe"); err != nil || !strings.Contains(exe, "/42/") {
			t.Errorf("it runs %s (%v), want the one in 42", exe, err)
		}
		turn("41")
		s.waitVersion(1)
	})
	t.Run("directory renamed", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		app := filepath.Join(dir, "app")
		os.MkdirAll(app, 0o755)
		os.MkdirAll(filepath.Join(dir, "next"), 0o755)
		program(t, filepath.Join(app, "server"), trailer{Version: 1})
		program(t, filepath.Join(dir, "next/server"), trailer{Version: 2})
		s, c := newServer(t, config{})
		s.run(c, filepath.Join(app, "server"))
		os.Rename(app, app+".old")
		os.Rename(filepath.Join(dir, "next"), app)
		s.waitVersion(2)
	})
	t.Run("two steps", func(t *testing.T) {
		t.Parallel()
		s := startServer(t, config{})
		program(t, s.exe+".new", trailer{Version: 2})
		if err := os.Rename(s.exe, s.exe+".old"); err != nil {
			t.Fatal(err)
		}
		for range 20 { // it is looked for, and not found
			s.status()
			time.Sleep(5 * time.Millisecond)
		}
		if err := os.Rename(s.exe+".new", s.exe); err != nil {
			t.Fatal(err)
		}
		s.waitVersion(2)
	})
	t.Run("overlay", func(t *testing.T) {
		t.Parallel()
		testneed.Root(t)
		dir := t.TempDir()
		for _, name := range []string{"lower", "upper", "work", "merged"} {
			os.Mkdir(filepath.Join(dir, name), 0o755)
		}
		program(t, filepath.Join(dir, "lower/server"), trailer{Version: 1})
		merged := filepath.Join(dir, "merged")
		options := "lowerdir=" + dir + "/lower,upperdir=" + dir + "/upper,workdir=" + dir + "/work"
		if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
			t.Skipf("no overlay here: %v", err)
		}
		t.Cleanup(func() { unix.Unmount(merged, unix.MNT_DETACH) })
		s, c := newServer(t, config{})
		s.run(c, filepath.Join(merged, "server"))
		program(t, filepath.Join(merged, "server"), trailer{Version: 2})
		s.waitVersion(2)
	})
}

// TestOverwritten: a file in use that was written to is told of, and never
// executed.
func TestOverwritten(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "libdata.so")
	os.WriteFile(data, []byte("one"), 0o644)
	s := startServer(t, config{Options: reexec.Options{Watch: []string{data}}})
	f, err := os.OpenFile(data, os.O_WRONLY, 0) // in one step, so that it is told of once
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("another")
	f.Close()
	s.wait("event overwritten ")
	if got := s.status(); got.Generation != 0 {
		t.Errorf("generation %d, want 0", got.Generation)
	}
	// Replaced, it is a reason.
	os.WriteFile(data+".new", []byte("third"), 0o644)
	os.Rename(data+".new", data)
	s.waitGeneration(1)
	if n := len(s.lines("event overwritten ")); n != 1 {
		t.Errorf("told of %d times, want once", n)
	}
}

// TestSecondReplacement: the file is replaced again while the first upgrade
// waits for a request. The last one runs in the end.
func TestSecondReplacement(t *testing.T) {
	t.Parallel()
	s := startServer(t, config{Work: 300 * time.Millisecond})
	l := s.load()
	program(t, s.exe, trailer{Version: 2})
	s.wait("event draining ")
	program(t, s.exe, trailer{Version: 3})
	s.waitVersion(3)
	l.end(t)
	if runs := s.lines("serving version=2"); len(runs) > 1 {
		t.Errorf("version 2 served %d times, want once at most", len(runs))
	}
}

// TestBusy: what does not come to an end defers the upgrade, or is cut off.
func TestBusy(t *testing.T) {
	t.Parallel()
	for _, force := range []bool{false, true} {
		c := config{Options: reexec.Options{DrainTimeout: 50 * time.Millisecond}}
		if force {
			c.Options.OnBusy = reexec.Force
		}
		s, c := newServer(t, c)
		end := filepath.Join(t.TempDir(), "end")
		s.env = []string{"MOULT_TEST_NEEDS=" + end}
		s.run(c, s.exe)
		answer := make(chan error, 1)
		go func() { _, err := s.post("/", "held"); answer <- err }()
		s.wait("held request") // one that was accepted and not read would be carried over
		s.cmd.Process.Signal(unix.SIGUSR2)
		if !force {
			s.wait("event deferred ")
			if err := os.WriteFile(end, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := <-answer; err != nil {
				t.Errorf("the held request: %v, want an answer", err)
			}
		} else {
			<-answer
		}
		s.waitGeneration(1)
	}
}

// openSockets are the distinct sockets that a process has.
func openSockets(pid int) map[string]bool {
	sockets := map[string]bool{}
	dir := filepath.Join("/proc", itoa(pid), "fd")
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && strings.HasPrefix(to, "socket:") {
			sockets[to] = true
		}
	}
	return sockets
}

// TestStorm: signals come all the time while the program is replaced.
func TestStorm(t *testing.T) {
	t.Parallel()
	s := startServer(t, config{Options: reexec.Options{Poll: -1}})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Microsecond):
				s.cmd.Process.Signal([]unix.Signal{unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2}[i%3])
			}
		}
	}()
	want := 25
	if testing.Short() {
		want = 10
	}
	s.waitGeneration(want)
	close(stop)
	<-done
	if got := s.status(); got.PID != s.cmd.Process.Pid {
		t.Errorf("PID %d, want %d", got.PID, s.cmd.Process.Pid)
	}
}

// TestManyDescriptors: 10,000 that nobody hands over do not reach the new code.
func TestManyDescriptors(t *testing.T) {
	t.Parallel()
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); limit.Max < mostOpen {
		// Only of the servers: the test must not be changed for the others.
		probe := exec.Command("/bin/sh", "-c", "ulimit -n "+itoa(mostOpen))
		if out, err := probe.CombinedOutput(); err != nil {
			t.Skipf("needs %d open files, and %d is the limit: %s", mostOpen, limit.Max, out)
		}
	}
	s := startServer(t, config{Open: 10000})
	before := s.status()
	program(t, s.exe, trailer{Version: 2})
	s.waitVersion(2)
	s.until("as many descriptors as before", func() bool { return s.status().FDs <= before.FDs })
	if got := s.status(); got.FDs < 10000 {
		t.Errorf("%d descriptors, want %d as before", got.FDs, before.FDs)
	}
}

// TestLeak: the number of descriptors is the same after many generations.
func TestLeak(t *testing.T) {
	t.Parallel()
	s := startServer(t, config{Packets: true})
	s.cmd.Process.Signal(unix.SIGUSR2)
	before := s.waitGeneration(1)
	last := 41
	if testing.Short() {
		last = 11
	}
	for n := 2; n <= last; n++ {
		s.cmd.Process.Signal(unix.SIGUSR2)
		s.waitGeneration(n)
	}
	s.until("as many descriptors as before", func() bool { return s.status().FDs <= before.FDs })
	if got := s.status(); got.PID != before.PID {
		t.Errorf("PID %d, want %d", got.PID, before.PID)
	}
}

func itoa(n int) string { return strconv.Itoa(n) }
