package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"moult.example/internal/deploy"
	"moult.example/internal/restart"
	"moult.example/internal/stale"
)

// restartFlags are those of restart, and of what restarts after it has changed
// a target.
type restartFlags struct {
	yes         bool
	deny, allow []string
	parallel    int
	keepGoing   bool
	timeout     time.Duration
	health      []string
	healthLimit time.Duration

	dryRun  bool
	restart bool // of apply, commit and rollback: to restart at all

	probes    []restart.Probe
	hostRules []restart.Rule
}

// oneRestart is how long a restart may take if nobody says otherwise.
const oneRestart = 3 * time.Minute

// add gives a command the flags that restart shares with apply, commit and
// rollback.
func (f *restartFlags) add(flags *pflag.FlagSet) {
	flags.StringArrayVar(&f.health, "health", nil, "then ask if all is well: `PROBE` is tcp:HOST:PORT, http://…,\nhttps://… or a command; may be given more than once")
	flags.DurationVar(&f.healthLimit, "health-timeout", time.Minute, "ask again for this `TIME` until all is well")
	flags.StringArrayVar(&f.deny, "deny", nil, "leave alone the units and programs that match `PATTERN`")
	flags.DurationVar(&f.timeout, "timeout", oneRestart, "give each restart this `TIME` to be up again")
	flags.BoolVarP(&f.yes, "yes", "y", false, "on a terminal: also what is not the target's own")
}

// addAfter gives a command that changes a target the flags to restart after it.
func (f *restartFlags) addAfter(flags *pflag.FlagSet) {
	flags.BoolVar(&f.restart, "restart", false, "then bring the target's stale processes to the new code")
	f.add(flags)
}

// wanted says that something is to be done after a change.
func (f *restartFlags) wanted() bool { return f.restart || len(f.health) > 0 }

// settle checks what a person, or the administrator's rules, could have wrong,
// before anything changes.
func (f *restartFlags) settle() (err error) {
	for _, text := range f.health {
		p, err := restart.ParseProbe(text)
		if err != nil {
			return &usageError{message: "--health " + err.Error()}
		}
		f.probes = append(f.probes, p)
	}
	if f.parallel < 0 || f.timeout < 0 || f.healthLimit < 0 {
		return &usageError{message: "a number or time is below zero"}
	}
	f.hostRules, err = restart.ReadRules(restart.RulesDir)
	return err
}

// settleAfter is settle for a command that restarts only if it is asked to. It
// must not fail for a wrong rule that it does not need.
func (f *restartFlags) settleAfter() error {
	switch {
	case f.wanted():
		return f.settle()
	case f.yes || len(f.deny) > 0 || f.timeout != oneRestart:
		return &usageError{message: "--yes, --deny and --timeout are for --restart"}
	}
	return nil
}

func newRestartCommand(a *app) *cobra.Command {
	var f restartFlags
	c := &cobra.Command{
		Use:   "restart [FLAGS] [TARGET]",
		Short: "bring stale processes to the new code",
		Long: `Restart the processes that run code of a file which is not what they would load
if they were started now: those of a TARGET, or all of this host. The way that
is gentlest to each is taken:

  signal   a program with moult's re-exec library replaces itself
  unit     systemd restarts the unit
  command  what a rule in /etc/moult/restart.d, or in the release, says

What is none of these needs a rule, like this in /etc/moult/restart.d/app.toml
(in a release's moult.toml, path is relative to the target):

  [[restart]]
  path = "/opt/app/bin/worker"
  run = ["/usr/bin/supervisorctl", "restart", "worker"]

Containers are named and not touched. moult never restarts itself, what it was
started from, its own session; nor, unless --allow names it, what a whole host
hangs on: init, the message bus, logins, displays, container engines, networks.
Each has to be up, run the new files and be well before the next one's turn
comes. What could not be started again is not stopped.

On a terminal nothing is done if more than the target's own programs would be
restarted; the plan is shown, and --yes does it.`,
		Example: `  moult restart --dry-run
  moult restart /opt/app --health http://localhost:8080/healthz
  moult restart --yes --deny postgresql@* --parallel 4`,
		Annotations: exitsAs(map[int]string{
			statusFound:      "done, but stale processes remain: left alone, or nobody knows how",
			statusUnfinished: "something is not well or not to the end: see moult ps",
		}, statusFound, statusUnfinished),
		Args:              operands("[TARGET]"),
		ValidArgsFunction: completeTarget(0),
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := f.settle(); err != nil {
			return err
		}
		if len(args) == 0 {
			return a.restart(cmd.Context(), &f, "")
		}
		return a.withTarget(args[0], 0, func(t *deploy.Target) error {
			if _, err := t.Status(""); err != nil {
				return err
			}
			return a.restart(cmd.Context(), &f, t.Path())
		})
	}
	flags := c.Flags()
	flags.BoolVarP(&f.dryRun, "dry-run", "n", false, "print the plan, do nothing")
	f.add(flags)
	flags.StringArrayVar(&f.allow, "allow", nil, "touch what matches `PATTERN` though a host hangs on it")
	flags.IntVar(&f.parallel, "parallel", 1, "restart `N` at a time")
	flags.BoolVar(&f.keepGoing, "keep-going", false, "go on with the others after a failure")
	return c
}

