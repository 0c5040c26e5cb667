package reexec_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"moult.example/reexec"
)

// manager is what a service manager is to a program: a socket to notify.
type manager struct {
	conn *net.UnixConn
	path string
	said []string
	fds  int
}

func newManager(t *testing.T) *manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "moult-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &manager{path: filepath.Join(dir, "notify")}
	if m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.conn.Close() })
	return m
}

// wait reads until somebody says what begins like this, and returns it.
func (m *manager) wait(t *testing.T, begin string) string {
	t.Helper()
	buf, oob := make([]byte, 4096), make([]byte, 4096)
	m.conn.SetReadDeadline(time.Now().Add(limit))
	for {
		n, oobn, _, _, err := m.conn.ReadMsgUnix(buf, oob)
		if err != nil {
			t.Fatalf("waited in vain for %q after %q: %v", begin, m.said, err)
		}
		if cmsgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil {
			for _, c := range cmsgs {
				fds, _ := unix.ParseUnixRights(&c)
				for _, fd := range fds {
					unix.Close(fd)
					m.fds++
				}
			}
		}
		said := string(buf[:n])
		m.said = append(m.said, said)
		if strings.HasPrefix(said, begin) {
			return said
		}
	}
}

// TestManager: what systemd is told, and the sockets that it hands in. The
// protocol is as in sd_notify(3) and sd_listen_fds(3); systemd itself is not here.
func TestManager(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	s, c := newServer(t, config{Addr: addr, Options: reexec.Options{FDStore: true}})
	s.env = []string{"NOTIFY_SOCKET=" + m.path, "WATCHDOG_USEC=100000"}
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web exec "$0" serve "$1"`, s.exe, c.text())
	cmd.ExtraFiles = []*os.File{f}
	s.runCommand(cmd)
	f.Close()
	m.wait(t, "READY=1")
	if said := m.wait(t, "FDSTORE=1"); !strings.Contains(said, "FDNAME=note") || m.fds != 1 {
		t.Errorf("stored %q with %d descriptors, want note with one", said, m.fds)
	}
	m.wait(t, "WATCHDOG=1")
	for generation := 1; generation <= 2; generation++ {
		program(t, s.exe, trailer{Version: generation + 1})
		said := m.wait(t, "RELOADING=1\n")
		_, text, _ := strings.Cut(said, "MONOTONIC_USEC=")
		text, _, _ = strings.Cut(text, "\n")
		var now unix.Timespec
		unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
		if usec, err := strconv.ParseInt(text, 10, 64); err != nil || usec > now.Nano()/1000 || usec < now.Nano()/1000-60e6 {
			t.Errorf("it says %q, want the time, %d", said, now.Nano()/1000)
		}
		if said := m.wait(t, "READY=1"); strings.Contains(said, "MAINPID") {
			t.Errorf("it says %q, want no MAINPID: it is the same", said)
		}
		m.wait(t, "WATCHDOG=1")
		// The socket is the manager's, under its number, for whoever comes next.
		if st := s.waitVersion(generation + 1); st.Generation != generation {
			t.Errorf("generation %d, want %d", st.Generation, generation)
		}
		if _, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/3", s.cmd.Process.Pid)); err != nil {
			t.Errorf("descriptor 3: %v, want it open", err)
		}
	}
	program(t, s.exe, trailer{Version: 9, Fails: "exit-early"})
	s.wait("event rejected ")
	s.cmd.Process.Signal(unix.SIGTERM)
	m.wait(t, "STOPPING=1")
	<-s.end
	if n := strings.Count(strings.Join(m.said, "\n"), "STOPPING=1"); n != 1 {
		t.Errorf("STOPPING was said %d times, want once: it is final", n)
	}
}

// TestSpawn: the new code is a child, which takes over when it is ready.
func TestSpawn(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	s, c := newServer(t, config{Options: reexec.Options{Mode: reexec.Spawn}})
	s.env = []string{"NOTIFY_SOCKET=" + m.path}
	s.run(c, s.exe)
	first := s.cmd.Process.Pid
	for _, how := range []string{"exit", "panic", "segv"} {
		program(t, s.exe, trailer{Version: 7, Fails: how})
		n := len(s.lines("event failed "))
		s.waitN("event failed ", n+1)
		if got := s.status(); got.PID != first || got.Version != 1 {
			t.Errorf("%s: version %d in PID %d, want 1 in %d", how, got.Version, got.PID, first)
		}
	}
	l := s.load()
	program(t, s.exe, trailer{Version: 2})
	said := m.wait(t, "READY=1\nMAINPID=")
	<-s.end
	got := s.waitVersion(2)
	t.Cleanup(func() { unix.Kill(got.PID, unix.SIGKILL) })
	if got.PID == first || !strings.Contains(said, "MAINPID="+itoa(got.PID)) || got.Generation != 1 {
		t.Errorf("version 2 has PID %d, generation %d, and the manager was told %q", got.PID, got.Generation, said)
	}
	l.end(t)
	// The child can be replaced in its turn.
	program(t, s.exe, trailer{Version: 3})
	third := s.waitVersion(3)
	unix.Kill(third.PID, unix.SIGKILL)
}
