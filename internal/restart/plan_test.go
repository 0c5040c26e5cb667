package restart

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"moult.example/internal/release"
	"moult.example/internal/restart/restarttest"
	"moult.example/internal/stale"
	"moult.example/internal/testneed"
)

// TestLeftAlone is who is not touched, and what changes that.
func TestLeftAlone(t *testing.T) {
	h := newHost(t)
	units := []string{"dbus.service", "getty@tty1.service", "docker.service", "systemd-logind.service", "gdm3.service", "NetworkManager.service"}
	for _, unit := range units {
		h.service(unit, nil)
		h.upgrade(strings.TrimSuffix(unit, ".service"))
	}
	h.service("a.service", nil, "child")
	h.start(h.program("dbus-daemon", "1"))
	h.upgrade("a", "dbus-daemon")
	plan := h.plan()
	want(t, "steps", steps(plan), "unit a.service")
	if len(plan.Left) != 7 {
		t.Errorf("left: %s, want 7", left(plan))
	}
	for _, l := range plan.Left {
		if l.Reason != ForHost {
			t.Errorf("%s is left for %q (%s), want %q", l.Comm, l.Reason, l.Why, ForHost)
		}
	}
	h.opts.Allow = []string{"docker.service", "getty@*"}
	want(t, "allowed", steps(h.plan()), "unit a.service; unit docker.service; unit getty@tty1.service")
	h.opts.Allow = nil

	meant := Rule{RestartRule: release.RestartRule{Unit: "dbus.service", Run: []string{"/bin/true"}}}
	h.opts.Rules = []Rule{meant}
	want(t, "meant by a rule of the host", steps(h.plan()), "command /bin/true; unit a.service")
	meant.Target = h.dir
	h.opts.Rules = []Rule{meant}
	want(t, "meant by a rule of a release", steps(h.plan()), "unit a.service")
	h.opts.Rules = nil

	for _, deny := range []string{"a.service", "a", "*/a", "a.*"} {
		h.opts.Deny = []string{"nothing", deny}
		if got := steps(h.plan()); got != "" {
			t.Errorf("denied %s: steps %s", deny, got)
		}
	}
	h.opts.Deny = nil
	h.opts.Rules = []Rule{{RestartRule: release.RestartRule{Path: "**/a", Leave: true}}}
	want(t, "left by a rule", steps(h.plan()), "")
	h.opts.Rules = nil

	// One process of a unit that is to be left alone keeps all of it.
	main := h.PID("a.service")
	eventually(t, "the child", func() bool { return len(h.plan().Steps[0].Processes) == 2 })
	h.alter = func(p *stale.Process) {
		if p.PID != main && h.UnitOf(p.PID) == "a.service" {
			p.Comm = "precious"
		}
	}
	h.opts.Deny = []string{"precious"}
	want(t, "a part of the unit denied", steps(h.plan()), "")
	if len(h.Calls()) != 0 {
		t.Errorf("systemd was asked for %v by plans", h.Calls())
	}
}

// TestSelf leaves alone moult itself, what it was started from, and the unit
// that it runs in.
func TestSelf(t *testing.T) {
	h := newHost(t)
	h.service("ssh.service", nil, "child") // its child plays moult
	h.service("other.service", nil)
	h.upgrade("ssh", "other")
	main := h.PID("ssh.service")
	child := 0
	eventually(t, "the child", func() bool {
		for _, l := range h.plan().Steps[1].Processes {
			if l.PID != main {
				child = l.PID
			}
		}
		return child != 0
	})
	want(t, "steps, as somebody else", steps(h.plan()), "unit other.service; unit ssh.service")
	h.opts.Proc, h.opts.Self = "/proc", child
	plan := h.plan()
	want(t, "steps", steps(plan), "unit other.service")
	want(t, "left", left(plan), "ssh self; ssh self")
	h.opts.Allow = []string{"*"} // no option changes that
	h.opts.Rules = []Rule{{RestartRule: release.RestartRule{Path: "**/ssh", Run: []string{"/bin/true"}}}}
	want(t, "steps", steps(h.plan()), "unit other.service")

	// An ancestor that is not stale itself keeps its unit.
	h.opts.Allow, h.opts.Rules = nil, nil
	h.alter = func(p *stale.Process) {
		if p.PID == main || p.PID == child {
			p.Files = nil
		} else if p.Unit.Name == "other.service" {
			p.Unit.Name = "ssh.service" // one more process of the unit, not of our line
		}
	}
	plan = h.plan()
	want(t, "steps", steps(plan), "")
	want(t, "why", plan.Left[0].Why, "moult was started from this unit")
}