// restart plans and restarts.
func (a *app) restart(ctx context.Context, f *restartFlags, target string) error {
	o, err := a.restartOptions(f, target)
	if err != nil {
		return err
	}
	plan, err := restart.MakePlan(ctx, o)
	if err != nil {
		return err
	}
	foreign := plan.Foreign()
	if f.dryRun || foreign > 0 && isTerminal(a.stdout) && !f.yes && !a.json {
		err := a.print(dryRun{DryRun: true, Plan: plan}, func(w io.Writer) { writeRestartPlan(w, plan) })
		if err == nil && !f.dryRun {
			err = &askError{foreign: foreign, target: target}
		} else if err == nil {
			a.remarkLeft(plan.Left)
		}
		return err
	}
	r, err := a.runRestart(ctx, o, plan)
	if errors.Is(err, context.Canceled) {
		return err
	}
	if printErr := a.print(r, func(w io.Writer) { writeRestarts(w, r) }); printErr != nil && err == nil {
		return printErr
	}
	return err
}

// remarkLeft gives the way out that a real run ends with.
func (a *app) remarkLeft(left []restart.Left) {
	if hint := leftHint(left); hint != "" {
		a.remark("hint: %s", hint)
	}
}

// The ways out for processes that are left as they are.
const (
	goneHint    = "what could not be started again stays as it is until its files are whole: moult check PROGRAM says what is missing"
	ruleHint    = "what nobody knows how to restart needs a rule: moult restart --help shows one"
	foreignHint = "--yes restarts also what is not the target's own"
)

// leftHint is the way out for the worst reason that something was left alone for,
// "" if there is none but to see to it by other means.
func leftHint(left []restart.Left) string {
	reasons := map[restart.Reason]bool{}
	for _, l := range left {
		reasons[l.Reason] = true
	}
	switch {
	case reasons[restart.ForGone]:
		return goneHint
	case reasons[restart.ForUnknown]:
		return ruleHint
	case reasons[restart.ForForeign]:
		return foreignHint
	}
	return ""
}

type dryRun struct {
	DryRun bool `json:"dry_run"`
	*restart.Plan
}

// askError says that somebody should have a look first.
type askError struct {
	foreign int
	target  string
}

func (e *askError) Error() string {
	if e.target == "" {
		return fmt.Sprintf("nothing was done: %s not of a moult target", plural(e.foreign, "restart is", "restarts are"))
	}
	return fmt.Sprintf("nothing was done: %s not of programs of %s", plural(e.foreign, "restart is", "restarts are"), e.target)
}

// restartOptions are those of the flags, with the rules of the host and then
// those of the releases.
func (a *app) restartOptions(f *restartFlags, target string) (restart.Options, error) {
	places := deploy.NewPlaces(a.options(0))
	o := restart.Options{
		Target: target, Rules: f.hostRules[:len(f.hostRules):len(f.hostRules)], Deny: f.deny, Allow: f.allow,
		Parallel: f.parallel, KeepGoing: f.keepGoing, Timeout: f.timeout, Health: f.probes, HealthLimit: f.healthLimit,
		Check: func(ctx context.Context, p stale.Process) error { return wouldStart(ctx, p, places) },
		Find: func(ctx context.Context, pids []int) (*stale.Report, error) {
			return stale.Find(ctx, stale.Options{PIDs: pids, Places: places, Answers: a.servers.answer})
		},
	}
	var paths []string
	if target != "" {
		paths = []string{target}
	}
	errs := a.eachTarget(paths, target == "", 0, func(t *deploy.Target) error {
		o.Targets = append(o.Targets, t.Path())
		live, err := t.RestartRules("")
		for _, l := range live {
			for i, r := range l.Rules {
				from := fmt.Sprintf("%s in %s, rule %d", orDash(oneLine(l.Name+" "+l.Version)), t.Path(), i+1)
				o.Rules = append(o.Rules, restart.Rule{RestartRule: r, From: from, Target: l.Target})
			}
		}
		return err
	})
	if target != "" {
		return o, errors.Join(errs...)
	}
	a.remarkRules(errs)
	return o, nil
}

// remarkRules tells of targets whose rules cannot be read. That keeps none of
// the others from being restarted, and is said once: a host can have many
// targets that went without moult forget.
func (a *app) remarkRules(errs []error) {
	if len(errs) == 0 {
		return
	}
	text := errs[0].Error()
	var refused *deploy.RefusedError
	if errors.As(errs[0], &refused) && len(refused.Problems) > 0 {
		text = refused.Problems[0].Why
	}
	if more := len(errs) - 1; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	a.remark("the rules of %s cannot be read, and are not followed: %s", count(len(errs), "target"), oneLine(text))
	a.remark("moult targets lists the targets; moult forget TARGET drops one that is gone for good")
}
