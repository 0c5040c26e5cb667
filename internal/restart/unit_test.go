package restart

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"moult.example/internal/restart/restarttest"
	"moult.example/internal/stale"
)

// TestUnits restarts stale units and no others, and finds that they have the
// new code.
func TestUnits(t *testing.T) {
	h := newHost(t)
	for _, name := range []string{"b.service", "a.service", "fresh.service"} {
		h.service(name, nil)
	}
	h.service("family.service", nil, "child")
	h.upgrade("a", "b", "family")
	eventually(t, "the child", func() bool {
		all := h.plan().Steps
		return len(all) == 3 && len(all[2].Processes) == 2
	})
	old, fresh := h.PID("a.service"), h.PID("fresh.service")

	plan := h.plan()
	want(t, "steps", steps(plan), "unit a.service; unit b.service; unit family.service")
	if n := len(plan.Steps[2].Processes); n != 2 {
		t.Errorf("family.service has %d stale processes, want 2", n)
	}
	r, err := Run(t.Context(), h.opts, plan)
	wantErr(t, err, nil, "")
	want(t, "states", states(r), "a.service done; b.service done; family.service done")
	want(t, "calls", strings.Join(h.Calls(), ", "), "restart a.service, restart b.service, restart family.service")
	if !r.Healthy || len(r.Remaining) != 0 || r.Steps[0].MainPID != h.PID("a.service") || r.Steps[0].MainPID == old {
		t.Errorf("got %+v, want all well, and another main process than %d", r, old)
	}
	for _, name := range []string{"a", "b", "family"} {
		runs(t, h.PID(name+".service"), filepath.Join(h.dir, name), true)
	}
	if h.PID("fresh.service") != fresh {
		t.Error("fresh.service was restarted, and was not stale")
	}
	again, err := h.run()
	wantErr(t, err, nil, "")
	if len(again.Steps) != 0 || again.Acted() {
		t.Errorf("a second run has %d steps, want none", len(again.Steps))
	}
}

// TestUnitFailures is every way in which a restart over D-Bus can go wrong.
func TestUnitFailures(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*restarttest.Unit)
		dies   bool // as soon as it is done
		state  State
		err    error
		text   string
	}{
		{"job fails", func(u *restarttest.Unit) { u.JobFails = true }, false, Failed, ErrUnhealthy,
			`restart a.service: its job ended with "failed"; it is failed (failed), its result exit-code`},
		{"job hangs", func(u *restarttest.Unit) { u.JobHangs = true }, false, Failed, ErrUnhealthy, "systemd is still at it"},
		{"signal lost", func(u *restarttest.Unit) { u.LosesSignal = true }, false, Done, nil, ""},
		{"slow", func(u *restarttest.Unit) { u.StartsIn = 200 * time.Millisecond }, false, Done, nil, ""},
		{"too slow", func(u *restarttest.Unit) { u.StartsIn = time.Hour }, false, Failed, ErrUnhealthy, "is not up in time; it is activating"},
		{"ends", nil, true, Failed, ErrUnhealthy, "a.service came up and is not up any more"},
		{"ends again and again", func(u *restarttest.Unit) { u.RestartAlways = true }, true,
			Failed, ErrUnhealthy, "systemd has had to restart it"},
		{"may not", func(u *restarttest.Unit) { u.Denied = true }, false, Failed, nil, "Interactive authentication required"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.service("a.service", nil)
			h.service("b.service", nil)
			if test.change != nil {
				h.Change("a.service", test.change)
			}
			h.upgrade("a", "b")
			if test.name == "job hangs" || test.name == "too slow" {
				h.opts.Timeout = inVain(t) // enough to ask systemd on a busy machine
			}
			if test.dies {
				h.opts.OnEvent = func(e Event) {
					if pid := h.PID("a.service"); e.Step == "a.service" && e.State == Done {
						kill(t, pid)
						eventually(t, "systemd to see its end", func() bool { return h.PID("a.service") != pid })
					}
				}
			}
			r, err := h.run()
			if test.err == nil && test.text != "" {
				if err == nil || !strings.Contains(err.Error(), test.text) || r.Acted() {
					t.Errorf("got %v, acted %v, want %q and nothing done", err, r.Acted(), test.text)
				}
			} else {
				wantErr(t, err, test.err, test.text)
			}
			next := NotTried
			if test.state == Done || test.dies {
				next = Done
			}
			want(t, "states", states(r), fmt.Sprintf("a.service %s; b.service %s", test.state, next))
		})
	}
}

// note writes the number of a unit's main process to the file pid.
func (h *host) note(unit string) {
	writeFile(h.t, filepath.Join(h.dir, "pid"), fmt.Sprint(h.PID(unit)))
}

