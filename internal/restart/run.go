package restart

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Run does what a plan says, which must have been made with the same options. A
// batch of up to Parallel steps that the rules do not tell apart is done at
// once; the next begins when all of it is up, runs the new code and is well. A
// failure ends the run, unless KeepGoing is set. With MustStart nothing is begun, and
// nobody asked, if the plan has to leave alone what could not be started again:
// its old code would answer.
//
// The Result says what has been done and what is there, also where an error is
// returned: ErrUnhealthy or ErrRemains, the reason why nothing could be done, or
// that of ctx if it ended before anything was done. If ctx ends later, what was
// begun is not taken back.
func Run(ctx context.Context, o Options, plan *Plan) (*Result, error) {
	o = o.withDefaults()
	r := &runner{Options: o, buses: newBuses(o), self: lookAtSelf(o)}
	defer r.buses.close()
	r.result = &Result{
		Target: plan.Target, Steps: make([]Outcome, len(plan.Steps)), Left: plan.Left, Remaining: []Process{},
		Health: []Health{}, Healthy: true, Unreadable: plan.Unreadable, Blind: plan.Blind, Hidden: plan.Hidden, HealthOnly: o.HealthOnly,
	}
	for i, s := range plan.Steps {
		r.result.Steps[i] = Outcome{Step: s, State: NotTried}
	}
	r.all(ctx)
	if !o.HealthOnly {
		r.lookBack(ctx)
	}
	return r.result, r.result.verdict()
}

// runner is one run.
type runner struct {
	Options
	buses  *buses
	self   self
	result *Result

	telling sync.Mutex
	over    int // steps
}

// all does the steps, batch by batch.
func (r *runner) all(ctx context.Context) {
	steps := r.result.Steps
	if r.MustStart && slices.ContainsFunc(r.result.Left, func(l Left) bool { return l.Reason == ForGone }) {
		r.result.Healthy, r.result.broken = false, true
		return
	}
	if len(steps) == 0 {
		r.health(ctx, r.Health)
		return
	}
	between := r.wellBefore(ctx)
	for len(steps) > 0 {
		if ctx.Err() != nil {
			r.cut(ctx)
			return
		}
		n := 1
		for n < len(steps) && n < r.Parallel && steps[n].order == steps[0].order {
			n++
		}
		probes := between
		if n == len(steps) {
			probes = r.Health
		}
		if !r.batch(ctx, steps[:n], probes) && !r.KeepGoing {
			if ctx.Err() != nil {
				r.cut(ctx)
			}
			return
		}
		steps = steps[n:]
	}
}

// wellBefore are the probes to ask before all is done: those that are well before
// anything is. What is ill may be ill until the very last is restarted.
func (r *runner) wellBefore(ctx context.Context) []Probe {
	if r.HealthLast || len(r.result.Steps) <= 1 {
		return nil
	}
	well := make([]bool, len(r.Health))
	var wait sync.WaitGroup
	for i, p := range r.Health {
		wait.Go(func() {
			try, cancel := context.WithTimeout(ctx, oneTry)
			defer cancel()
			well[i] = p.Try(try) == nil
		})
	}
	wait.Wait()
	var probes []Probe
	for i, p := range r.Health {
		if well[i] {
			probes = append(probes, p)
		}
	}
	return probes
}

// batch does some steps at once, asks the probes and those of its rules, and says
// whether all is well.
func (r *runner) batch(ctx context.Context, steps []Outcome, probes []Probe) bool {
	var wait sync.WaitGroup
	for i := range steps {
		wait.Go(func() { r.step(ctx, &steps[i]) })
	}
	wait.Wait()
	well := true
	for i := range steps {
		if s := steps[i].State; s != Done && s != Current {
			r.result.Healthy, well = false, false
		}
		if steps[i].rule == nil {
			continue
		}
		for _, text := range steps[i].rule.Health {
			p, err := ParseProbe(text)
			if err != nil {
				p = Probe{text: text, kind: "command"} // then sh(1) says what is wrong
			}
			probes = append(probes[:len(probes):len(probes)], p)
		}
	}
	return r.health(ctx, probes) && well
}

// health asks the probes and keeps the answers.
func (r *runner) health(ctx context.Context, probes []Probe) bool {
	if len(probes) == 0 {
		return true
	}
	answers, healthy := CheckHealth(ctx, probes, r.HealthLimit)
	if !healthy && ctx.Err() != nil {
		r.cut(ctx) // it may be well, nobody has waited for it
		return false
	}
	r.result.Health = answers
	r.result.Healthy = r.result.Healthy && healthy
	return healthy
}

// cut notes that the run was interrupted.
func (r *runner) cut(ctx context.Context) {
	r.result.Healthy, r.result.cut = false, context.Cause(ctx)
}

