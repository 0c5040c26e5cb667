package restart

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"moult.example/internal/release"
)

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}

// TestSignals has programs replace themselves, in a unit and outside, under
// their number; and some that say so and do not.
func TestSignals(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.service("a.service", nil, "reexec", "child")
	tool := h.program("tool", "1")
	pid := h.start(tool, "reexec")
	unit := h.PID("a.service")
	h.upgrade("a", "tool")
	eventually(t, "what they say of themselves", func() bool {
		plan := h.plan()
		return steps(plan) == fmt.Sprintf("signal a, process %d; signal tool, process %d", unit, pid) && len(plan.Steps[0].Processes) == 2
	})
	h.opts.Linger = time.Second
	r, err := h.run()
	// The child of a is not replaced: its process goes on, but not its main one.
	wantErr(t, err, ErrUnhealthy, "still runs the old code")
	want(t, "state of tool", string(r.Steps[1].State), string(NotTried))
	runs(t, unit, filepath.Join(h.dir, "a"), true)
	if len(h.Calls()) != 0 || h.PID("a.service") != unit {
		t.Errorf("systemd was asked for %v, want nothing", h.Calls())
	}

	h.opts.Linger = limit
	h.opts.KeepGoing = true
	r, err = h.run()
	runs(t, pid, tool, true)
	if o := r.Steps[len(r.Steps)-1]; o.State != Done || o.Processes[0].PID != pid {
		t.Errorf("tool: %+v, %v, want it done under its number", o, err)
	}
	// What is left of a is no main process, and cannot replace itself.
	want(t, "calls", strings.Join(h.Calls(), ", "), "restart a.service")
	if len(r.Remaining) != 0 {
		t.Errorf("remaining: %+v, want none", r.Remaining)
	}
}

func TestSignalsInVain(t *testing.T) {
	for _, test := range []struct {
		verb  string
		state State
		text  string
	}{
		{"deaf", StillOld, "it has not replaced itself in time, and goes on with the old code"},
		{"rejects", StillOld, "it has rejected the new code, and goes on with the old"},
		{"takenback", StillOld, "the new code did not get ready, and the old has taken over again"},
		{"takenbacklate", StillOld, "the new code did not get ready, and the old has taken over again"},
		{"takenbackmute", StillOld, "the new code did not get ready, and the old has taken over again"},
		{"quits", Failed, "it ended instead of replacing itself"},
	} {
		t.Run(test.verb, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			if test.verb == "deaf" {
				h.opts.Timeout = inVain(t)
			}
			h.start(h.program("tool", "1"), test.verb)
			h.upgrade("tool")
			eventually(t, "what it says of itself", func() bool { return len(h.plan().Steps) == 1 })
			r, err := h.run()
			wantErr(t, err, ErrUnhealthy, test.text)
			want(t, "state", string(r.Steps[0].State), string(test.state))
		})
	}
}

// TestAnotherProcess wants nothing done to a process that has the number of one
// that was planned, but is not that one.
func TestAnotherProcess(t *testing.T) {
	h := newHost(t)
	pid := h.start(h.program("tool", "1"), "reexec")
	h.upgrade("tool")
	eventually(t, "what it says of itself", func() bool { return len(h.plan().Steps) == 1 })
	plan := h.plan()
	plan.Steps[0].Processes[0].ticks--
	r, err := Run(t.Context(), h.opts, plan)
	wantErr(t, err, ErrRemains, "1")
	want(t, "states", states(r), fmt.Sprintf("tool, process %d current", pid))
	runs(t, pid, filepath.Join(h.dir, "tool"), false)
	kill(t, pid)
	eventually(t, "its end", func() bool { return len(h.plan().Steps) == 0 })
	r, err = Run(t.Context(), h.opts, plan)
	wantErr(t, err, nil, "")
	want(t, "states", states(r), fmt.Sprintf("tool, process %d current", pid))
}

func rule(path string, run ...string) Rule {
	return Rule{RestartRule: release.RestartRule{Path: path, Run: run}, From: "a test"}
}

