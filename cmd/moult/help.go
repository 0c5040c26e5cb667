package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// columns is how wide a help text may be.
const columns = 80

// exits lists the statuses with which a command can end, beside those of every
// command: 0, 1, 2 and 130. The help and the man page print them.
func exits(more ...int) map[string]string { return exitsAs(nil, more...) }

// exitsAs is exits for a command that can say more exactly what some of its
// statuses mean.
func exitsAs(texts map[int]string, more ...int) map[string]string {
	codes := append([]int{statusDone, statusFailed, statusUsage, statusInterrupted}, more...)
	slices.Sort(codes)
	var b strings.Builder
	for _, code := range codes {
		// Each start comes here; package fmt alone would be a tenth of its own work.
		number := strconv.Itoa(code)
		b.WriteString("     "[len(number):] + number + "  " + cmp.Or(texts[code], statusText[code]) + "\n")
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
	helpFlags(w, "Flags of every command", everyFlag(cmd))
	if cmd.Example != "" {
		fmt.Fprintf(w, "\nExamples:\n%s\n", strings.TrimRight(cmd.Example, "\n"))
	}
	if exit := cmd.Annotations["exit"]; exit != "" {
		fmt.Fprintf(w, "\nExit status:\n%s", exit)
	}
}

// everyFlag is the flags of every command, without those that mean something else
// in this one.
func everyFlag(cmd *cobra.Command) *pflag.FlagSet {
	all := pflag.NewFlagSet("", pflag.ContinueOnError)
	own := cmd.LocalNonPersistentFlags()
	cmd.Root().PersistentFlags().VisitAll(func(f *pflag.Flag) {
		if own.Lookup(f.Name) == nil || !cmd.HasParent() {
			all.AddFlag(f)
		}
	})
	return all
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

// helpFlags lists flags in two columns, the second wrapped.
func helpFlags(w io.Writer, title string, flags *pflag.FlagSet) {
	all := flagTexts(flags)
	if len(all) == 0 {
		return
	}
	const indent = 2
	width := 0
	for _, f := range all {
		width = max(width, len(f.form()))
	}
	begin := indent + width + 3
	fmt.Fprintf(w, "\n%s:\n", title)
	for _, f := range all {
		lines := wrapWords(f.usage, columns-begin)
		fmt.Fprintf(w, "%*s%-*s%s\n", indent, "", width+3, f.form(), lines[0])
		for _, line := range lines[1:] {
			fmt.Fprintf(w, "%*s%s\n", begin, "", line)
		}
	}
}

// flagText is how a flag is written, for the help and the man page.
type flagText struct {
	short, long string // -n, --dry-run; short may be ""
	value       string // what stands for its value, with what comes before it: " TIME", "[=TIME]"
	usage       string // one line, with the default where it is not the obvious one
}

func (f flagText) form() string {
	if f.short == "" {
		return "    " + f.long + f.value
	}
	return f.short + ", " + f.long + f.value
}

// flagTexts are the flags that people see, in their order.
func flagTexts(flags *pflag.FlagSet) []flagText {
	var all []flagText
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Deprecated != "" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		t := flagText{long: "--" + f.Name, usage: strings.Join(strings.Fields(usage), " ")}
		if f.Shorthand != "" && f.ShorthandDeprecated == "" {
			t.short = "-" + f.Shorthand
		}
		switch {
		case value == "":
		case f.NoOptDefVal != "":
			t.value = "[=" + value + "]"
		default:
			t.value = " " + value
		}
		switch f.DefValue {
		case "", "false", "0", "0s", "[]", "<nil>":
		default:
			t.usage += " (default " + f.DefValue + ")"
		}
		all = append(all, t)
	})
	return all
}

// wrapWords breaks a text into lines of so many columns, and one at least.
func wrapWords(text string, width int) []string {
	lines := []string{""}
	for _, word := range strings.Fields(text) {
		last := &lines[len(lines)-1]
		switch {
		case *last == "":
			*last = word
		case utf8.RuneCountInString(*last)+1+utf8.RuneCountInString(word) <= width:
			*last += " " + word
		default:
			lines = append(lines, word)
		}
	}
	return lines
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