// TestKeepGoing goes on after a failure if it is told so.
func TestKeepGoing(t *testing.T) {
	h := newHost(t)
	h.service("a.service", func(u *restarttest.Unit) { u.JobFails = true })
	h.service("b.service", nil)
	h.upgrade("a", "b")
	h.opts.KeepGoing = true
	r, err := h.run()
	wantErr(t, err, ErrUnhealthy, "a.service")
	want(t, "states", states(r), "a.service failed; b.service done")
}

// TestOldCodeAgain restarts a unit that is told to run an old generation, and
// one that leaves a process behind.
func TestOldCodeAgain(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.opts.Linger = 300 * time.Millisecond
	h.program("current/app", "1")
	h.Add(restarttest.Unit{Name: "app.service", Argv: []string{h.program("pinned/app", "1")}})
	if plan := h.plan(); len(plan.Steps) != 0 {
		t.Fatalf("steps before the upgrade: %s", steps(plan))
	}
	h.upgrade("current/app")
	r, err := h.run()
	wantErr(t, err, ErrUnhealthy, "app.service: it is up, but process")
	want(t, "states", states(r), "app.service stale")
	if len(r.Remaining) != 1 || r.Remaining[0].PID != h.PID("app.service") {
		t.Errorf("remaining: %+v, want the new main process", r.Remaining)
	}

	h = newHost(t)
	h.opts.Linger = 300 * time.Millisecond
	h.service("b.service", nil, "escape")
	h.upgrade("b")
	eventually(t, "the child", func() bool { return len(h.plan().Steps[0].Processes) == 2 })
	r, err = h.run()
	wantErr(t, err, ErrUnhealthy, "still runs the old code")
	want(t, "states", states(r), "b.service stale")
	if len(r.Remaining) != 1 {
		t.Fatalf("remaining: %+v, want the child", r.Remaining)
	}
	kill(t, r.Remaining[0].PID)
}

// TestRefusedUnits leaves units alone that may not be restarted, or of which
// nobody can be asked.
func TestRefusedUnits(t *testing.T) {
	h := newHost(t)
	h.service("a.service", func(u *restarttest.Unit) { u.Refuses = true })
	h.service("b.service", nil)
	h.upgrade("a", "b")
	want(t, "left", left(h.plan()), "a unit")
	h.alter = func(p *stale.Process) { p.Unit.Name = "other-" + p.Unit.Name }
	plan := h.plan()
	want(t, "left", left(plan), "a unknown; b unknown")
	want(t, "why", plan.Left[0].Why, "nobody knows how to restart this: it is in other-a.service, but systemd does not know it")
	h.alter = func(*stale.Process) {}
	h.opts.SystemBus = "unix:path=" + h.dir + "/none"
	plan = h.plan()
	want(t, "left", left(plan), "a unknown; b unknown")
	if why := plan.Left[1].Why; !strings.Contains(why, "it is in b.service, but systemd: bus unix:path="+h.dir+"/none: connect") {
		t.Errorf("why: %s", why)
	}
}

// TestStoppedUnits starts no unit that somebody has stopped, before the plan or
// after it.
func TestStoppedUnits(t *testing.T) {
	h := newHost(t)
	h.service("a.service", nil, "escape")
	h.service("b.service", nil, "escape")
	h.alter = func(p *stale.Process) { p.Unit.Name = filepath.Base(p.Files[0].Path) + ".service" }
	h.upgrade("a", "b")
	eventually(t, "the children", func() bool {
		all := h.plan().Steps
		return len(all) == 2 && len(all[0].Processes) == 2 && len(all[1].Processes) == 2
	})
	h.Stop("a.service")
	plan := h.plan()
	want(t, "steps", steps(plan), "unit b.service")
	want(t, "why", plan.Left[0].Why, "its unit is inactive and has left it behind")
	h.Stop("b.service")
	_, err := Run(t.Context(), h.opts, plan)
	wantErr(t, err, ErrUnhealthy, "b.service is not up; it is inactive (dead)")
	if a, b := h.PID("a.service"), h.PID("b.service"); a != 0 || b != 0 {
		t.Errorf("main processes %d and %d, want neither unit started", a, b)
	}
	for _, l := range h.plan().Left {
		kill(t, l.PID)
	}
}

