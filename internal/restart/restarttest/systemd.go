package restarttest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"moult.example/internal/testneed"
)

// Systemd is an org.freedesktop.systemd1 on a bus of its own.
type Systemd struct {
	Address string // of the bus, as DBUS_SYSTEM_BUS_ADDRESS takes it

	t    testing.TB
	conn *dbus.Conn

	mu    sync.Mutex
	units map[string]*Unit
	jobs  uint32
	calls []string
}

// Unit is a service. Set its fields before it is added, or by Systemd.Change.
type Unit struct {
	Name string
	Argv []string // what it executes

	// How it behaves.
	Oneshot       bool          // its type is oneshot, not simple
	CanReload     bool          // SIGHUP to the main process reloads it
	Refuses       bool          // RefuseManualStop=yes
	Denied        bool          // nobody may restart it
	JobFails      bool          // the job of a restart fails, and the unit with it
	JobHangs      bool          // the job of a restart never ends
	JobWaits      chan struct{} // the job of a restart begins when this is closed; nil is at once
	LosesSignal   bool          // the end of a job is not told
	StartsIn      time.Duration // so long it is "activating" after the job
	RestartAlways bool          // systemd starts it again when it ends
	RequiredBy    []string      // units that need it

	active, sub, result string
	restarts            uint32
	job                 uint32
	main                *exec.Cmd
	ended               chan struct{} // closed when main has been waited for
	stopping            bool
	givenUp             bool // it has failed, and is not started until that is reset
}

// Start runs a message bus and a systemd without units, until the test ends.
// The uid is that of the bus: -1 for this process's; another needs root, and
// then Serve.
func Start(t testing.TB, uid int) *Systemd {
	t.Helper()
	daemon := testneed.Tool(t, "dbus-daemon")
	dir, err := os.MkdirTemp("", "moult-bus-") // short: a socket's path has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cmd := exec.Command(daemon, "--session", "--nofork", "--nopidfile", "--print-address", "--address=unix:path="+dir+"/bus")
	if uid >= 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
		if err := os.Chown(dir, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("dbus-daemon: %v", err)
	}
	s := &Systemd{Address: strings.TrimSpace(line), t: t, units: map[string]*Unit{}}
	if uid < 0 {
		conn, err := dbus.Connect(s.Address)
		if err != nil {
			t.Fatal(err)
		}
		s.Serve(conn)
	}
	return s
}

// Serve makes a systemd of a connection to the bus, for a bus of another user.
func (s *Systemd) Serve(conn *dbus.Conn) {
	s.t.Helper()
	s.conn = conn
	s.t.Cleanup(func() { conn.Close() })
	if err := conn.Export(manager{s}, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"); err != nil {
		s.t.Fatal(err)
	}
	if reply, err := conn.RequestName("org.freedesktop.systemd1", dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		s.t.Fatalf("request the name of systemd: %v, %v", reply, err)
	}
}

// Add starts a unit; it is stopped when the test ends.
func (s *Systemd) Add(u Unit) {
	s.t.Helper()
	unit := &u
	s.mu.Lock()
	s.units[u.Name] = unit
	s.mu.Unlock()
	if err := s.conn.Export(properties{s, unit}, unitPath(u.Name), "org.freedesktop.DBus.Properties"); err != nil {
		s.t.Fatal(err)
	}
	if err := s.start(unit); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { s.stop(unit) })
}

// Change changes how a unit behaves.
func (s *Systemd) Change(name string, change func(u *Unit)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s.units[name])
}

// PID is the main process of a unit, 0 if there is none.
func (s *Systemd) PID(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.units[name]; u != nil {
		return u.pid()
	}
	return 0
}

// UnitOf is the unit of a process or of a child of its main process, "" if it
// has none.
func (s *Systemd) UnitOf(pid int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; pid > 1; pid = parent(pid) {
		for name, u := range s.units {
			if u.pid() == pid {
				return name
			}
		}
	}
	return ""
}

// Calls are the restarts and reloads that were asked for, in order.
func (s *Systemd) Calls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.calls...)
}

func (u *Unit) pid() int {
	if u.main == nil {
		return 0
	}
	return u.main.Process.Pid
}

