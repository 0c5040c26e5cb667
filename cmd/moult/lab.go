package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"moult.example/internal/lab"
)

func newLabCommand(a *app) *cobra.Command {
	var o struct {
		dir, moult, explain    string
		quick, markdown, trace bool
	}
	c := &cobra.Command{
		Use:   "lab [FLAGS] [METHOD...]",
		Short: "see what cp, mv, install, rsync and moult do to files in use",
		Long: `Show what each way to replace a file does to the programs that use it, on this
kernel and this file system. The lab compiles a program and three libraries,
runs them, replaces the files under them by cp, mv, install, ln, rsync and
moult, and reports what it sees: who is killed, who goes on with which code,
and what lies on the disk afterwards. It needs a C compiler, which is cc or what
$CC says, works in a directory of its own, which it removes, and takes about
half a minute. Programs are killed on purpose: the kernel's log will mention
them.

` + strings.Join(wrapWords("The METHODs are "+strings.Join(lab.Names(), ", ")+".", columns), "\n"),
		Example: `  moult lab                     all methods, about half a minute
  moult lab cp mv --quick       two of them, with fewer launches
  moult lab --explain install   the system calls behind it, and why`,
		Annotations: exits(),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return lab.Names(), cobra.ShellCompDirectiveNoFileComp
		},
	}
	c.Flags().StringVar(&o.dir, "dir", "", "try it on the file system of `DIR` (default: this directory)")
	c.Flags().StringVar(&o.moult, "moult", "", "try this moult `PROGRAM` (default: this one)")
	c.Flags().BoolVar(&o.quick, "quick", false, "count fewer launches")
	c.Flags().BoolVar(&o.markdown, "markdown", false, "print the tables as Markdown")
	c.Flags().StringVar(&o.explain, "explain", "", "explain a `METHOD` instead of trying it")
	c.Flags().BoolVar(&o.trace, "trace", false, "with --explain: also run it under strace")
	c.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if strings.HasPrefix(err.Error(), "flag needs an argument: --explain") {
			return &usageError{message: "--explain wants a METHOD", hint: methodsHint()}
		}
		return flagError(cmd, err)
	})
	c.RunE = func(cmd *cobra.Command, args []string) error {
		options := lab.Options{Dir: o.dir, Moult: o.moult, Methods: args, Quick: o.quick}
		if options.Moult == "" {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			options.Moult = self
		}
		switch {
		case o.trace && o.explain == "":
			return &usageError{message: "--trace goes with --explain METHOD"}
		case o.markdown && a.json:
			return &usageError{message: "want --markdown or --json, not both"}
		case o.explain != "" && len(args) > 0:
			return &usageError{message: "--explain takes one method and tries none"}
		case o.explain != "":
			return a.explainMethod(cmd, o.explain, o.trace, options)
		}
		options.OnEvent = func(e lab.Event) {
			what := e.Step
			if e.Method != "" {
				what = e.Method + ": " + e.Step
			}
			a.progress.step("lab", what, e.Done, e.Total)
		}
		a.asIs = o.markdown
		report, err := lab.Run(cmd.Context(), options)
		if err != nil {
			return labError(err)
		}
		return a.print(report, func(w io.Writer) {
			if o.markdown {
				fmt.Fprint(w, report.Markdown())
				return
			}
			width, color := a.screen()
			fmt.Fprint(w, report.Text(width, color))
		})
	}
	return c
}

func (a *app) explainMethod(cmd *cobra.Command, name string, trace bool, options lab.Options) error {
	e, err := lab.Explain(name)
	if err != nil {
		return labError(err)
	}
	v := struct {
		lab.Explanation
		Trace []string `json:"trace,omitempty"`
	}{Explanation: e}
	if trace {
		if v.Trace, err = lab.Trace(cmd.Context(), name, options); err != nil {
			return fmt.Errorf("trace %w", err)
		}
	}
	return a.print(v, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s\n\n%s\n", e.Title, e.Command, e.Text)
		if trace {
			fmt.Fprintf(w, "\nThe same here, by strace:\n\n%s\n", strings.Join(v.Trace, "\n"))
		}
	})
}

// labError makes a usage error of a method that there is not.
func labError(err error) error {
	var unknown *lab.UnknownMethodError
	if !errors.As(err, &unknown) {
		return err
	}
	u := &usageError{message: fmt.Sprintf("unknown method %q", unknown.Name), hint: methodsHint()}
	if near := nearest(unknown.Name, lab.Names()); near != "" {
		u.hint = "did you mean " + near + "?"
	}
	return u
}

func methodsHint() string { return "there are " + strings.Join(lab.Names(), ", ") }

// screen is how wide the output may be, and whether it may have colours.
func (a *app) screen() (width int, color bool) {
	width = terminalWidth(a.stdout)
	if width == 0 {
		return 100, false
	}
	return width, a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb"
}
