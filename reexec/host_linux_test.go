package reexec_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"moult.example/internal/testneed"
	"moult.example/reexec"
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
	s, c := newServer(t, config{User: 65534, Addr: "127.0.0.1:" + lowPort(t)})
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

// lowPort is a free one that only root may have.
func lowPort(t *testing.T) string {
	t.Helper()
	for port := 900; port < 1000; port++ {
		if ln, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			ln.Close()
			return strconv.Itoa(port)
		}
	}
	testneed.Skip(t, "needs a free port below 1024")
	return ""
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
	addr := "127.0.0.1:" + freePort(t)
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
	m.conn.SetReadDeadline(time.Now().Add(30 * time.Second))
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
	s, c := newServer(t, config{Options: reexec.Options{Mode: reexec.Spawn, ReadyTimeout: 5 * time.Second}})
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

// TestPackets: datagrams wait in the socket while the program is replaced.
func TestPackets(t *testing.T) {
	t.Parallel()
	s := startServer(t, config{Packets: true, Addr: "127.0.0.1:" + freePort(t)})
	c, err := net.Dial("udp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(60 * time.Second))
	buf := make([]byte, 100)
	next := 2
	for i := 0; next < 6; i++ {
		if i%50 == 25 {
			program(t, s.exe, trailer{Version: next})
		}
		fmt.Fprintf(c, "%d", i)
		n, err := c.Read(buf)
		if err != nil {
			t.Fatalf("datagram %d: %v", i, err)
		}
		version, echo, _ := strings.Cut(string(buf[:n]), " ")
		if echo != itoa(i) {
			t.Fatalf("datagram %d: answer %q", i, buf[:n])
		}
		if version == itoa(next) {
			next++
			i -= i % 50
		}
		if i%50 == 49 {
			i -= 10 // until the new version answers
		}
		time.Sleep(time.Millisecond)
	}
}

// TestIdleConnection: one connection sees all versions; a request that is half
// there when the upgrade begins is answered by the old code.
func TestIdleConnection(t *testing.T) {
	t.Parallel()
	s := startServer(t, config{})
	idle, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	half, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	ask := func(c net.Conn, want string) {
		t.Helper()
		c.SetDeadline(time.Now().Add(30 * time.Second))
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
		read(t, c, want+" x")
	}
	ask(idle, "1")
	half.SetDeadline(time.Now().Add(30 * time.Second))
	io.WriteString(half, "POST / HTTP/1.1\r\nHost: x\r\nContent-Le")
	s.until("the half request to be read", func() bool { return unread(t, half) })
	program(t, s.exe, trailer{Version: 2})
	s.wait("event draining ")
	io.WriteString(half, "ngth: 3\r\n\r\nabc")
	read(t, half, "1 abc")
	s.waitVersion(2)
	ask(idle, "2")
	ask(half, "2")
	program(t, s.exe, trailer{Version: 3, Fails: "state"})
	s.wait("event rolled-back ")
	s.waitVersion(2)
	ask(idle, "2")
	ask(half, "2")
}

// unread says that the other side has read all that we have sent: a request
// that was not begun is not the old code's.
func unread(t *testing.T, c net.Conn) bool {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info *unix.TCPInfo
	raw.Control(func(fd uintptr) { info, _ = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	return info != nil && info.Unacked == 0 && info.Bytes_acked > 0
}

func read(t *testing.T, c net.Conn, end string) {
	t.Helper()
	var got []byte
	buf := make([]byte, 1000)
	for !strings.HasSuffix(string(got), end) {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatalf("read %q: %v, want %q at its end", got, err, end)
		}
		got = append(got, buf[:n]...)
	}
}
