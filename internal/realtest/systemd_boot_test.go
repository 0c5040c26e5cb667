package realtest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"moult.example/internal/testneed"
)

// bootUnits are all that the systemd of a test has, beside those of the test: a
// message bus, and a manager for each user. They are as Debian's, with less
// around them.
var bootUnits = tree{
	"units/sysinit.target":   "[Unit]\nDefaultDependencies=no\nBefore=basic.target\n",
	"units/basic.target":     "[Unit]\nDefaultDependencies=no\nRequires=sysinit.target\nAfter=sysinit.target\n",
	"units/local-fs.target":  "[Unit]\nDefaultDependencies=no\n",
	"units/sockets.target":   "[Unit]\nDefaultDependencies=no\n",
	"units/shutdown.target":  "[Unit]\nDefaultDependencies=no\n",
	"units/exit.target":      "[Unit]\nDefaultDependencies=no\n",
	"units/emergency.target": "[Unit]\nDefaultDependencies=no\n",
	"units/test.target":      "[Unit]\nRequires=basic.target dbus.socket\nWants=moult-recover.service app.service user@65534.service\nAfter=basic.target dbus.service app.service user@65534.service\n",
	"units/dbus.socket":      "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=/run/dbus/system_bus_socket\n",
	"units/dbus.service": "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\n[Service]\nType=notify\n" +
		"ExecStart=dbus-daemon --config-file=/etc/bus.conf --address=systemd: --nofork --nopidfile --systemd-activation\n",
	"units/user@.service": "[Unit]\nWants=dbus.service\nAfter=dbus.service\n[Service]\nUser=%i\nType=notify\nDelegate=yes\nSlice=user-%i.slice\nKillMode=mixed\nStandardOutput=file:@console@\nStandardError=inherit\n" +
		"RuntimeDirectory=user/%i\nEnvironment=XDG_RUNTIME_DIR=/run/user/%i SYSTEMD_UNIT_PATH=/etc/user-units SYSTEMD_GENERATOR_PATH=/etc/none SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/etc/none\n" +
		"ExecStart=@systemd@ --user --unit=test.target --log-target=console\n",
	"user-units/test.target":    "[Unit]\nRequires=dbus.socket mine.service\nAfter=dbus.socket mine.service\n",
	"user-units/basic.target":   "[Unit]\nDefaultDependencies=no\n",
	"user-units/sockets.target": "[Unit]\nDefaultDependencies=no\n",
	"user-units/exit.target":    "[Unit]\nDefaultDependencies=no\n",
	"user-units/dbus.socket":    "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=%t/bus\n",
	"user-units/dbus.service": "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\n[Service]\nType=notify\n" +
		"ExecStart=dbus-daemon --config-file=/etc/bus.conf --address=systemd: --nofork --nopidfile --systemd-activation\n",
	"machine-id": "6d6f756c746d6f756c746d6f756c7401\n",
	"bus.conf": `<busconfig><listen>systemd:</listen><auth>EXTERNAL</auth><policy context="default">
<allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="false"/><allow receive_sender="*"/></policy></busconfig>
`,
}

// booted is a host of its own on which systemd is process 1.
type booted struct {
	*host
	init    string // its process number here
	console string // where it logs
}

// newBooted prepares a host whose systemd is not running yet. Files that the test
// lays below etc are its /etc.
func newBooted(t testing.TB) *booted {
	t.Helper()
	testneed.Root(t)
	for _, name := range []string{"unshare", "nsenter", "pivot_root", "dbus-daemon", "systemctl"} {
		testneed.Tool(t, name)
	}
	b := &booted{host: newHost(t)}
	b.console = b.path("console")
	writeFile(t, b.console, "", 0o666)
	must(t, os.Chmod(b.console, 0o666))
	etc := tree{}
	for name, text := range bootUnits {
		etc["etc/"+name] = strings.NewReplacer("@systemd@", systemd(t), "@console@", b.console).Replace(text)
	}
	etc.write(t, b.dir)
	for _, name := range []string{"passwd", "group", "nsswitch.conf", "ld.so.cache"} {
		if data, err := os.ReadFile("/etc/" + name); err == nil {
			writeFile(t, b.path("etc/"+name), string(data), 0o644)
		}
	}
	return b
}

// systemd is where it is installed.
func systemd(t testing.TB) string {
	t.Helper()
	for _, path := range []string{"/usr/lib/systemd/systemd", "/lib/systemd/systemd"} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	testneed.Skip(t, "needs systemd")
	return ""
}

