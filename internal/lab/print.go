package lab

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Markdown is the report for a README.
func (r *Report) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", r.heading())
	for _, s := range r.sections() {
		fmt.Fprintf(&b, "\n**%s**\n\n", s.title)
		row := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
		head, rule := make([]string, len(s.head)), make([]string, len(s.head))
		for i, h := range s.head {
			head[i], rule[i] = strings.ReplaceAll(h, "\n", " "), "---"
			if s.right > 0 && i >= s.right && i < len(s.head)-1 {
				rule[i] = "--:"
			}
		}
		row(head)
		row(rule)
		for _, cells := range s.rows {
			line := make([]string, len(cells))
			for i, c := range cells {
				line[i] = strings.ReplaceAll(c.text, "|", `\|`)
				if c.tone == bad {
					line[i] = "**" + line[i] + "**"
				}
			}
			line[0] = "`" + cells[0].text + "`"
			row(line)
		}
		fmt.Fprintf(&b, "\n%s\n\n", s.notes)
		for _, t := range s.terms {
			fmt.Fprintf(&b, "- *%s*: %s\n", t[0], t[1])
		}
	}
	for _, line := range r.remainder() {
		fmt.Fprintf(&b, "\n%s\n", line)
	}
	return b.String()
}

// Text is the report for a terminal of this width, of at least 80 columns, with
// the news coloured if color is set.
func (r *Report) Text(width int, color bool) string {
	width = max(width, 80)
	var b strings.Builder
	b.WriteString(wrap(r.heading(), width))
	for _, s := range r.sections() {
		if len(s.rows) == 0 {
			continue
		}
		b.WriteString("\n" + paint(s.title, "1", color) + "\n\n")
		s.text(&b, width, color)
		b.WriteString("\n" + wrap(s.notes, width) + glossary(s.terms, width))
	}
	for _, line := range r.remainder() {
		b.WriteString("\n" + wrap(line, width))
	}
	return b.String()
}

func (s section) text(b *strings.Builder, width int, color bool) {
	widths := make([]int, len(s.head))
	for i, h := range s.head {
		for line := range strings.SplitSeq(h, "\n") {
			widths[i] = max(widths[i], len(line))
		}
		for _, row := range s.rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].text))
		}
	}
	// The last column of a table of numbers is a remark, which may be cut.
	last := len(widths) - 1
	sum := 0
	for _, w := range widths[:last] {
		sum += w
	}
	need := widths[last]
	if s.right > 0 {
		need = min(need, len(s.head[last]))
	}
	gap := 2
	if sum+gap*last+need > width {
		gap = 1
	}
	widths[last] = min(widths[last], max(need, width-sum-gap*last))

	line := func(cells []cell, colored bool) {
		var l strings.Builder
		for i, c := range cells {
			text := c.text
			if runes := []rune(text); len(runes) > widths[i] {
				text = string(runes[:widths[i]-1]) + "…"
			}
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text))
			text = paint(text, []string{"", "32", "33", "31"}[c.tone], colored)
			if s.right > 0 && i >= s.right && i < last {
				text, pad = pad+text, ""
			}
			l.WriteString(text + pad + strings.Repeat(" ", gap))
		}
		b.WriteString(strings.TrimRight(l.String(), " ") + "\n")
	}
	// Headings sit on the line of the rows, so single ones go to the lower one.
	upper, lower := make([]cell, len(s.head)), make([]cell, len(s.head))
	split := false
	for i, h := range s.head {
		if above, below, ok := strings.Cut(h, "\n"); ok {
			upper[i].text, lower[i].text, split = above, below, true
		} else {
			lower[i].text = h
		}
	}
	if split {
		line(upper, false)
	}
	line(lower, false)
	b.WriteString(strings.Repeat("─", sum+gap*last+widths[last]) + "\n")
	for _, row := range s.rows {
		line(row, color)
	}
}

func paint(text, code string, color bool) string {
	if !color || code == "" || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// glossary sets terms in a column of their own.
func glossary(terms [][2]string, width int) string {
	indent := 0
	for _, t := range terms {
		indent = max(indent, len(t[0])+4)
	}
	var b strings.Builder
	for _, t := range terms {
		text := strings.TrimRight(wrap(t[1], width-indent), "\n")
		text = strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", indent))
		fmt.Fprintf(&b, "  %-*s%s\n", indent-2, t[0], text)
	}
	return b.String()
}

// wrap breaks a paragraph at blanks.
func wrap(text string, width int) string {
	var b strings.Builder
	column := 0
	for _, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case column == 0:
		case column+1+n > width:
			b.WriteByte('\n')
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	b.WriteByte('\n')
	return b.String()
}
