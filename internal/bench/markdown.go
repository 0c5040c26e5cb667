package main

import (
	"fmt"
	"io"
	"strings"
)

// writeMarkdown writes the table of docs/bench.md: a line for each row, and the
// targets in the line of whom they hold.
func (r *Report) writeMarkdown(w io.Writer, _ options) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d processors, %s.\n\n", r.Host.Kernel, r.Host.CPUs, r.Host.FileSystem)
	b.WriteString("| job | who | result | at most |\n|---|---|---|---|\n")
	for _, s := range r.Sections {
		for i, row := range s.Rows {
			job := ""
			if i == 0 {
				job = s.Title
			}
			fmt.Fprintf(&b, "| %s | %s | %s %s | |\n", job, row.Name, number(row.Value), s.Unit)
		}
		for _, c := range s.Checks {
			mark := "met"
			if !c.Met {
				mark = "**not met**"
			}
			fmt.Fprintf(&b, "| | *%s* | %s %s | %s, %s |\n", c.What, c.value(), c.Unit, number(c.AtMost), mark)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
