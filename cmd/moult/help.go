package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// columns is how wide a help text may be.
const columns = 80

// exits lists the statuses with which a command can end, beside those of every
// command: 0, 1, 2 and 130. The help and the man page print them.
func exits(more ...int) map[string]string {
	codes := append([]int{statusDone, statusFailed, statusUsage, statusInterrupted}, more...)
	slices.Sort(codes)
	var b strings.Builder
	for _, code := range codes {
		fmt.Fprintf(&b, "%5d  %s\n", code, statusText[code])
	}
	return map[string]string{"exit": b.String()}
}

// help prints the help of a command: usage, a paragraph, the commands or flags,
// examples, exit status.
func help(cmd *cobra.Command, _ []string) {
	w := cmd.OutOrStdout()
	fmt.Fprintf(w, "Usage: %s\n\n", useLine(cmd))
	text := cmd.Long
	if text == "" {
		text = cmd.Short
	}
	fmt.Fprintf(w, "%s\n", strings.TrimSpace(text))
	if cmd.HasAvailableSubCommands() {
		helpCommands(w, cmd)
	}
	helpFlags(w, "Flags", cmd.LocalNonPersistentFlags())
	everywhere := pflag.NewFlagSet("", pflag.ContinueOnError)
	everywhere.AddFlagSet(cmd.Root().PersistentFlags())
	helpFlags(w, "Flags of every command", everywhere)
	if cmd.Example != "" {
		fmt.Fprintf(w, "\nExamples:\n%s\n", strings.TrimRight(cmd.Example, "\n"))
	}
	if exit := cmd.Annotations["exit"]; exit != "" {
		fmt.Fprintf(w, "\nExit status:\n%s", exit)
	}
}

func useLine(cmd *cobra.Command) string {
	if cmd.HasAvailableSubCommands() {
		return cmd.CommandPath() + " COMMAND"
	}
	return cmd.UseLine()
}

// helpCommands lists the commands by group.
func helpCommands(w io.Writer, cmd *cobra.Command) {
	width := 0
	for _, c := range cmd.Commands() {
		width = max(width, len(c.Name()))
	}
	list := func(title, group string) {
		begun := false
		for _, c := range cmd.Commands() {
			if c.GroupID != group || !c.IsAvailableCommand() && c.Name() != "help" {
				continue
			}
			if !begun {
				fmt.Fprintf(w, "\n%s:\n", title)
				begun = true
			}
			fmt.Fprintf(w, "  %-"+strconv.Itoa(width)+"s  %s\n", c.Name(), c.Short)
		}
	}
	for _, g := range cmd.Groups() {
		list(g.Title, g.ID)
	}
	list("Commands", "")
}

func helpFlags(w io.Writer, title string, flags *pflag.FlagSet) {
	if text := flags.FlagUsagesWrapped(columns); text != "" {
		fmt.Fprintf(w, "\n%s:\n%s", title, text)
	}
}

// newHelpCommand is moult help COMMAND, the same as moult COMMAND --help.
func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:                   "help [COMMAND]",
		Short:                 "print the help of a command",
		Long:                  "Print the help of a command, as moult COMMAND --help does.",
		Example:               "  moult help apply\n  moult help",
		Annotations:           exits(),
		DisableFlagsInUseLine: true,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var names []string
			for _, c := range cmd.Root().Commands() {
				if len(args) == 0 && c.IsAvailableCommand() {
					names = append(names, c.Name()+"\t"+c.Short)
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil || found == cmd.Root() && len(rest) > 0 {
				return unknownCommand(cmd.Root(), args[0])
			}
			return found.Help()
		},
	}
}
