package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"moult.example/internal/deploy"
	"moult.example/internal/release"
)

func newDiffCommand(a *app) *cobra.Command {
	var source sourceFlags
	c := &cobra.Command{
		Use:   "diff [FLAGS] RELEASE TARGET",
		Short: "what is different in a release from what is live",
		Long: `Compare a release with the one that is live, manifest by manifest. Whether
somebody has changed the target's files since is what moult verify says, and
what apply would do to it, moult apply --dry-run.

` + releaseForms,
		Example: `  moult diff ./build /opt/app
  moult diff app-2.1.moult /opt/app --json`,
		Annotations:       exits(statusFound, statusUnfinished),
		Args:              operands("RELEASE", "TARGET"),
		ValidArgsFunction: completeTarget(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTarget(args[1], 0, func(t *deploy.Target) error {
				return source.with(cmd.Context(), a, args[0], t.SourceCache(), true, func(rel *release.Release) error {
					o := deploy.ApplyOptions{Name: source.name, Times: source.times}
					diff, err := t.Diff(cmd.Context(), rel, o)
					if err != nil {
						return err
					}
					return a.printDiff(t, diff)
				})
			})
		},
	}
	source.add(c.Flags())
	return c
}

func (a *app) printDiff(t *deploy.Target, d deploy.Comparison) error {
	if err := a.print(d, func(w io.Writer) { writeDiff(w, d) }); err != nil {
		return err
	}
	if d.Generation >= 0 {
		if err := cutShort(t, d.Name); err != nil {
			return err
		}
	}
	if !d.Same {
		return errFound
	}
	return nil
}

func writeDiff(w io.Writer, d deploy.Comparison) {
	live := "nothing live"
	if d.Generation >= 0 {
		live = fmt.Sprintf("%s, release %s", generation(d.Generation), short(d.Live))
	}
	if d.Same {
		fmt.Fprintf(w, "%s: %s: the same\n", d.Target.Quoted(), live)
		return
	}
	fmt.Fprintf(w, "%s: from %s to release %s: %s\n", d.Target.Quoted(), live, short(d.Release), tally(d.Changes))
	writeChanges(w, d.Changes, true)
}
