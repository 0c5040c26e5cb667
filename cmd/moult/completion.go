package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"moult.example/internal/deploy"
)

func newCompletionCommand(a *app) *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "print a shell's completion script",
		Long: `Print the script that teaches a shell to complete moult's commands, flags and
targets. Packages put it where the shell looks; by hand, load it as below. That
for bash uses functions of the package bash-completion: without it each TAB says
"_get_comp_words_by_ref: command not found".`,
		Example: `  source <(moult completion bash)
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
func completeTargets(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var paths []string
	targets, _ := deploy.Targets("") // a damaged entry is no reason to offer none
	for _, t := range targets {
		paths = append(paths, string(t.Path))
	}
	return paths, cobra.ShellCompDirectiveDefault
}
