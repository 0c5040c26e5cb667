package main

import (
	"io"
	"os"

	"github.com/spf13/cobra"

	"moult.example/internal/deploy"
)

func newTargetsCommand(a *app) *cobra.Command {
	return &cobra.Command{
		SuggestFor: []string{"list", "ls"},
		Use:        "targets",
		Short:      "list the targets of this host",
		Long: `List this user's targets on this host. Root's are remembered in /var/lib/moult,
and recovered at boot; other users' are in ~/.local/state/moult, and recovered
by the next command that writes.`,
		Example:     "  moult targets\n  moult targets --json",
		Annotations: exits(),
		Args:        operands(),
		RunE: func(*cobra.Command, []string) error {
			targets, damaged := deploy.Targets("")
			v := struct {
				Targets []deploy.Registered `json:"targets"`
			}{append([]deploy.Registered{}, targets...)}
			a.remarkNone(len(targets), damaged)
			err := a.print(v, func(w io.Writer) {
				table(w, func(row func(...any)) {
					if len(targets) > 0 {
						row("TARGET", "SINCE", "")
					}
					for _, t := range targets {
						remark := ""
						if _, err := os.Stat(string(t.Path)); err != nil {
							remark = "not there"
						}
						row(t.Path.Quoted(), when(t.Since), remark)
					}
				})
			})
			if err != nil {
				return err
			}
			return damaged
		},
	}
}
