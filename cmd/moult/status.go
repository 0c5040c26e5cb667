package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"moult.example/internal/deploy"
)

func newStatusCommand(a *app) *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "status [FLAGS] [TARGET...]",
		Short: "what is live in a target, and what is kept",
		Long: `Show what is live in each target, who made it live and when, and which
generations are kept; without operands, for all targets of this host. It takes
no lock and writes nothing.`,
		Example: `  moult status /opt/app
  moult status --json`,
		Annotations:       exits(statusUnfinished),
		ValidArgsFunction: completeTargets,
		RunE: func(_ *cobra.Command, args []string) error {
			var v struct {
				Targets []deploy.Status `json:"targets"`
			}
			v.Targets = []deploy.Status{}
			errs := a.eachTarget(args, len(args) == 0, 0, func(t *deploy.Target) error {
				all, err := t.Status(name)
				v.Targets = append(v.Targets, all...)
				for _, s := range all {
					a.remarkClosed(s)
					if s.CutShort {
						err = errors.Join(err, fmt.Errorf("%s: %w", s.Target.Quoted(), deploy.ErrCutShort))
					}
				}
				return err
			})
			if len(v.Targets) == 0 && len(errs) > 0 {
				return errors.Join(errs...)
			}
			err := a.print(v, func(w io.Writer) {
				for i, s := range v.Targets {
					if i > 0 {
						fmt.Fprintln(w)
					}
					writeStatus(w, s, terminalWidth(a.stdout))
				}
			})
			return errors.Join(append(errs, err)...)
		},
	}
	c.Flags().StringVar(&name, "name", "", "the product `NAME`, where several share the target")
	return c
}

// remarkClosed says what this user does not get to see.
func (a *app) remarkClosed(s deploy.Status) {
	var closed []int
	for _, g := range s.Generations {
		if g.Closed {
			closed = append(closed, g.Number)
		}
	}
	if len(closed) > 0 {
		a.remark("%s: this user may not look into %s of it: %s; its owner sees more, and root",
			s.Target.Quoted(), plural(len(closed), "generation", "generations"), numbers(closed))
	}
}

// writeStatus prints one product of a target, for a terminal of this width; 0 is
// any.
func writeStatus(w io.Writer, s deploy.Status, width int) {
	fmt.Fprintf(w, "%s (%s)", s.Target.Quoted(), s.Layout)
	if s.Live < 0 {
		fmt.Fprintf(w, ": nothing is live%s\n", identity(s.Name, "", ""))
	} else {
		fmt.Fprintf(w, ": %s is live%s\n", generation(s.Live), identity(s.Name, s.Version, s.Release))
		fmt.Fprintf(w, "  since %s, by %s\n", when(s.Since), orDash(s.By))
	}
	if s.AfterFailed != "" {
		fmt.Fprintf(w, "  live, but what was to run after it failed: %s\n", oneLine(s.AfterFailed))
	}
	if s.Busy != "" {
		fmt.Fprintf(w, "  busy: another moult is at work%s\n", s.Busy)
	}
	if s.CutShort {
		fmt.Fprintf(w, "  cut short: moult recover %s finishes it\n", s.Target.Quoted())
	}
	writePaths(w, "still in use, so removed by a later gc", s.Deferred)
	if len(s.Generations) == 0 {
		return
	}
	// The first form that fits; where none does, the last one is folded.
	for i, form := range generationForms {
		var b strings.Builder
		writeGenerations(&b, s.Generations, form)
		if i == len(generationForms)-1 || width == 0 || widest(b.String()) <= width {
			io.WriteString(w, b.String())
			return
		}
	}
}

// generationForm is how the table of generations is written.
type generationForm struct{ number, time string }

var generationForms = []generationForm{
	{"GENERATION", toSecond}, {"GEN", toSecond}, {"GEN", toMinute}, {"GEN", toDay},
}

func writeGenerations(w io.Writer, generations []deploy.Generation, form generationForm) {
	table(w, func(row func(...any)) {
		row("  "+form.number, "STATE", "RELEASE", "VERSION", "FILES", "SIZE", "STAGED")
		for _, g := range generations {
			state := []string{g.State}
			if g.Pinned {
				state = append(state, "pinned")
			}
			if g.Adopted {
				state = append(state, "adopted")
			}
			if g.Closed {
				if g.State != "closed" {
					state = append(state, "closed")
				}
				row(fmt.Sprintf("  %d", g.Number), strings.Join(state, ", "), "-", "-", "-", "-", "-")
				continue
			}
			row(fmt.Sprintf("  %d", g.Number), strings.Join(state, ", "), short(g.Release),
				orDash(oneLine(g.Version)), g.Files, size(g.Bytes), whenAs(g.Staged, form.time))
		}
	})
}