// TestControlGroups knows the unit of a process by its control group.
func TestControlGroups(t *testing.T) {
	proc := t.TempDir()
	process := func(pid, parent int, comm, group string) {
		dir := filepath.Join(proc, strconv.Itoa(pid))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, dir+"/stat", fmt.Sprintf("%d (%s) S %d 1 1 0", pid, comm, parent))
		writeFile(t, dir+"/cgroup", group)
	}
	process(1, 0, "systemd", "0::/init.scope\n")
	process(10, 1, "sshd", "0::/system.slice/ssh.service\n")
	process(20, 10, "x) S 1 (", "1:name=systemd:/user.slice/user-1000.slice/session-3.scope\n0::/\n")
	process(30, 20, "moult", "0::/user.slice/user-1000.slice/session-3.scope\n")
	process(40, 1, "tmux", "0::/user.slice/user-1000.slice/session-3.scope\n")
	process(50, 10, "sshd", "0::/system.slice/ssh.service/deeper\n")
	process(60, 1, "web", "0::/system.slice/web.service\n")
	process(70, 1, "bare", "0::/\n")
	process(80, 1, "moved", "4:memory:/system.slice/ssh.service\n0::/other.slice\n")
	s := lookAtSelf(Options{Proc: proc, Self: 30})
	for pid, wanted := range map[int]string{
		30: "it is moult itself", 20: "moult was started from it", 10: "moult was started from it", 1: "",
		40: "moult runs in the same unit or session", 50: "moult runs in the same unit or session", 60: "", 70: "", 80: "", 99: "",
	} {
		if got := s.needs(pid); got != wanted {
			t.Errorf("process %d: got %q, want %q", pid, got, wanted)
		}
	}
}

// TestGone refuses what could not be started again.
func TestGone(t *testing.T) {
	h := newHost(t)
	h.service("a.service", nil)
	if err := os.Remove(filepath.Join(h.dir, "a")); err != nil {
		t.Fatal(err)
	}
	plan := h.plan()
	want(t, "left", left(plan), "a gone")
	want(t, "why", plan.Left[0].Why, "a restart would fail: "+filepath.Join(h.dir, "a")+" is gone")

	h.upgrade("a")
	want(t, "steps", steps(h.plan()), "unit a.service")
	library := stale.File{Kind: stale.KindLibrary, Verdict: stale.Gone, Path: "/lib/libold.so"}
	h.alter = func(p *stale.Process) { p.Files = append(p.Files, library) }
	want(t, "a new program and a library gone", steps(h.plan()), "unit a.service")
	h.alter = func(p *stale.Process) { p.Files = []stale.File{library} }
	want(t, "the same program and a library gone", steps(h.plan()), "")
	h.opts.Check = func(context.Context, stale.Process) error { return nil }
	want(t, "a link check that is content", steps(h.plan()), "unit a.service")
	h.opts.Check = func(context.Context, stale.Process) error { return errors.New("libz.so.2 is not found") }
	plan = h.plan()
	want(t, "why", plan.Left[0].Why, "a restart would fail: libz.so.2 is not found")

	// That is no failure, unless it was to start: then the others stay as well, and
	// nobody asks the old code how it is.
	h.service("b.service", nil)
	h.upgrade("b")
	h.opts.Check = func(_ context.Context, p stale.Process) error {
		if strings.HasPrefix(filepath.Base(p.Exe), "a") {
			return errors.New("libz.so.2 is not found")
		}
		return nil
	}
	h.opts.Health, h.opts.MustStart = []Probe{probe(t, "true")}, true
	r, err := h.run()
	wantErr(t, err, ErrUnhealthy, ": a restart would fail: libz.so.2 is not found; 1 not tried")
	want(t, "states", states(r), "b.service not tried")
	want(t, "calls", strings.Join(h.Calls(), ", "), "")
	if len(r.Health) != 0 || r.Healthy {
		t.Errorf("healthy %v, %+v, want nobody asked", r.Healthy, r.Health)
	}
	h.opts.MustStart = false
	r, err = h.run()
	wantErr(t, err, ErrRemains, "1")
	want(t, "states", states(r), "b.service done")
}

