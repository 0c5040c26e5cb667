package main

import (
	"github.com/spf13/cobra"

	"moult.example/internal/deploy"
)

func newPinCommand(a *app) *cobra.Command {
	var name string
	var remove bool
	var w wait
	c := &cobra.Command{
		Use:   "pin [FLAGS] TARGET [GENERATION]",
		Short: "keep a generation for good",
		Long: `Keep a generation, the live one if none is named, from being collected, until
--remove says otherwise. Generation 0, what was in a target before moult adopted
it, is pinned from the start.`,
		Example: `  moult pin /opt/app
  moult pin --remove /opt/app 40`,
		Annotations:       exits(statusUnfinished, statusBusy),
		Args:              operands("TARGET", "[GENERATION]"),
		ValidArgsFunction: completeGeneration,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTarget(args[0], w, func(t *deploy.Target) error {
				n, err := pinned(t, name, args[1:])
				if err != nil {
					return err
				}
				return a.printResult(t.Pin(cmd.Context(), name, n, !remove))
			})
		},
	}
	c.Flags().StringVar(&name, "name", "", "the product `NAME`, where several share the target")
	c.Flags().BoolVar(&remove, "remove", false, "let it be collected again")
	waitFlag(c.Flags(), &w)
	return c
}

// pinned is the generation that the operand names, else the live one.
func pinned(t *deploy.Target, name string, operand []string) (int, error) {
	if len(operand) > 0 {
		return generationNumber(operand[0])
	}
	all, err := t.Status(name)
	if err != nil {
		return 0, err
	}
	if len(all) != 1 {
		return 0, &usageError{message: "several products share this target", hint: "say which with --name"}
	}
	if all[0].Live < 0 {
		return 0, deploy.ErrNoGeneration
	}
	return all[0].Live, nil
}
