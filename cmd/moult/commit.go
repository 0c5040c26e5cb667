package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"moult.example/internal/deploy"
)

func newCommitCommand(a *app) *cobra.Command {
	var o deploy.CommitOptions
	var w wait
	var after restartFlags
	c := &cobra.Command{
		Use:   "commit [FLAGS] TARGET [GENERATION]",
		Short: "make a staged generation live",
		Long: `Make a generation live that moult stage has made ready: the newest, or the one
of that number. It takes milliseconds: nothing is left to copy that could run
out of space. It is still refused if somebody has changed what it would
replace, or if the release's hook says so. With --health, what is not well
afterwards is rolled back, as with moult apply.`,
		Example: `  moult stage ./build /opt/app && moult commit /opt/app
  moult commit --wait 30s /opt/app 42`,
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
				r, err := t.Commit(cmd.Context(), o)
				return a.finish(cmd.Context(), t, &after, r, err)
			})
		},
	}
	c.Flags().StringVar(&o.Name, "name", "", "the product `NAME`, where several share the target")
	c.Flags().BoolVar(&o.NoHooks, "no-hooks", false, "run no hook, no ldconfig and no systemctl")
	retentionFlags(c.Flags(), &o.Retention)
	waitFlag(c.Flags(), &w)
	after.addAfter(c.Flags())
	return c
}

func generationNumber(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, &usageError{message: fmt.Sprintf("%q is not the number of a generation", text), hint: "the order is TARGET GENERATION; moult status lists the generations"}
	}
	return n, nil
}