// boot starts systemd and waits until all is up. The test is skipped where this
// machine does not let it: that takes a hierarchy of control groups of version 2
// in which directories can be made.
func (b *booted) boot() {
	b.Helper()
	group := ownControlGroup(b)
	console, err := os.Create(b.path("boot"))
	must(b, err)
	defer console.Close()
	cmd := exec.Command("sh", "-c", `echo $$ > "$0/cgroup.procs" && exec "$@"`, group,
		"unshare", "--cgroup", "--mount", "--pid", "--fork", "--ipc", "--uts", "--net", "--kill-child", "sh", "testdata/boot.sh", b.dir, buildDir, systemd(b))
	cmd.Stdout, cmd.Stderr = console, console
	must(b, cmd.Start())
	over := make(chan struct{})
	go func() {
		cmd.Wait()
		close(over)
	}()
	b.Cleanup(func() {
		if b.Failed() && b.via != nil {
			b.Logf("the console:\n%s", read(b, b.console))
			b.Log(finish(b, b.inside("systemctl", "--no-pager", "status", "--all")))
		}
		cmd.Process.Kill() // and all processes of the namespace with it
		<-over
	})
	children := "/proc/" + itoa(cmd.Process.Pid) + "/task/" + itoa(cmd.Process.Pid) + "/children"
	eventually(b, "systemd is up", func() bool {
		select {
		case <-over:
			b.Fatalf("it has ended: %s", read(b, b.path("boot")))
		default:
		}
		text, _ := os.ReadFile(children)
		if b.init = strings.TrimSpace(string(text)); b.init == "" {
			return false
		}
		if exe, err := os.Readlink("/proc/" + b.init + "/exe"); err != nil || filepath.Base(exe) != "systemd" {
			return false
		}
		b.via = []string{"nsenter", "-t", b.init, "-a", "--"}
		return strings.TrimSpace(finish(b, b.inside("systemctl", "is-active", "test.target")).stdout) == "active"
	})
	b.env = []string{"MOULT_STATE_DIR=/var/lib/moult"}
}

// ownControlGroup makes a control group that goes with the test.
func ownControlGroup(t testing.TB) string {
	t.Helper()
	why := "no hierarchy of version 2"
	for _, top := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(top + "/cgroup.procs"); err != nil {
			continue
		}
		if _, err := os.Stat(top + "/tasks"); err == nil {
			continue // version 1
		}
		group, err := os.MkdirTemp(top, "moult-realtest-")
		if err != nil {
			why = err.Error()
			continue
		}
		must(t, os.Chmod(group, 0o755)) // a user's systemd makes groups below it
		t.Cleanup(func() {
			eventually(t, "the control group is empty", func() bool {
				exec.Command("find", group, "-depth", "-type", "d", "-delete").Run()
				_, err := os.Stat(group)
				return err != nil
			})
		})
		return group
	}
	t.Skip("no systemd can be started on this machine: control groups: " + why)
	return ""
}

// inside is a command on the host that was booted.
func (b *booted) inside(name string, args ...string) *exec.Cmd {
	all := append(append([]string{}, b.via...), name)
	return exec.Command(all[0], append(all[1:], args...)...)
}

// user is a command of the user who has a systemd of his own.
func (b *booted) user(name string, args ...string) *exec.Cmd {
	all := []string{"-t", b.init, "-a", "--setuid=65534", "--setgid=65534", "--", "env", "XDG_RUNTIME_DIR=/run/user/65534", name}
	return exec.Command("nsenter", append(all, args...)...)
}

// mainPID is the main process of a service: of the system's app, or of mine, which
// is the user's.
func (b *booted) mainPID(unit string) string {
	b.Helper()
	cmd := b.inside("systemctl", "show", "-P", "MainPID", unit)
	if unit == "mine.service" {
		cmd = b.user("systemctl", "--user", "show", "-P", "MainPID", unit)
	}
	got := finish(b, cmd)
	if got.status != 0 {
		b.Fatal(got)
	}
	return strings.TrimSpace(got.stdout)
}

// show is a property of a unit of the system.
func (b *booted) show(unit, property string) string {
	b.Helper()
	got := finish(b, b.inside("systemctl", "show", "-P", property, unit))
	if got.status != 0 {
		b.Fatal(got)
	}
	return strings.TrimSpace(got.stdout)
}

// runs is the version of the main process of a service, 0 if there is none.
func (b *booted) runs(unit string) int {
	b.Helper()
	pid := b.mainPID(unit)
	if pid == "0" {
		return 0
	}
	got := finish(b, b.inside("cat", "/proc/"+pid+"/exe"))
	_, after, found := bytes.Cut([]byte(got.stdout), []byte(mark))
	if !found {
		b.Fatalf("%s, process %s: no version in it: %s", unit, pid, got.stderr)
	}
	return int(after[0])
}
