package main

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"moult.example/internal/deploy"
)

func newVerifyCommand(a *app) *cobra.Command {
	var name string
	var all bool
	c := &cobra.Command{
		Use:   "verify [FLAGS] TARGET...",
		Short: "has anything changed since?",
		Long: `Read every file of what is live and compare it with its release: bytes, modes,
owners, attributes, link texts. No cache is trusted, so damage that keeps size
and time is found too; moult apply --checksum mends it. Nothing is written.`,
		Example: `  moult verify /opt/app
  moult verify --all`,
		Annotations:       exits(statusFound, statusUnfinished),
		ValidArgsFunction: completeTargets,
		Args:              targetsOrAll(&all),
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var v struct {
			Targets []deploy.Verification `json:"targets"`
		}
		v.Targets = []deploy.Verification{}
		errs := a.eachTarget(args, all, 0, func(t *deploy.Target) error {
			names, err := products(t, name)
			if err != nil {
				return err
			}
			for _, name := range names {
				found, err := t.Verify(cmd.Context(), name)
				if err != nil {
					return err
				}
				v.Targets = append(v.Targets, found)
				if found.CutShort {
					return fmt.Errorf("%s: %w", found.Target.Quoted(), deploy.ErrCutShort)
				}
			}
			return nil
		})
		if len(v.Targets) == 0 && len(errs) > 0 {
			return errors.Join(errs...)
		}
		damaged := false
		err := a.print(v, func(w io.Writer) {
			for _, found := range v.Targets {
				writeVerification(w, found)
			}
		})
		for _, found := range v.Targets {
			damaged = damaged || len(found.Damage) > 0
			if slices.ContainsFunc(found.Damage, func(p deploy.Problem) bool { return p.Hint == "" }) {
				a.remark("hint: moult apply --checksum RELEASE %s mends it", found.Target.Quoted())
			}
		}
		if err := errors.Join(append(errs, err)...); err != nil || !damaged {
			return err
		}
		return errFound
	}
	c.Flags().StringVar(&name, "name", "", "the product `NAME`, where several share the target")
	c.Flags().BoolVar(&all, "all", false, "all targets of this host")
	return c
}

func writeVerification(w io.Writer, v deploy.Verification) {
	if v.Generation < 0 {
		fmt.Fprintf(w, "%s: nothing is live\n", v.Target.Quoted())
		return
	}
	verdict := "all as released"
	if len(v.Damage) > 0 {
		verdict = fmt.Sprintf("%d not as released", len(v.Damage))
	}
	fmt.Fprintf(w, "%s: %s, %s, %s read: %s\n",
		v.Target.Quoted(), generation(v.Generation), count(v.Files, "file"), size(v.Bytes), verdict)
	for _, p := range v.Damage {
		fmt.Fprintf(w, "  %s\n", problemText(p))
	}
	writePaths(w, "changed here, which is allowed", v.Kept)
	writePaths(w, "brought by nobody's release", v.Extra)
}