// start executes the unit's program and waits for its end beside it.
func (s *Systemd) start(u *Unit) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u.stopping = false
	if u.Oneshot {
		u.active, u.sub, u.result = "inactive", "dead", "success"
		return nil
	}
	cmd := exec.Command(u.Argv[0], u.Argv[1:]...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		u.active, u.sub, u.result, u.main = "failed", "failed", "exec", nil
		return err
	}
	enterGroup(s.t, cmd.Process.Pid, u.Name)
	u.main, u.ended = cmd, make(chan struct{})
	u.active, u.sub, u.result = "active", "running", "success"
	go s.wait(u, cmd, u.ended)
	return nil
}

// wait is told when the main process ends.
func (s *Systemd) wait(u *Unit, cmd *exec.Cmd, ended chan struct{}) {
	err := cmd.Wait()
	s.mu.Lock()
	again := false
	if !u.stopping {
		u.active, u.sub, u.result, u.main = "failed", "failed", "exit-code", nil
		u.givenUp = err != nil && !u.RestartAlways
		if err == nil {
			u.active, u.sub, u.result = "inactive", "dead", "success"
		}
		if again = u.RestartAlways; again {
			u.restarts++
			u.active, u.sub = "activating", "auto-restart"
		}
	}
	s.mu.Unlock()
	close(ended)
	if again {
		time.Sleep(20 * time.Millisecond)
		_ = s.start(u) // it says so in its state
	}
}

// Stop stops a unit.
func (s *Systemd) Stop(name string) {
	s.mu.Lock()
	u := s.units[name]
	s.mu.Unlock()
	s.stop(u)
	s.mu.Lock()
	defer s.mu.Unlock()
	u.active, u.sub = "inactive", "dead"
}

// stop ends the main process with its group, as KillMode=control-group does.
func (s *Systemd) stop(u *Unit) {
	s.mu.Lock()
	u.stopping = true
	main, ended := u.main, u.ended
	u.main = nil
	s.mu.Unlock()
	if main != nil {
		syscall.Kill(-main.Process.Pid, syscall.SIGKILL)
		<-ended
	}
}

// parent reads /proc/PID/stat.
func parent(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	var state string
	var ppid int
	fmt.Sscan(string(text[strings.LastIndexByte(string(text), ')')+1:]), &state, &ppid)
	return ppid
}

// groups is where control groups can be made; "" if nowhere.
var groups = sync.OnceValue(func() string {
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		dir := filepath.Join(root, fmt.Sprintf("moult-test-%d", os.Getpid()))
		if _, err := os.Stat(root + "/cgroup.procs"); err == nil && os.Mkdir(dir, 0o755) == nil {
			os.Remove(dir) // it is there only while there are services
			return dir
		}
	}
	return ""
})

// Apart skips the test where a real moult, which the test runs, would take the
// services for a part of its own unit: the test runs in a unit of the real
// systemd, and no control groups can be made.
func Apart(t testing.TB) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	if groups() == "" && (strings.Contains(string(text), ".service") || strings.Contains(string(text), ".scope")) {
		testneed.Skip(t, "needs root and a cgroup2 file system that can be written")
	}
}

// enterGroup puts a process into a control group with its unit's name, as
// systemd does, where that is possible.
func enterGroup(t testing.TB, pid int, unit string) {
	if groups() == "" {
		return
	}
	dir := filepath.Join(groups(), unit)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return
	}
	_ = os.WriteFile(dir+"/cgroup.procs", []byte(fmt.Sprint(pid)), 0) // else systemd is asked for the unit
}

// RemoveGroups removes the control groups that were made; a TestMain calls it,
// or a clean-up.
func RemoveGroups() {
	if groups() == "" {
		return
	}
	dirs, _ := filepath.Glob(groups() + "/*.service")
	for _, dir := range append(dirs, groups()) {
		for try := 0; try < 100; try++ {
			if err := os.Remove(dir); err == nil || os.IsNotExist(err) {
				break
			} // processes may be on their way out
			time.Sleep(5 * time.Millisecond)
		}
	}
}
