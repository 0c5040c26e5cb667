package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"moult.example/internal/deploy"
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
				rel, err := source.open(cmd.Context(), a, args[0], t.SourceCache(), true)
				if err != nil {
					return err
				}
				defer rel.Close()
				diff, err := t.Diff(cmd.Context(), rel, deploy.ApplyOptions{Name: source.name, Times: source.times})
				if err != nil {
					return err
				}
				if err := a.print(diff, func(w io.Writer) { writeDiff(w, diff) }); err != nil {
					return err
				}
				if diff.Generation >= 0 {
					if err := cutShort(t, diff.Name); err != nil {
						return err
					}
				}
				if !diff.Same {
					return errFound
				}
				return nil
			})
		},
	}
	source.add(c.Flags())
	return c
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
