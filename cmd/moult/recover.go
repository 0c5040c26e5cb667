package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"moult.example/internal/deploy"
)

func newRecoverCommand(a *app) *cobra.Command {
	var all bool
	var w wait
	c := &cobra.Command{
		Use:   "recover [FLAGS] TARGET...",
		Short: "finish or undo what was cut short",
		Long: `Finish or undo a commit that a crash, a kill or a power cut has cut short. It
needs no decision and no release, and can be run any number of times. Every
command that writes does it first, and at boot moult-recover.service does it for
all targets, before services start.`,
		Example: `  moult recover /opt/app
  moult recover --all`,
		Annotations:       exits(statusUnfinished, statusBusy),
		ValidArgsFunction: completeTargets,
		Args:              targetsOrAll(&all),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.recoverTargets(cmd.Context(), args, all, w)
		},
	}
	c.Flags().BoolVar(&all, "all", false, "all targets of this host")
	waitFlag(c.Flags(), &w)
	return c
}

// recoverTargets recovers one target after the other; one that cannot be
// recovered keeps none of the others from it.
func (a *app) recoverTargets(ctx context.Context, paths []string, all bool, w wait) error {
	var result struct {
		Targets []deploy.Recovered `json:"targets"`
		Errors  []diagnosis        `json:"errors,omitempty"`
	}
	result.Targets = []deploy.Recovered{}
	errs := a.eachTarget(paths, all, w, func(t *deploy.Target) error {
		recovered, err := t.Recover(ctx)
		result.Targets = append(result.Targets, recovered...)
		return err
	})
	for _, err := range errs {
		result.Errors = append(result.Errors, diagnose(err))
	}
	err := a.print(result, func(w io.Writer) {
		for _, r := range result.Targets {
			if !r.Nothing || !all {
				fmt.Fprintln(w, recoveredText(r))
			}
		}
	})
	return errors.Join(append(errs, err)...)
}
