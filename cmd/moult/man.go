//go:build man

package main

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"

	"moult.example/internal/disk"
)

// manCommands is the command that make man runs. What it needs would cost every
// start of moult a millisecond, so it is only there with the build tag man.
func manCommands() []command { return []command{{"man", groupLearn, newManCommand}} }

// newManCommand is for make man and for packagers; people use help.
func newManCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "write the manual pages into a directory",
		Long: `Write a manual page for moult and for each of its commands into a directory
that exists. They are made from the same definitions as the help.`,
		Example:     "  mkdir -p out/man && moult man out/man\n  man -l out/man/moult-apply.1",
		Annotations: exits(),
		Hidden:      true,
		Args:        operands("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := disk.Open(args[0])
			if err != nil {
				return err
			}
			defer dir.Close()
			root := newRootCommand(a, "") // cmd's own has no other command
			page := manPage(root)
			page.DisableAutoGenTag = true // equal sources make equal pages
			for _, c := range root.Commands() {
				if c.IsAvailableCommand() {
					page.AddCommand(manPage(c))
				}
			}
			for _, p := range append(page.Commands(), page) {
				if err := writeManPage(dir, p); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// manPage is a command as cobra's writer of man pages is to see it: without
// flags, of which it prints defaults but no values, and with a text that ends
// with the flags and the exit statuses, for which it has no place.
func manPage(c *cobra.Command) *cobra.Command {
	page := &cobra.Command{Use: c.Use, Short: c.Short, Long: manBlocks(c.Long), Example: c.Example, DisableFlagsInUseLine: true, Run: func(*cobra.Command, []string) {}}
	if !c.HasParent() {
		page.Use = useLine(c)
	}
	page.Flags().BoolP("help", "h", false, "") // else cobra adds one that is seen
	page.Flags().Lookup("help").Hidden = true
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.SortFlags = false
	flags.AddFlagSet(c.LocalNonPersistentFlags())
	flags.AddFlagSet(c.Root().PersistentFlags())
	if c.HasAvailableSubCommands() {
		page.Long += "\n\n" + manCommandList(c)
	}
	page.Long += "\n\n# OPTIONS\n"
	for _, f := range flagTexts(flags) {
		form := "**" + f.long + "**" + manText.Replace(f.value)
		if f.short != "" {
			form = "**" + f.short + "**, " + form
		}
		page.Long += form + "\n: " + manText.Replace(f.usage) + "\n\n"
	}
	if exit := c.Annotations["exit"]; exit != "" {
		page.Long += "# EXIT STATUS\n\n```\n" + exit + "```\n"
	}
	return page
}

// manCommandList lists the commands, in the order of the help.
func manCommandList(c *cobra.Command) string {
	var b strings.Builder
	b.WriteString("# COMMANDS\n")
	for _, g := range c.Groups() {
		for _, sub := range c.Commands() {
			if sub.GroupID == g.ID && sub.IsAvailableCommand() {
				b.WriteString("**" + sub.Name() + "**\n: " + manText.Replace(sub.Short) + "\n\n")
			}
		}
	}
	return strings.TrimSpace(b.String())
}

// manBlocks marks the indented lines of a help text as such, so that man(1)
// does not fill them.
func manBlocks(text string) string {
	var b strings.Builder
	for paragraph := range strings.SplitSeq(text, "\n\n") {
		if strings.HasPrefix(paragraph, " ") {
			paragraph = "```\n" + paragraph + "\n```"
		}
		b.WriteString(paragraph + "\n\n")
	}
	return strings.TrimSpace(b.String())
}

// manText keeps what cobra's writer reads as markdown as it is.
var manText = strings.NewReplacer(`*`, `\*`, `_`, `\_`, `<`, `\<`, `[`, `\[`, `]`, `\]`, "`", "\\`")

func writeManPage(dir disk.FS, c *cobra.Command) error {
	var b bytes.Buffer
	header := &doc.GenManHeader{Section: "1", Source: "moult", Manual: "moult manual"}
	if err := doc.GenMan(c, header, &b); err != nil {
		return err
	}
	name := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".1"
	temporary := "." + name + ".new"
	if err := dir.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := dir.Create(temporary)
	if err != nil {
		return err
	}
	// No hyphens of man's own: they would be read as a part of a name.
	_, err = f.Write(bytes.Replace(b.Bytes(), []byte(".nh\n"), []byte(".nr HY 0\n.nh\n"), 1))
	if err == nil {
		err = f.SetMeta(disk.Meta{UID: -1, GID: -1, Mode: 0o644})
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return dir.Rename(temporary, name)
}