// TestContainers names containers.
func TestContainers(t *testing.T) {
	h := newHost(t)
	h.service("a.service", nil)
	h.upgrade("a")
	h.alter = func(p *stale.Process) { p.Container = stale.Container{Engine: "docker", Name: "4f1a"} }
	plan := h.plan()
	want(t, "steps", steps(plan), "")
	want(t, "why", plan.Left[0].Why, "it runs in the container docker 4f1a: replace or restart that")
}

// TestManagers leaves init alone unless it is allowed, and then lets it replace
// itself.
func TestManagers(t *testing.T) {
	h := newHost(t)
	process := stale.Process{PID: 1, Ticks: 7, Comm: "systemd", Files: []stale.File{{Kind: stale.KindExe, Verdict: stale.Stale}}}
	pam := stale.Process{PID: 500, Comm: "(sd-pam)", Files: process.Files, Unit: stale.Unit{Name: "init.scope", User: true, UID: 1000}}
	h.opts.Find = func(context.Context, []int) (*stale.Report, error) {
		r := &stale.Report{}
		if len(h.Calls()) == 0 {
			r.Processes = []stale.Process{process, pam}
		}
		return r, nil
	}
	plan := h.plan()
	want(t, "steps", steps(plan), "")
	want(t, "left", left(plan), "(sd-pam) host; systemd host")
	h.opts.Allow = []string{"init"}
	plan = h.plan()
	want(t, "steps", steps(plan), "reexec systemd")
	want(t, "left", left(plan), "(sd-pam) host")
	r, err := Run(t.Context(), h.opts, plan)
	wantErr(t, err, nil, "")
	want(t, "states", states(r), "systemd done")
	want(t, "calls", strings.Join(h.Calls(), ", "), "reexecute")
}

// TestUserBus restarts a unit of another user over that user's bus, which lets
// in nobody but that user.
func TestUserBus(t *testing.T) {
	testneed.Root(t)
	const nobody = 65534
	h := newHost(t)
	h.Systemd = restarttest.Start(t, nobody)
	// Nor does it let in root.
	if conn, err := dialBus(t.Context(), h.Address, 0); err == nil {
		conn.Close()
		t.Error("the bus of another user lets root in as root")
	}
	conn, err := dialBus(t.Context(), h.Address, nobody)
	if err != nil {
		t.Fatal(err)
	}
	h.Serve(conn)
	h.service("a.service", nil)
	h.upgrade("a")
	h.alter = func(p *stale.Process) { p.Unit.User, p.Unit.UID = true, nobody }
	h.opts.SystemBus = "unix:path=/nowhere"
	h.opts.UserBus = func(uid int) string {
		if uid != nobody {
			t.Errorf("the bus of user %d is asked for", uid)
		}
		return h.Address
	}
	plan := h.plan()
	want(t, "steps", steps(plan), fmt.Sprintf("unit a.service of user %d", nobody))
	r, err := Run(t.Context(), h.opts, plan)
	wantErr(t, err, nil, "")
	want(t, "states", states(r), fmt.Sprintf("a.service of user %d done", nobody))
	if os.Geteuid() != 0 {
		t.Error("moult has become somebody else")
	}
}

