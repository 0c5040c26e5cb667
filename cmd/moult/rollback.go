package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"moult.example/internal/deploy"
)

func newRollbackCommand(a *app) *cobra.Command {
	o := deploy.RollbackOptions{Generation: -1}
	var w wait
	var after restartFlags
	c := &cobra.Command{
		SuggestFor: []string{"undo", "revert"},
		Use:        "rollback [FLAGS] TARGET [GENERATION]",
		Short:      "make an earlier generation live again",
		Long: `Make an earlier generation live again: the one that was live before this one,
or the one of that number. Twice without a number is forward again, to the one
that the first rollback has left; to go further back, name its number. One that
a rollback of apply --health has left is passed over, unless it is named. The
generation is verified first, byte for byte. Processes that still run its files
are no longer stale: they are the same inodes. With --health the answer is said
(status 4 if all is not well), and nothing is rolled forward again.`,
		Example: `  moult rollback /opt/app
  moult rollback /opt/app 40
  moult rollback --dry-run /opt/app    can it be done?`,
		Annotations:       exitsAs(foundAfter, statusFound, statusUnfinished, statusBusy),
		Args:              operands("TARGET", "[GENERATION]"),
		ValidArgsFunction: completeGeneration,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				var err error
				if o.Generation, err = generationNumber(args[1]); err != nil {
					return err
				}
			}
			if err := after.settleAfter(); err != nil {
				return err
			}
			return a.withTarget(args[0], w, func(t *deploy.Target) error {
				r, err := t.Rollback(cmd.Context(), o)
				if !o.DryRun || err != nil {
					return a.finish(cmd.Context(), t, &after, r, err)
				}
				a.remarkResult(r)
				v := struct {
					deploy.Result
					DryRun bool `json:"dry_run"`
				}{r, true}
				if err := a.print(v, func(w io.Writer) {
					fmt.Fprintf(w, "%s: %s can be live again%s\n", r.Target.Quoted(), generation(r.Generation), identity(r.Name, r.Version, r.Release))
				}); err != nil {
					return err
				}
				return cutShort(t, o.Name)
			})
		},
	}
	c.Flags().StringVar(&o.Name, "name", "", "the product `NAME`, where several share the target")
	c.Flags().BoolVarP(&o.DryRun, "dry-run", "n", false, "verify that it can be done, change nothing")
	c.Flags().BoolVar(&o.NoHooks, "no-hooks", false, "run no hook, no ldconfig and no systemctl")
	waitFlag(c.Flags(), &w)
	after.addAfter(c.Flags())
	return c
}
