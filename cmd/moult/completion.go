package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"moult.example/internal/deploy"
	"moult.example/internal/lab"
)

func newCompletionCommand(a *app) *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "print a shell's completion script",
		Long: `Print the script that teaches a shell to complete moult's commands, flags and
targets. Packages put it where the shell looks; by hand, load it as below. That
for bash uses functions of the package bash-completion: without it each TAB says
"_get_comp_words_by_ref: command not found". That for zsh wants compinit to have
run, as "autoload -U compinit; compinit" does.`,
		Example: `  source <(moult completion bash)
  source <(moult completion zsh)
  moult completion fish > ~/.config/fish/completions/moult.fish`,
		Annotations: exits(),
		ValidArgs:   shells,
		Args:        operands("SHELL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := newRootCommand(a, "") // cmd's own may have no other command
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.stdout, true)
			case "zsh":
				return root.GenZshCompletion(a.stdout)
			case "fish":
				return root.GenFishCompletion(a.stdout, true)
			}
			return &usageError{message: fmt.Sprintf("unknown shell %q", args[0]), hint: "bash, zsh or fish"}
		},
	}
}

// completeTarget offers the registered targets where a command wants one, as
// its n-th operand, and lets the shell offer files.
func completeTarget(n int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, text string) ([]string, cobra.ShellCompDirective) {
		if len(args) != n {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return completeTargets(cmd, args, text)
	}
}

// completeTargets is completeTarget for every operand.
func completeTargets(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var paths []string
	targets, _ := deploy.Targets("") // a damaged entry is no reason to offer none
	for _, t := range targets {
		if path := string(t.Path); !slices.Contains(args, path) {
			paths = append(paths, path)
		}
	}
	return paths, cobra.ShellCompDirectiveDefault
}

// flagValues are what can stand for the values of flags, by the name of the
// flag, which means the same in every command that has it.
var flagValues = map[string]func(args []string) []string{
	"layout":     fixed("owned", "shared"),
	"links":      fixed("refuse", "warn", "ignore"),
	"owners":     fixed("names", "numbers", "none"),
	"sort":       fixed("verdict", "pid", "user", "start", "since", "unit"),
	"by":         fixed("mount", "environment"),
	"backup":     fixed("none", "simple", "numbered", "existing"),
	"explain":    func([]string) []string { return lab.Names() },
	"name":       productsOf,
	"generation": generationsOf,
}

func fixed(values ...string) func([]string) []string {
	return func([]string) []string { return values }
}

// completeFlags offers them, and no files.
func completeFlags(c *cobra.Command) {
	for name, values := range flagValues {
		if c.Flags().Lookup(name) != nil {
			// It fails only for a flag that is not there, or has one already.
			_ = c.RegisterFlagCompletionFunc(name, func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
				return values(args), cobra.ShellCompDirectiveNoFileComp
			})
		}
	}
}

// completeGeneration offers targets, and then the generations of the one that
// was chosen.
func completeGeneration(cmd *cobra.Command, args []string, text string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return completeTargets(cmd, args, text)
	case 1:
		return generationsOf(args), cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// productsOf are the products of the target that is the last operand, if it is
// one.
func productsOf(args []string) (names []string) {
	for _, s := range statusOfLast(args) {
		names = append(names, s.Name)
	}
	return names
}

func generationsOf(args []string) (numbers []string) {
	for _, s := range statusOfLast(args) {
		for _, g := range s.Generations {
			numbers = append(numbers, strconv.Itoa(g.Number))
		}
	}
	return numbers
}

// statusOfLast is nothing for what is no target: nobody wants to hear of an
// error while typing.
func statusOfLast(args []string) []deploy.Status {
	if len(args) == 0 {
		return nil
	}
	t, err := deploy.Open(args[len(args)-1], deploy.Options{})
	if err != nil {
		return nil
	}
	defer t.Close()
	all, _ := t.Status("")
	return all
}

// plainUsages gives the flags of all commands the texts that shells show beside
// them, if a command line asks for completion: one line, without the marks that
// the help takes for the names of values.
func plainUsages(root *cobra.Command, args []string) {
	if len(args) == 0 || !strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) {
		return
	}
	plain := func(f *pflag.Flag) {
		_, usage := pflag.UnquoteUsage(f)
		f.Usage = strings.Join(strings.Fields(usage), " ")
	}
	root.PersistentFlags().VisitAll(plain)
	for _, c := range root.Commands() {
		c.Flags().VisitAll(plain)
	}
}