// step does one step, within its time.
func (r *runner) step(ctx context.Context, o *Outcome) {
	limit := r.Timeout
	if o.rule != nil && o.rule.Limit() > 0 {
		limit = o.rule.Limit()
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	begun := time.Now()
	r.tell(o, Running)
	if !o.Revive && r.isCurrent(ctx, o) {
		o.State = Current
	} else {
		o.State = Done
		switch o.Method {
		case BySignal:
			r.bySignal(ctx, o)
		case ByCommand:
			r.byCommand(ctx, o)
		case ByUnit:
			r.byUnit(ctx, o)
		case ByReexec:
			r.byReexec(ctx, o)
		}
	}
	o.Seconds = time.Since(begun).Seconds()
	r.tell(o, o.State)
}

// isCurrent says that none of the step's processes is stale any more: another
// step has brought them along, or somebody else.
func (r *runner) isCurrent(ctx context.Context, o *Outcome) bool {
	left, err := r.stillStale(ctx, o.Processes)
	return err == nil && len(left) == 0
}

// stillStale finds those of some processes that are still there and stale. One
// with the same number but another start is another process.
func (r *runner) stillStale(ctx context.Context, processes []Process) ([]Process, error) {
	pids := make([]int, len(processes))
	for i, p := range processes {
		pids[i] = p.PID
	}
	report, err := r.Find(ctx, pids)
	if err != nil {
		return nil, err
	}
	var left []Process
	for _, p := range processes {
		for _, found := range report.Processes {
			if found.PID == p.PID && found.Ticks == p.ticks && isBad(found.Verdict()) {
				left = append(left, p)
			}
		}
	}
	return left, nil
}

// fail notes an error.
func (o *Outcome) fail(state State, err error) {
	o.State, o.err, o.Error = state, err, err.Error()
}

func (r *runner) tell(o *Outcome, state State) {
	if r.OnEvent == nil {
		return
	}
	r.telling.Lock()
	defer r.telling.Unlock()
	if state != Running {
		r.over++
	}
	r.OnEvent(Event{Step: o.Name, State: state, Error: o.Error, Done: r.over, All: len(r.result.Steps)})
}

// waitCurrent waits until the processes of a step have the new code, for so
// long.
func (r *runner) waitCurrent(ctx context.Context, o *Outcome, limit time.Duration) {
	parent := ctx
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var old []Process // when it was looked last
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		// A look that has begun is finished: cut short, it would tell nothing. Where
		// the time of the whole step is over as well, the one before counts.
		left, err := r.stillStale(parent, o.Processes)
		if err == nil && len(left) == 0 {
			return
		}
		if err == nil {
			old = left
		}
		if sleep(ctx, pause) {
			continue
		}
		switch {
		case errors.Is(parent.Err(), context.Canceled):
			o.fail(Failed, fmt.Errorf("%s: interrupted", o.Name))
		case len(old) == 0:
			o.fail(Failed, fmt.Errorf("%s: look whether it runs the new code: %w", o.Name, err))
		default:
			o.fail(StillOld, fmt.Errorf("%s: process %d (%s) still runs the old code", o.Name, old[0].PID, shown(old[0].Comm)))
		}
		return
	}
}

// lookBack looks at all processes once more, and at the units that were up. It
// does so too when the run was interrupted, for a while.
func (r *runner) lookBack(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	for i := range r.result.Steps {
		r.stayed(ctx, &r.result.Steps[i])
	}
	report, err := r.Find(ctx, nil)
	if err != nil {
		r.result.lookErr, r.result.Healthy = err, false
		return
	}
	r.result.Unreadable, r.result.Hidden = len(report.Unreadable), report.Hidden
	r.result.Blind = append([]int{}, report.Unreadable...)
	for _, p := range report.Processes {
		if !r.concerns(p) {
			continue
		}
		d := describe(p, p.Unit.Name)
		r.result.Remaining = append(r.result.Remaining, d)
		r.blame(p.PID, p.Unit.Name, home{p.Unit.User, p.Unit.UID}, d)
	}
}

// blame finds the step that a stale process should have been brought along by:
// the new main process of its unit, or another in the unit.
func (r *runner) blame(pid int, unit string, h home, d Process) {
	if !h.user {
		h.uid = 0
	}
	for i := range r.result.Steps {
		o := &r.result.Steps[i]
		if o.State == Done && o.Method == BySignal && o.Processes[0].PID == pid && o.Processes[0].ticks == d.ticks {
			o.fail(StillOld, fmt.Errorf("%s: it had replaced itself, and runs old code again; what it has logged says why", o.Name))
			r.result.Healthy = false
		}
		if o.State != Done || o.Method != ByUnit {
			continue
		}
		if o.MainPID == pid || unit == o.Unit && h == o.home {
			what := ""
			if len(d.Files) > 0 {
				what = ": " + shown(d.Files[0])
			}
			o.fail(StillOld, fmt.Errorf("%s: it is up, but process %d (%s) runs old code%s", o.Name, d.PID, shown(d.Comm), what))
			r.result.Healthy = false
		}
	}
}

// stayed looks whether a unit that came up is still up.
func (r *runner) stayed(ctx context.Context, o *Outcome) {
	if o.Method != ByUnit || o.State != Done {
		return
	}
	m, err := r.buses.of(ctx, o.home)
	if err == nil {
		err = m.stayed(ctx, o.up)
	}
	if err != nil {
		o.fail(Failed, err)
		r.result.Healthy = false
	}
}
