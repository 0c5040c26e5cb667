package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"moult.example/internal/deploy"
)

func newForgetCommand(a *app) *cobra.Command {
	var o deploy.ForgetOptions
	var w wait
	c := &cobra.Command{
		SuggestFor: []string{"remove", "uninstall", "delete", "rm"},
		Use:        "forget [FLAGS] TARGET",
		Short:      "leave a target as plain files",
		Long: `Leave a target as plain files, with nothing of moult's behind: what is live
stays where it is, as the same files; all other generations go, and the way back
with them. A target whose directory is gone for good is taken off the list.`,
		Example: `  moult forget /opt/app
  moult forget --name tool /usr/local`,
		Annotations:       exits(statusUnfinished, statusBusy),
		Args:              operands("TARGET"),
		ValidArgsFunction: completeTarget(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := deploy.ForgetPath(args[0], a.options(w))
			if err == nil {
				r := deploy.Result{Schema: schema, Target: deploy.Path(args[0]), Job: "forget"}
				return a.print(r, func(w io.Writer) {
					fmt.Fprintf(w, "%s: forgotten; nothing of moult's was there any more\n", r.Target.Quoted())
				})
			}
			if !errors.Is(err, deploy.ErrNoTarget) {
				return err
			}
			return a.withTarget(args[0], w, func(t *deploy.Target) error {
				r, err := t.Forget(cmd.Context(), o)
				if err != nil {
					return err // what was begun is not forgotten yet
				}
				return a.printResult(r, nil)
			})
		},
	}
	c.Flags().StringVar(&o.Name, "name", "", "the product `NAME`, where several share the target")
	c.Flags().BoolVar(&o.Force, "force", false, "even if processes still use other generations, and\nif they hold what was there before moult")
	waitFlag(c.Flags(), &w)
	return c
}
