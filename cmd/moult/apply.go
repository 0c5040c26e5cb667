package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"moult.example/internal/deploy"
	"moult.example/internal/release"
)

// applyFlags are those of apply and stage.
type applyFlags struct {
	source sourceFlags
	apply  deploy.ApplyOptions
	layout string
	links  string
	after  restartFlags // of apply
	wait   wait
	dryRun bool
	list   bool
}

func (f *applyFlags) add(flags *pflag.FlagSet) {
	flags.BoolVarP(&f.dryRun, "dry-run", "n", false, "print the plan, change nothing")
	flags.BoolVarP(&f.list, "verbose", "v", false, "with --dry-run: list every file")
	flags.StringVar(&f.layout, "layout", "", "on the first apply: `LAYOUT` owned or shared")
	flags.BoolVar(&f.apply.Adopt, "adopt", false, "own a directory that has files in it already")
	flags.BoolVar(&f.apply.Checksum, "checksum", false, "read every file of the target; mend damage")
	flags.BoolVar(&f.apply.Packaged, "packaged", false, "replace files of the system's packages too")
	flags.StringVar(&f.links, "links", "refuse", "a release that breaks what loads it: `POLICY` refuse,\nwarn or ignore")
	f.source.add(flags)
	waitFlag(flags, &f.wait)
}

// options checks what only a person could have typed wrongly.
func (f *applyFlags) options() (deploy.ApplyOptions, error) {
	o := f.apply
	switch f.layout {
	case "", string(deploy.Owned), string(deploy.Shared):
		o.Layout = deploy.Layout(f.layout)
	default:
		return o, &usageError{message: "unknown --layout " + f.layout, hint: "owned or shared"}
	}
	switch f.links {
	case "", "refuse":
	case string(deploy.LinksWarn), string(deploy.LinksIgnore):
		o.Links = deploy.LinkPolicy(f.links)
	default:
		return o, &usageError{message: "unknown --links " + f.links, hint: "refuse, warn or ignore"}
	}
	o.Name, o.Times = f.source.name, f.source.times
	return o, nil
}

func newApplyCommand(a *app) *cobra.Command {
	var f applyFlags
	c := &cobra.Command{
		SuggestFor: []string{"update", "upgrade", "deploy"},
		Use:        "apply [FLAGS] RELEASE TARGET",
		Short:      "make a release live, in one step",
		Long: `Stage a release as a new generation of a target and commit it. Running programs
keep the files that they have, and when apply reports success the release is on
the disk. In an owned target no launch sees half of it; in a shared one the
moment of mixture is as short as renames back to back. If it is live already,
nothing is done. A release with which a program or library would no longer load
is refused before anything changes; --links says otherwise.

` + releaseForms + `

A target that is new or empty becomes owned: moult switches all of it by one
rename. One with files in it is shared, and gets its files one by one, unless
--adopt is given; a remark says so. --layout says otherwise on the first apply.

--restart brings the processes along, as moult restart does. With --health, what
is not well afterwards is rolled back and asked once more, with --restart after
another restart.`,
		Example: `  moult apply ./build /opt/app
  moult apply --dry-run app-2.1.moult /opt/app
  moult apply app-2.1.moult /opt/app --restart --health tcp:localhost:80
  ssh build cat app.tar.zst | moult apply - /opt/app`,
		Annotations:       exitsAs(foundAfter, statusFound, statusUnfinished, statusBusy),
		Args:              operands("RELEASE", "TARGET"),
		ValidArgsFunction: completeTarget(1),
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := f.after.settleAfter(); err != nil {
			return err
		}
		return a.deliver(cmd.Context(), &f, args[0], args[1], (*deploy.Target).Apply)
	}
	f.add(c.Flags())
	c.Flags().BoolVar(&f.apply.NoHooks, "no-hooks", false, "run no hook, no ldconfig and no systemctl")
	retentionFlags(c.Flags(), &f.apply.Retention)
	f.after.addAfter(c.Flags())
	return c
}

func newStageCommand(a *app) *cobra.Command {
	var f applyFlags
	c := &cobra.Command{
		Use:   "stage [FLAGS] RELEASE TARGET",
		Short: "make a release ready, and change nothing that is seen",
		Long: `Make a new generation of a target, complete and durable, without making it live:
moult commit does that, at once. Whatever can fail, or take long, happens here.
A generation that was staged before and never committed is dropped.

` + releaseForms,
		Example: `  moult stage ./build /opt/app && moult commit /opt/app
  moult stage --dry-run app.tar.zst /opt/app`,
		Annotations:       exits(statusUnfinished, statusBusy),
		Args:              operands("RELEASE", "TARGET"),
		ValidArgsFunction: completeTarget(1),
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		return a.deliver(cmd.Context(), &f, args[0], args[1], (*deploy.Target).Stage)
	}
	f.add(c.Flags())
	return c
}

type deliverJob func(*deploy.Target, context.Context, *release.Release, deploy.ApplyOptions) (deploy.Result, error)

// deliver opens release and target, and plans or does the job.
func (a *app) deliver(ctx context.Context, f *applyFlags, path, target string, job deliverJob) error {
	o, err := f.options()
	if err != nil {
		return err
	}
	return a.withTarget(target, f.wait, func(t *deploy.Target) error {
		o.SourceCache = t.SourceCache()
		first := isFirst(t)
		return f.source.with(ctx, a, path, o.SourceCache, f.dryRun, func(rel *release.Release) error {
			if !f.dryRun {
				r, err := job(t, ctx, rel, o)
				if first && (err == nil || changed(err)) {
					a.remarkShared(r.Target, r.Layout, o, "--adopt would have owned it")
				}
				return a.finish(ctx, t, &f.after, r, err)
			}
			plan, err := t.Plan(ctx, rel, o)
			if err != nil {
				return err
			}
			if first {
				a.remarkShared(plan.Target, plan.Layout, o, "--adopt would own it")
			}
			return a.printPlan(plan, f.list)
		})
	})
}

// isFirst says that a target has no layout yet.
func isFirst(t *deploy.Target) bool {
	_, err := os.Lstat(filepath.Join(t.Path(), ".moult", "layout"))
	return errors.Is(err, fs.ErrNotExist)
}

// remarkShared says on the first apply that a target becomes shared, if nobody
// has asked for that: one stray file is enough, and the layout stays.
func (a *app) remarkShared(target deploy.Path, layout deploy.Layout, o deploy.ApplyOptions, way string) {
	if layout == deploy.Shared && o.Layout == "" {
		a.remark("%s: a shared target, as there are files in it already; %s", target.Quoted(), way)
	}
}

// printPlan prints what apply would do; a plan that would be refused, or that
// has to wait for a recovery, has the status that it would have.
func (a *app) printPlan(p deploy.Plan, list bool) error {
	err := a.print(p, func(w io.Writer) { writePlan(w, p, list) })
	switch {
	case err != nil:
		return err
	case len(p.Problems) > 0:
		return &deploy.RefusedError{Problems: p.Problems}
	case p.CutShort:
		return deploy.ErrCutShort
	}
	return nil
}
