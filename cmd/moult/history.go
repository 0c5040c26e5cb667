package main

import (
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"moult.example/internal/deploy"
)

func newHistoryCommand(a *app) *cobra.Command {
	var name string
	var limit int
	c := &cobra.Command{
		Use:   "history [FLAGS] TARGET",
		Short: "who did what to a target, and when",
		Long: `List what was done to a target, oldest first: who, when, from which generation
to which, and how it ended. The history outlives the generations.`,
		Example: `  moult history /opt/app
  moult history --limit 5 --json /opt/app`,
		Annotations:       exits(statusUnfinished),
		Args:              operands("TARGET"),
		ValidArgsFunction: completeTarget(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTarget(args[0], 0, func(t *deploy.Target) error {
				records, err := t.History(name)
				if err != nil {
					return err
				}
				if limit > 0 && limit < len(records) {
					records = records[len(records)-limit:]
				}
				v := struct {
					Target  deploy.Path     `json:"target"`
					Records []deploy.Record `json:"records"`
				}{deploy.Path(t.Path()), records}
				if err := a.print(v, func(w io.Writer) { writeHistory(w, records) }); err != nil {
					return err
				}
				return cutShort(t, name)
			})
		},
	}
	c.Flags().StringVar(&name, "name", "", "the product `NAME`, where several share the target")
	c.Flags().Var((*someCount)(&limit), "limit", "only the last `N`")
	return c
}

func writeHistory(w io.Writer, records []deploy.Record) {
	table(w, func(row func(...any)) {
		row("WHEN", "WHO", "JOB", "FROM", "TO", "RELEASE", "VERSION", "RESULT")
		for _, r := range records {
			result := r.Result
			if r.Because != "" {
				result += ", rolled back: " + oneLine(r.Because)
			}
			if r.Note != "" {
				result += ": " + oneLine(r.Note)
			}
			row(when(r.Time), orDash(r.User), r.Job, numberOrDash(r.From), numberOrDash(r.To),
				orDash(short(r.Release)), orDash(oneLine(r.Version)), result)
		}
	})
}

func numberOrDash(n int) string {
	if n < 0 {
		return "-"
	}
	return strconv.Itoa(n)
}
