//go:build man

package main

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

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
			root.DisableAutoGenTag = true // equal sources make equal pages
			for _, c := range append(root.Commands(), root) {
				if c != root && !c.IsAvailableCommand() {
					continue
				}
				if err := writeManPage(dir, c); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func writeManPage(dir disk.FS, c *cobra.Command) error {
	// cobra's page has no place for the exit status, so it goes below the text.
	page := *c
	if exit := c.Annotations["exit"]; exit != "" {
		page.Long += "\n\n# EXIT STATUS\n\n```\n" + exit + "```\n"
	}
	var b bytes.Buffer
	header := &doc.GenManHeader{Section: "1", Source: "moult", Manual: "moult manual"}
	if err := doc.GenMan(&page, header, &b); err != nil {
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
	_, err = f.Write(b.Bytes())
	if err == nil {
		err = f.SetMeta(disk.Meta{UID: -1, GID: -1, Mode: 0o644})
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return dir.Rename(temporary, name)
}