// TestReadRules believes only what root alone can have written.
func TestReadRules(t *testing.T) {
	testneed.Root(t)
	dir := filepath.Join(t.TempDir(), "moult", "restart.d")
	if rules, err := ReadRules(dir); len(rules) != 0 || err != nil {
		t.Errorf("no directory: %v, %v, want none", rules, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir+"/20-b.toml", "[[restart]]\nunit = \"b\"\n")
	writeFile(t, dir+"/10-a.toml", "[[restart]]\nunit = \"a\"\nrun = [\"/bin/true\"]\n[[restart]]\npath = \"/opt/**\"\nleave = true\n")
	writeFile(t, dir+"/README", "no rules")
	rules, err := ReadRules(dir)
	if err != nil || len(rules) != 3 || rules[0].Unit != "a" || rules[1].Path != "/opt/**" || rules[2].Unit != "b" {
		t.Fatalf("got %+v, %v, want three in order", rules, err)
	}
	want(t, "from", rules[1].From, dir+"/10-a.toml, rule 2")
	for name, spoil := range map[string]func(path string) error{
		"writable by the group": func(p string) error { return os.Chmod(p, 0o664) },
		"somebody else's":       func(p string) error { return os.Chown(p, 65534, 0) },
		"a link":                func(p string) error { return errors.Join(os.Rename(p, p+".real"), os.Symlink(p+".real", p)) },
		"wrong":                 func(p string) error { return os.WriteFile(p, []byte("[[restart]]\nrun = []\n"), 0o644) },
	} {
		path := dir + "/30-c.toml"
		writeFile(t, path, "[[restart]]\nunit = \"c\"\n")
		if err := spoil(path); err != nil {
			t.Fatal(err)
		}
		if rules, err := ReadRules(dir); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, %v, want an error that names it", name, rules, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for _, open := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(open, 0o777); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadRules(dir); err == nil || !strings.Contains(err.Error(), open+" can be written") {
			t.Errorf("%s, to which anybody can write, is believed: %v", open, err)
		}
		if err := os.Chmod(open, 0o755); err != nil {
			t.Fatal(err)
		}
		if rules, err := ReadRules(dir); len(rules) != 3 || err != nil {
			t.Errorf("%s is root's again: %v, %v, want three rules", open, rules, err)
		}
	}
}

func TestPublicPath(t *testing.T) {
	for path, wanted := range map[string]string{
		"/opt/app/.moult/generations/41/bin/x": "/opt/app/bin/x", "/opt/app/.moult/live/bin/x": "/opt/app/bin/x",
		"/opt/app/.moult/generations/41": "/opt/app/.moult/generations/41", "/opt/app/bin/x": "/opt/app/bin/x", "": "",
		"/opt/app/.moult/live/bin/../lib/x": "/opt/app/lib/x", "/usr/lib/../lib/x": "/usr/lib/../lib/x",
	} {
		want(t, path, PublicPath(path), wanted)
	}
}

// TestForeign tells the target's own programs from those that only use its
// libraries, and finds these stale too.
func TestForeign(t *testing.T) {
	h := newHost(t)
	lib := filepath.Join(h.dir, "opt", "libx.so")
	h.service("opt/own.service", func(u *restarttest.Unit) { u.Name = "own.service" })
	restarttest.Library(t, lib, "1")
	h.service("user.service", nil, "load="+lib)
	restarttest.Library(t, lib, "2")
	h.upgrade("opt/own")
	h.opts.Target = h.dir + "/opt"
	eventually(t, "both", func() bool { return steps(h.plan()) == "unit own.service; unit user.service" })
	plan := h.plan()
	if plan.Foreign() != 1 || plan.Steps[0].Foreign || !plan.Steps[1].Foreign {
		t.Errorf("got %+v, want the second foreign", plan.Steps)
	}
	all := h.opts
	all.Target, all.Targets = "", []string{h.dir + "/opt"}
	if plan, err := MakePlan(t.Context(), all); err != nil || plan.Foreign() != 1 {
		t.Errorf("of all: %+v, %v, want one foreign", plan, err)
	}
	plan.LeaveForeign()
	want(t, "steps", steps(plan), "unit own.service")
	want(t, "left", left(plan), "user foreign")
	r, err := Run(t.Context(), h.opts, plan)
	wantErr(t, err, ErrRemains, "1")
	if len(r.Remaining) != 1 || r.Remaining[0].PID != h.PID("user.service") {
		t.Errorf("remaining: %+v, want that of user.service", r.Remaining)
	}
	_, err = h.run()
	wantErr(t, err, nil, "")
	want(t, "calls", strings.Join(h.Calls(), ", "), "restart own.service, restart user.service")
}