// TestTakenAlong leaves a unit alone whose restart would restart another that is
// to be left alone.
func TestTakenAlong(t *testing.T) {
	h := newHost(t)
	h.service("a.service", func(u *restarttest.Unit) { u.RequiredBy = []string{"gone.service", "web.service", "docker.service"} })
	h.service("web.service", nil)
	h.upgrade("a")
	want(t, "steps", steps(h.plan()), "unit a.service")
	h.opts.Deny = []string{"web*"}
	plan := h.plan()
	want(t, "steps", steps(plan), "")
	want(t, "why", plan.Left[0].Why, "systemd would restart web.service with it, which is to be left alone")
	h.opts.Deny = nil
	h.service("docker.service", nil)
	want(t, "left", left(h.plan()), "a denied")
	h.opts.Allow = []string{"docker.service"}
	want(t, "steps", steps(h.plan()), "unit a.service")
}

// TestRulesOrder follows the order of the rules, and reloads what they say.
func TestRulesOrder(t *testing.T) {
	h := newHost(t)
	h.service("app.service", nil)
	h.service("db.service", nil)
	h.service("web.service", func(u *restarttest.Unit) { u.CanReload = true }, "reload")
	h.service("other.service", nil)
	h.upgrade("app", "db", "web", "other")
	h.opts.Parallel = 3 // but never across rules
	for _, text := range []string{"unit=db.service", "unit=web.*", "path=**/app"} {
		key, value, _ := strings.Cut(text, "=")
		var r Rule
		switch key {
		case "unit":
			r.Unit = value
		case "path":
			r.Path = value
		}
		r.Reload = value == "web.*"
		h.opts.Rules = append(h.opts.Rules, r)
	}
	web := h.PID("web.service")
	r, err := h.run()
	wantErr(t, err, nil, "")
	want(t, "calls", strings.Join(h.Calls(), ", "), "restart db.service, reload-or-restart web.service, restart app.service, restart other.service")
	if h.PID("web.service") != web || r.Steps[1].State != Done {
		t.Errorf("web.service: %+v, want it reloaded as process %d", r.Steps[1], web)
	}
}

// TestParallel does as many at a time as was asked for, and no more.
func TestParallel(t *testing.T) {
	for _, parallel := range []int{0, 2, 4} {
		h := newHost(t)
		// A job goes on when as many have begun as are to be at work at once.
		atOnce, names := max(parallel, 1), []string{"a", "b", "c", "d"}
		gates := make([]chan struct{}, len(names)/atOnce)
		for i, name := range names {
			if i%atOnce == 0 {
				gates[i/atOnce] = make(chan struct{})
			}
			h.service(name+".service", func(u *restarttest.Unit) { u.JobWaits = gates[i/atOnce] })
			h.upgrade(name)
		}
		running, peak := 0, 0
		h.opts.Parallel = parallel
		h.opts.OnEvent = func(e Event) {
			if running--; e.State == Running {
				running += 2
			}
			peak = max(peak, running)
			if e.State == Running && running >= atOnce && len(gates) > 0 {
				close(gates[0])
				gates = gates[1:]
			}
		}
		_, err := h.run()
		wantErr(t, err, nil, "")
		if peak > max(parallel, 1) || parallel > 1 && peak == 1 {
			t.Errorf("parallel %d: %d at a time", parallel, peak)
		}
	}
}

// TestInterrupted cancels before, and in the middle of a job.
func TestInterrupted(t *testing.T) {
	h := newHost(t)
	h.service("a.service", func(u *restarttest.Unit) { u.JobHangs = true })
	h.service("b.service", nil)
	h.upgrade("a", "b")
	plan := h.plan()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := Run(ctx, h.opts, plan)
	wantErr(t, err, context.Canceled, "")
	want(t, "states", states(r), "a.service not tried; b.service not tried")

	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for len(h.Calls()) == 0 && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	r, err = Run(ctx, h.opts, plan)
	wantErr(t, err, ErrUnhealthy, "interrupted: a.service: interrupted: restart a.service: systemd is still at it; 1 not tried")
	want(t, "states", states(r), "a.service failed; b.service not tried")
	if len(r.Remaining) != 2 {
		t.Errorf("remaining: %+v, want both", r.Remaining)
	}
}

// TestInterruptedProbe: all is restarted, and nobody has waited for the answer.
func TestInterruptedProbe(t *testing.T) {
	h := newHost(t)
	h.service("a.service", nil)
	h.upgrade("a")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	asked := h.dir + "/asked"
	h.opts.Health = []Probe{probe(t, "touch "+asked+"; sleep 100")}
	go func() {
		for ctx.Err() == nil {
			if _, err := os.Stat(asked); err == nil {
				cancel()
			}
			time.Sleep(time.Millisecond)
		}
	}()
	r, err := Run(ctx, h.opts, h.plan())
	wantErr(t, err, ErrUnhealthy, "interrupted before it was known to be well")
	want(t, "states", states(r), "a.service done")
}