// TestCommands restarts by commands: once for all processes of a rule, which
// are told in the environment.
func TestCommands(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	tool := h.program("tool", "1")
	a, b := h.start(tool), h.start(tool)
	h.service("c.service", nil)
	h.upgrade("tool", "c")
	h.opts.Rules = []Rule{rule("**/tool", "/bin/sh", "-c", "echo $MOULT_PIDS. >> "+h.dir+"/log; kill $MOULT_PIDS"), rule("**/c", "/bin/true")}
	h.opts.Rules[1].Timeout = inVain(t).String()
	r, err := h.run()
	wantErr(t, err, ErrUnhealthy, "still runs the old code") // true does nothing
	log, _ := os.ReadFile(h.dir + "/log")
	want(t, "log", string(log), fmt.Sprintf("%d %d.\n", min(a, b), max(a, b)))
	if r.Steps[0].State != Done || r.Steps[1].State != StillOld || len(r.Remaining) != 1 || len(h.Calls()) != 0 {
		t.Errorf("got %s, %d remaining, want the first done, the second stale", states(r), len(r.Remaining))
	}
	for command, text := range map[string]string{
		"echo no way >&2; exit 7": "exit status 7: no way",
		"sleep 1000":              "not done in time, killed",
	} {
		h.opts.Rules[1].Run = []string{"/bin/sh", "-c", command}
		_, err = h.run()
		wantErr(t, err, ErrUnhealthy, text)
	}
	h.opts.Rules[1].Run = []string{"/no/such/command"}
	if r, err = h.run(); err == nil || r.Acted() || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v, acted %v, want an error and nothing done", err, r.Acted())
	}
	// Without it, its unit does.
	h.opts.Rules = h.opts.Rules[:1]
	_, err = h.run()
	wantErr(t, err, nil, "")
	want(t, "calls", strings.Join(h.Calls(), ", "), "restart c.service")
}

// TestRuleOfRelease follows the rules of a release for its own target alone.
func TestRuleOfRelease(t *testing.T) {
	h := newHost(t)
	for _, dir := range []string{"opt", "other"} {
		h.start(h.program(dir+"/bin/tool", "1"))
		h.upgrade(dir + "/bin/tool")
	}
	writeFile(t, h.dir+"/opt/ctl", "#!/bin/sh\npwd > log; kill $MOULT_PIDS\n")
	if err := os.Chmod(h.dir+"/opt/ctl", 0o755); err != nil {
		t.Fatal(err)
	}
	r := rule("bin/*", "./ctl")
	r.Target = h.dir + "/opt"
	h.opts.Rules = []Rule{r}
	plan := h.plan()
	want(t, "steps", steps(plan), "command ./ctl")
	want(t, "left", left(plan), "tool unknown")
	result, err := Run(t.Context(), h.opts, plan)
	wantErr(t, err, ErrRemains, "1")
	want(t, "states", states(result), "./ctl done")
	log, _ := os.ReadFile(h.dir + "/opt/log")
	want(t, "directory", string(log), h.dir+"/opt\n")
	if !below(result.Remaining[0].Exe, h.dir+"/other") {
		t.Errorf("remaining: %+v, want what is in other", result.Remaining)
	}

	// Without a path it is for its own target all the same.
	everything := Rule{RestartRule: release.RestartRule{Command: "*", Run: []string{"/bin/true"}}, Target: h.dir + "/opt"}
	h.opts.Rules = []Rule{everything}
	want(t, "steps", steps(h.plan()), "")
	h.opts.Rules = nil

	h.opts.Target = h.dir + "/other"
	plan = h.plan()
	if len(plan.Left) != 1 || plan.Foreign() != 0 {
		t.Errorf("for the other target alone: %+v, want one", plan.Left)
	}
}

