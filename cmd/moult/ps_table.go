package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"moult.example/internal/stale"
)

// psView is how ps shows to people what it has found.
type psView struct {
	width   int // of the terminal, in columns; 0 is no limit
	color   bool
	verbose bool
	quiet   bool // no hints
	space   bool
	root    bool // sees every process

	// Of a live view, after the first look:
	order string // of psOrders
	marks map[psID]psMark
	over  []stale.Process
}

// psID names one process for ever.
type psID struct {
	pid   int
	ticks uint64
}

func (a *app) psView(f *psFlags) psView {
	width := terminalWidth(a.stdout)
	return psView{
		width: width, color: width > 0 && a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb",
		verbose: f.verbose, quiet: a.quiet, space: f.space, root: os.Geteuid() == 0, order: f.sort,
	}
}

// The styles of a terminal (ECMA-48, SGR).
const (
	styleAlarm = "1;31" // bold red
	styleBad   = "31"
	styleNew   = "1;32"
	styleOther = "1;33"
	styleOver  = "2"
	styleHead  = "1"
)

func (v psView) styled(text, style string) string {
	if !v.color || style == "" || text == "" {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}

const (
	psIndent  = "         " // of what belongs to a process
	fewFiles  = 3           // of a process, that are listed unasked
	fewOthers = 5           // suspects and deleted files that are listed unasked
)

// lines are the whole text.
func (v psView) lines(found psFound, f *psFlags) []string {
	var out []string
	if pids := corruptPIDs(found.old); len(pids) > 0 {
		text := fmt.Sprintf("CORRUPT: %s code that was overwritten in place, and can crash at any moment: %s",
			plural(len(pids), "process runs", "processes run"), pidList(pids))
		for _, line := range v.wrap("", text) {
			out = append(out, v.styled(line, styleAlarm))
		}
		out = append(out, "")
	}
	out = append(out, v.table(found)...)
	out = append(out, v.suspects(found)...)
	out = append(out, v.held(found)...)
	if len(out) > 0 && out[len(out)-1] != "" {
		out = append(out, "")
	}
	return append(out, v.summary(found, f)...)
}

func corruptPIDs(processes []stale.Process) (pids []int) {
	for _, p := range processes {
		if p.Verdict() == stale.Corrupt {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

func pidList(ids []int) string {
	slices.Sort(ids)
	return pids(ids)
}

// table is the processes with a verdict. Those that follow each other and have
// the same files share the lines of them.
func (v psView) table(found psFound) []string {
	list := found.old
	if len(v.over) > 0 {
		list = psSorted(slices.Concat(list, v.over), v.order)
	}
	if len(list) == 0 {
		return nil
	}
	rows := [][]string{{"PID", "USER", "STARTED", "VERDICT", "SINCE", "UNIT", "COMMAND"}}
	for _, p := range list {
		rows = append(rows, []string{
			strconv.Itoa(p.PID), cut(plain(userName(p.UID, p.User)), 16), ago(found.at, p.Start), strings.ToUpper(string(p.Verdict())),
			ago(found.at, psSince(p)), where(p.Unit, p.Container), v.command(p.Command, p.Comm),
		})
	}
	layout := v.layOut(rows)
	out := []string{v.styled(layout[0], styleHead)}
	key := psFilesKey(list[0])
	for i, p := range list {
		out = append(out, v.row(p, layout[i+1]))
		if r := p.Reexec; r != nil && v.verbose {
			out = append(out, v.wrap(psIndent, psReexec(r))...)
		}
		next := ""
		if i+1 < len(list) {
			next = psFilesKey(list[i+1])
		}
		if i == len(list)-1 || next != key {
			out = append(out, v.files(p, found.at)...)
		}
		key = next
	}
	return out
}

// psReexec is what a process says that can replace itself.
func psReexec(r *stale.Reexec) string {
	text := fmt.Sprintf("it can replace itself, at %s, and has done so %s", signalName(r.Signal), plural(r.Generation, "time", "times"))
	if r.Rejected > 0 {
		text += fmt.Sprintf("; since then it was asked to and has rejected the new code %s", plural(r.Rejected, "time", "times"))
	}
	if r.Starting {
		text += "; it is not ready yet, and may go back"
	}
	return text
}

// row is the line of one process.
func (v psView) row(p stale.Process, text string) string {
	if m := v.marks[psID{p.PID, p.Ticks}]; m != markNone {
		return v.styled(m.sign()+text[1:], m.style())
	}
	switch p.Verdict() {
	case stale.Corrupt:
		return v.styled(text, styleAlarm)
	case stale.Gone:
		return v.styled(text, styleBad)
	}
	return text
}

// layOut puts cells in columns, the first to the right, and cuts the last at
// the edge. A column without any value is left out.
func (v psView) layOut(rows [][]string) []string {
	n := len(rows[0])
	widths := make([]int, n)
	used := make([]bool, n)
	for i, row := range rows {
		for j, cell := range row {
			widths[j] = max(widths[j], utf8.RuneCountInString(cell))
			used[j] = used[j] || i > 0 && cell != "" && cell != "-"
		}
	}
	widths[0] = max(widths[0]+1, len(psIndent)-2) // a blank at least, for a mark
	var out []string
	for _, row := range rows {
		line := ""
		for j, cell := range row {
			gap := strings.Repeat(" ", max(0, widths[j]-utf8.RuneCountInString(cell)))
			switch {
			case j == 0:
				line = gap + cell
			case used[j]:
				line += "  " + cell + gap
			}
		}
		out = append(out, v.fit(strings.TrimRight(line, " ")))
	}
	return out
}

// fit cuts a line at the edge of the terminal.
func (v psView) fit(line string) string {
	if v.width == 0 || v.verbose {
		return line
	}
	return cut(line, v.width)
}

// wrap breaks a text at the edge of the terminal, each line with this indent.
func (v psView) wrap(indent, text string) []string {
	if v.width == 0 {
		return []string{indent + text}
	}
	var out []string
	for _, line := range wrapWords(text, max(20, v.width-len(indent))) {
		out = append(out, indent+line)
	}
	return out
}

// held is the deleted files that still take space.
func (v psView) held(found psFound) []string {
	if !v.space {
		return nil
	}
	if len(found.Held) == 0 {
		return []string{"", "No deleted file takes space."}
	}
	out := []string{"", v.styled("Deleted, and still on the disk:", styleHead)}
	for _, h := range found.Held {
		bytes := size(h.Bytes)
		if h.Unknown {
			bytes = "?"
		}
		since := ""
		if !h.Since.IsZero() {
			since = ", deleted " + ago(found.at, h.Since)
		}
		name := plain(trimDeleted(h.Path))
		line := fmt.Sprintf("%7s  %s%s (%s)", bytes, name, since, pids(h.PIDs))
		if v.width > 0 && utf8.RuneCountInString(line) > v.width {
			out = append(out, fmt.Sprintf("%7s  %s", bytes, name))
			line = psIndent + strings.TrimPrefix(since+" ", ", ") + "(" + pids(h.PIDs) + ")"
		}
		out = append(out, line)
	}
	return out
}

// summary is the last lines: how many, how much space, and what was not seen.
func (v psView) summary(found psFound, f *psFlags) []string {
	counts := map[stale.Verdict]int{}
	for _, p := range found.old {
		counts[p.Verdict()]++
	}
	var parts []string
	for _, verdict := range []stale.Verdict{stale.Corrupt, stale.Gone, stale.Stale, stale.Same} {
		if n := counts[verdict]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, strings.ToUpper(string(verdict))))
		}
	}
	what := plural(len(found.old), "process runs", "processes run")
	if len(found.old) == 0 {
		what = "No process runs"
		if len(found.Unreadable) > 0 && !v.root {
			what = "No process that could be looked into runs"
		}
	}
	of := "old code"
	if len(f.targets) == 1 {
		of += " of " + plain(f.targets[0])
	}
	line := fmt.Sprintf("%s %s", what, of)
	if len(parts) > 0 {
		line += ": " + strings.Join(parts, ", ")
	}
	line += fmt.Sprintf("; %d looked at.", max(0, found.Scanned-len(found.Unreadable)))
	out := v.wrap("", line)
	if found.empty != nil {
		out = append(out, v.wrap("", found.empty.text())...)
	}
	if found.HeldBytes > 0 && (v.space || !v.quiet) {
		held := fmt.Sprintf("Deleted files of code still take %s: --space lists them.", size(found.HeldBytes))
		if v.space {
			held = fmt.Sprintf("Deleted files still take %s in all.", size(found.HeldBytes))
		}
		out = append(out, v.wrap("", held)...)
	}
	if n := len(found.old) - counts[stale.Same]; n > 0 && !v.quiet && f.unit == "" && len(f.uids) == 0 && len(f.targets) < 2 {
		target := ""
		if len(f.targets) == 1 {
			target = " " + plain(f.targets[0])
		}
		out = append(out, v.wrap("", fmt.Sprintf("moult restart --dry-run%s says what would bring %s to the new code.", target, them(n)))...)
	}
	return append(out, v.unseen(found.Unreadable, found.Hidden, "")...)
}

// unseen says what this user was not shown.
func (v psView) unseen(unreadable []int, hidden bool, and string) (out []string) {
	end := and + "; root sees more."
	if v.root {
		end = and + "."
	}
	if n := len(unreadable); n > 0 {
		which := ""
		if v.verbose {
			which = " (" + somePIDs(unreadable) + ")"
		}
		out = append(out, v.wrap("", plural(n, "process", "processes")+which+" could not be looked into"+end)...)
	}
	if hidden {
		out = append(out, v.wrap("", "/proc does not show the processes of other users"+end)...)
	}
	return out
}

// somePIDs names the first of many processes.
func somePIDs(all []int) string {
	const few = 8
	text := "pid " + numbers(all[:min(len(all), few)])
	if more := len(all) - few; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
