package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"moult.example/internal/deploy"
	"moult.example/internal/restart"
)

// foundAfter is what status 3 means to a command that can restart after a change.
var foundAfter = map[int]string{statusFound: "done, but with --restart: stale processes remain"}

// restarted is the document of a command that has changed a target and then
// brought its processes along.
type restarted struct {
	deploy.Result
	Restart *restart.Result `json:"restart,omitempty"`

	// What followed if that did not go well.
	Rollback *deploy.Result  `json:"rollback,omitempty"`
	Again    *restart.Result `json:"restart_after_rollback,omitempty"`
}

// finish prints what a command has done with a target; if it is asked to, it
// then restarts what is stale by that, asks for the health, and goes back if all
// is not well, whoever was to restart. What
// has happened is printed as it happens, or else as one document in the end.
func (a *app) finish(ctx context.Context, t *deploy.Target, f *restartFlags, r deploy.Result, err error) error {
	if err != nil || !f.wanted() {
		return a.printResult(r, err)
	}
	a.remarkResult(r)
	done := restarted{Result: r}
	var printErrs []error // no reason to stop half way
	say := func(human func(io.Writer)) {
		if !a.json {
			printErrs = append(printErrs, a.print(nil, human))
		}
	}
	say(func(w io.Writer) { writeResult(w, r) })
	done.Restart, err = a.restartAfter(ctx, t, f, r.Job, nil)
	err = a.sayRestarts(say, done.Restart, err)
	switch {
	case err == nil || errors.Is(err, restart.ErrRemains):
	case !a.mayGoBack(ctx, f, r):
		err = fmt.Errorf("%s is live: %w", generation(r.Generation), notWell(f, err))
	default:
		err = a.goBack(ctx, t, f, &done, say, err)
	}
	if a.json {
		printErrs = append(printErrs, a.print(done, nil))
	}
	if err == nil {
		err = errors.Join(printErrs...)
	}
	return err
}

// sayRestarts prints what a run has done, if it came to one, and gives its error
// without what that says already.
func (a *app) sayRestarts(say func(func(io.Writer)), r *restart.Result, err error) error {
	if r == nil || a.json {
		return err
	}
	say(func(w io.Writer) { writeRestarts(w, r) })
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return r.Brief()
}

// restartAfter restarts what is stale in a target, and what an earlier run has
// left down, or only asks for the health. A new release with which something would
// not start again is not well, whatever its old code answers; after a rollback,
// what can be restarted is.
func (a *app) restartAfter(ctx context.Context, t *deploy.Target, f *restartFlags, job string, earlier *restart.Result) (*restart.Result, error) {
	o, err := a.restartOptions(f, t.Path())
	if err != nil {
		return nil, err
	}
	if earlier != nil { // what is left of the release that was no good is not well, and all of it has to go
		o.Revive, o.HealthLast, o.KeepGoing = earlier.Steps, true, true
	}
	plan := &restart.Plan{Target: t.Path()}
	if f.restart {
		if plan, err = restart.MakePlan(ctx, o); err != nil {
			return nil, err
		}
		if isTerminal(a.stdout) && !f.yes && !a.json {
			plan.LeaveForeign()
		}
	}
	o.HealthOnly = !f.restart
	o.MustStart = len(f.probes) > 0 && job != "rollback"
	return a.runRestart(ctx, o, plan)
}

// notWell gives an error of a restart that has itself done nothing the status of
// a change that is not finished: the release is live.
func notWell(f *restartFlags, err error) error {
	switch {
	case errors.Is(err, restart.ErrUnhealthy):
		return err
	case errors.Is(err, context.Canceled) && !f.restart:
		return fmt.Errorf("%w: interrupted before it was known to be well", restart.ErrUnhealthy)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%w: interrupted before its programs were restarted", restart.ErrUnhealthy)
	}
	return fmt.Errorf("%w: %w", restart.ErrUnhealthy, err)
}

// mayGoBack says whether a rollback is wanted, and this command's to make: with
// --health, where something was made live that can be taken back, and nobody has
// said stop. Who has asked for a rollback does not get the other release again.
func (a *app) mayGoBack(ctx context.Context, f *restartFlags, r deploy.Result) bool {
	return len(f.probes) > 0 && r.Job != "rollback" && !r.Unchanged && r.From >= 0 && ctx.Err() == nil
}

// goBack makes the earlier generation live again and, if that was asked for,
// restarts once more. The
// error says in which state the host is now.
func (a *app) goBack(ctx context.Context, t *deploy.Target, f *restartFlags, done *restarted, say func(func(io.Writer)), cause error) error {
	was := done.Result
	because := fmt.Errorf("%s: %w", generation(was.Generation), notWell(f, cause))
	if live, err := liveOf(t, was.Name); err != nil || live != was.Generation {
		if err == nil {
			err = fmt.Errorf("somebody has made %s live meanwhile, which stays", generation(live))
		}
		return fmt.Errorf("%w; there was no rollback: %w", because, err)
	}
	a.remark("not well, going back to %s", generation(was.From))
	back, err := t.Rollback(context.WithoutCancel(ctx), deploy.RollbackOptions{Name: was.Name, Generation: was.From, Because: "not healthy"})
	a.progress.finish()
	if err != nil && !changed(err) {
		return fmt.Errorf("%w; it is still live, as the rollback failed: %w", because, err)
	}
	done.Rollback = &back
	a.remarkResult(back)
	say(func(w io.Writer) { writeResult(w, back) })
	if err != nil {
		return fmt.Errorf("%w; the rollback to %s: %w", because, generation(was.From), err)
	}
	done.Again, err = a.restartAfter(ctx, t, f, back.Job, done.Restart)
	err = a.sayRestarts(say, done.Again, err)
	switch {
	case err == nil:
		return fmt.Errorf("%w; %s is live again, and well", because, generation(was.From))
	case errors.Is(err, restart.ErrRemains):
		return fmt.Errorf("%w; %s is live again, and well, but %s still stale", because, generation(was.From),
			plural(len(done.Again.Remaining), "process is", "processes are"))
	}
	if err == restart.ErrUnhealthy { // what it is was said already
		return fmt.Errorf("%w; %s is live again, and that is not well either", because, generation(was.From))
	}
	return fmt.Errorf("%w; %s is live again, and that is not well either: %w", because, generation(was.From), err)
}

// liveOf is the live generation of a product.
func liveOf(t *deploy.Target, name string) (int, error) {
	all, err := t.Status(name)
	if err != nil || len(all) != 1 {
		return -1, errors.Join(err, fmt.Errorf("%d products, want one", len(all)))
	}
	return all[0].Live, nil
}