// TestRevive starts again what an earlier run has restarted and is down since, and
// nothing else.
func TestRevive(t *testing.T) {
	h := newHost(t)
	h.service("a.service", nil)
	h.service("b.service", nil, "quits")
	h.service("never.service", nil)
	tool := h.program("tool", "1")
	pid := h.start(tool)
	h.upgrade("a", "b", "tool")
	eventually(t, "what b says of itself", func() bool { return strings.Contains(steps(h.plan()), "signal b,") })
	h.opts.KeepGoing = true
	h.opts.Rules = []Rule{rule("**/tool", "/bin/sh", "-c", "echo $MOULT_PIDS. >> "+h.dir+"/log; test -z \"$MOULT_PIDS\" || kill $MOULT_PIDS")}
	r, err := h.run()
	wantErr(t, err, ErrUnhealthy, "it ended instead of replacing itself")
	h.Stop("a.service")
	h.Stop("never.service")
	eventually(t, "the end of b", func() bool { return h.PID("b.service") == 0 })

	again, err := h.run()
	wantErr(t, err, nil, "")
	want(t, "without being told", states(again), "")
	h.opts.Revive = r.Steps
	again, err = h.run()
	wantErr(t, err, nil, "")
	if len(again.Steps) != 3 || again.Count(Done) != 3 {
		t.Errorf("states: %s, want all three done", states(again))
	}
	log, _ := os.ReadFile(h.dir + "/log")
	want(t, "log", string(log), fmt.Sprintf("%d.\n.\n", pid))
	if h.PID("a.service") == 0 || h.PID("b.service") == 0 || h.PID("never.service") != 0 {
		t.Errorf("processes %d, %d, %d, want the first two up", h.PID("a.service"), h.PID("b.service"), h.PID("never.service"))
	}
	// What is up needs no more.
	h.opts.Revive = r.Steps[1:]
	again, err = h.run()
	wantErr(t, err, nil, "")
	want(t, "states", states(again), "")
}

// TestHealth stops where what was restarted is not well.
func TestHealth(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, name := range []string{"a", "b", "c"} {
		h.service(name+".service", nil)
		h.upgrade(name)
	}
	h.opts.Rules = []Rule{{RestartRule: release.RestartRule{Unit: "a.*", Health: []string{"test -e /proc/$(cat " + h.dir + "/pid)"}}}}
	h.opts.OnEvent = func(e Event) { h.note("a.service") }
	h.opts.Health = []Probe{probe(t, "echo >> "+h.dir+"/asked; test $(wc -l < "+h.dir+"/asked) -le 2")} // before, and after a
	h.opts.HealthLimit = inVain(t)
	r, err := h.run()
	wantErr(t, err, ErrUnhealthy, "health: echo")
	want(t, "states", states(r), "a.service done; b.service done; c.service not tried")
	if r.Healthy || len(r.Health) != 1 || r.Health[0].OK {
		t.Errorf("health: %+v, want the last answer", r.Health)
	}
}

// TestHealthBetween: what was ill before may be so until the last is restarted,
// and so may anything after a rollback.
func TestHealthBetween(t *testing.T) {
	t.Parallel()
	for _, last := range []bool{false, true} {
		h := newHost(t)
		for _, name := range []string{"a", "b"} {
			h.service(name+".service", nil)
			h.upgrade(name)
		}
		text := "! readlink /proc/[0-9]*/exe | grep -qF '" + h.dir + "/b (deleted)'" // b runs its new file
		if last {
			text += " || ! test -e " + h.dir + "/begun"
			h.opts.OnEvent = func(Event) { os.WriteFile(h.dir+"/begun", nil, 0o644) } // well, until something is begun
		}
		h.opts.Health, h.opts.HealthLast = []Probe{probe(t, text)}, last
		r, err := h.run()
		wantErr(t, err, nil, "")
		want(t, "states", states(r), "a.service done; b.service done")
		if len(r.Health) != 1 || !r.Health[0].OK {
			t.Errorf("health: %+v, want one probe that is well", r.Health)
		}
	}
}

// TestHealthOnly: with nothing to do it is asked once all the same.
func TestHealthOnly(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.opts.Health = []Probe{probe(t, "false")}
	h.opts.HealthLimit = inVain(t)
	_, err := h.run()
	wantErr(t, err, ErrUnhealthy, "health: false: exit status 1")
}
