package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"moult.example/internal/deploy"
)

func newGCCommand(a *app) *cobra.Command {
	var o deploy.GCOptions
	var all bool
	var w wait
	c := &cobra.Command{
		Use:   "gc [FLAGS] TARGET...",
		Short: "remove generations that nobody needs",
		Long: `Remove generations that retention does not ask for. The live one, the one
before, pinned ones, those that a process uses and one that was live a minute
ago always stay. A process that may not be looked into counts as a user of all
of them. Every apply does this at its end.`,
		Example: `  moult gc /opt/app
  moult gc --dry-run --generations 2 /opt/app
  moult gc --all`,
		Annotations:       exits(statusUnfinished, statusBusy),
		ValidArgsFunction: completeTargets,
		Args:              targetsOrAll(&all),
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var v struct {
			Targets []deploy.Collection `json:"targets"`
		}
		v.Targets = []deploy.Collection{}
		errs := a.eachTarget(args, all, w, func(t *deploy.Target) error {
			names, err := products(t, o.Name)
			if err != nil {
				return err
			}
			for _, name := range names {
				one := o
				one.Name = name
				got, err := t.GC(cmd.Context(), one)
				if err != nil {
					return err
				}
				if got.Recovered != nil {
					a.remark("%s", recoveredText(*got.Recovered))
				}
				slices.SortFunc(got.Kept, func(a, b deploy.Kept) int { return b.Generation - a.Generation }) // newest first
				v.Targets = append(v.Targets, got)
			}
			if o.DryRun {
				return cutShort(t, o.Name)
			}
			return nil
		})
		if len(v.Targets) == 0 && len(errs) > 0 {
			return errors.Join(errs...)
		}
		err := a.print(v, func(w io.Writer) {
			for _, got := range v.Targets {
				writeCollection(w, got, o.DryRun)
			}
		})
		return errors.Join(append(errs, err)...)
	}
	c.Flags().StringVar(&o.Name, "name", "", "the product `NAME`, where several share the target")
	c.Flags().BoolVar(&all, "all", false, "all targets of this host")
	c.Flags().BoolVarP(&o.DryRun, "dry-run", "n", false, "say what would go, change nothing")
	retentionFlags(c.Flags(), &o.Retention)
	c.Flags().BoolVar(&o.Retention.Spare, "spare", false, "leave one more, for the next apply to make its generation of")
	waitFlag(c.Flags(), &w)
	return c
}

func writeCollection(w io.Writer, c deploy.Collection, dry bool) {
	gone := "collected"
	if dry {
		gone = "would collect"
	}
	what := "nothing"
	if len(c.Collected) > 0 {
		what = "generation " + numbers(c.Collected)
	}
	if len(c.Collected) > 1 {
		what = "generations " + numbers(c.Collected)
	}
	fmt.Fprintf(w, "%s%s: %s %s", c.Target.Quoted(), inBrackets(c.Name), gone, what)
	if c.FreedBytes > 0 {
		fmt.Fprintf(w, ", %s", size(c.FreedBytes))
	}
	fmt.Fprintln(w)
	writePaths(w, "removed, no longer in use", c.Removed)
	for _, k := range c.Kept {
		fmt.Fprintf(w, "  kept %d: %s", k.Generation, k.Why)
		if len(k.PIDs) > 0 {
			fmt.Fprintf(w, " (%s)", pids(k.PIDs))
		}
		fmt.Fprintln(w)
	}
}

// pids names processes, but no more than help: pid 12, 34 and 56 more.
func pids(all []int) string {
	const few = 5
	shown := all
	if len(all) > few+1 {
		shown = all[:few]
	}
	text := "pid " + numbers(shown)
	if more := len(all) - len(shown); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func inBrackets(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}

// retentionFlags give a command what says how much is kept.
func retentionFlags(flags *pflag.FlagSet, r *deploy.Retention) {
	flags.Var((*keepCount)(&r.Generations), "generations", "keep `N` generations, the live one included, beside pinned ones (default 3); 0 keeps those that must stay")
	flags.Var((*byteCount)(&r.Bytes), "max-size", "keep at most `SIZE` of retired ones: 800M, 2G; files that several hold count in each")
	flags.BoolVar(&r.Unreadable, "ignore-unreadable", false, "count a process that may not be looked into as a user of nothing")
}

// keepCount is how many generations are kept. 0 is as few as can be.
type keepCount int

func (c *keepCount) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return errors.New("want a whole number, 0 or more")
	}
	*c = keepCount(n)
	if n == 0 {
		*c = -1
	}
	return nil
}

func (c *keepCount) String() string {
	if *c == 0 {
		return ""
	}
	return strconv.Itoa(max(int(*c), 0))
}

func (c *keepCount) Type() string { return "int" }

// someCount is a flag's number, one at least: that none is to be shown cannot be
// meant.
type someCount int

func (c *someCount) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return errors.New("want a whole number, 1 or more")
	}
	*c = someCount(n)
	return nil
}

func (c *someCount) String() string {
	if *c == 0 {
		return ""
	}
	return strconv.Itoa(int(*c))
}

func (c *someCount) Type() string { return "int" }

// byteCount is a flag's number of bytes, with the suffixes of 1024 that du(1)
// and truncate(1) take.
type byteCount int64

func (b *byteCount) Set(text string) error {
	number := strings.TrimRight(text, "KMGT")
	factor, known := map[string]int64{"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}[text[len(number):]]
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || !known || n < 0 || n > (1<<62)/factor {
		return errors.New("want a number of bytes, or with K, M, G or T")
	}
	*b = byteCount(n * factor)
	return nil
}

func (b *byteCount) String() string {
	if *b == 0 {
		return ""
	}
	return strconv.FormatInt(int64(*b), 10)
}

func (b *byteCount) Type() string { return "size" }
