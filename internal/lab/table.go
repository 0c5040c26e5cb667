package lab

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// tone is how good the news of a cell is.
type tone int

const (
	plain tone = iota
	good
	fair
	bad
)

type cell struct {
	text string
	tone tone
}

// section is one table.
type section struct {
	title string
	head  []string // a line break splits a heading in two
	right int      // the columns from here to the last but one are numbers; 0: none
	rows  [][]cell
	terms [][2]string // what the words mean
	notes string
}

// sections are the tables of the report, for whichever form.
func (r *Report) sections() []section {
	return []section{r.running(), r.lying(), r.launching()}
}

func (r *Report) running() section {
	s := section{
		title: "What becomes of what runs",
		head: []string{"", "program\nin use", "library\nasleep", "library\ncalling", "library\npatched",
			"library\nshared", "late\nload", "started\nafter"},
		notes: "The program, or a library that it uses, is replaced while it runs:",
		terms: [][2]string{
			{"unharmed", "it answers as before"},
			{"refused", "the tool fails (" + r.refusal() + ") and changes nothing"},
			{"SIGSEGV, SIGBUS", "it is killed"},
			{"wrong", "it runs on and gives answers that its release does not give"},
			{"asleep", "it waits in the kernel meanwhile"},
			{"calling", "it calls without a pause, most of its code not in memory"},
			{"patched", "as asleep, and the new library differs in constants only"},
			{"shared", "with a second program, which nobody restarts: what becomes of that"},
			{"late load", "it loads a plugin only after that was replaced, and gets the one " +
				"of its own release, or the new one with the old program (mixed)"},
			{"started after", "a new process runs this of a replaced program/library"},
		},
	}
	for _, row := range r.Rows {
		s.rows = append(s.rows, []cell{
			{row.Title, plain}, row.exe().cell(), row.LibAsleep.cell(), row.LibCalling.cell(),
			row.LibFix.cell(), row.LibShared.cell(), row.Plugin.plugin(), row.started(),
		})
	}
	return s
}

func (r *Report) lying() section {
	s := section{
		title: "What the file is afterwards",
		head:  []string{"", "inode", "mode", "owner", "other\nhard links", "old file's\nspace"},
		notes: fmt.Sprintf("A library is replaced. The old file has mode %04o, the new one %04o, and "+
			"each an owner of its own; root runs the tool:", oldMode, newMode),
		terms: [][2]string{
			{"kept", "as the old file; of its space: for a rollback, or as a backup"},
			{"source's", "as the new file"},
			{"caller's", "root, who ran the tool"},
			{"till exit", "no name leads to it; the space is free when its last process ends"},
		},
	}
	if !r.Root {
		s.notes = fmt.Sprintf("A library is replaced. The old file has mode %04o, the new one %04o; "+
			"owners cannot differ without root:", oldMode, newMode)
		s.terms = slices.Delete(s.terms, 2, 3)
	}
	for _, row := range r.Rows {
		t := row.Traits
		inode := cell{t.Inode, good}
		if t.Inode == "same" {
			inode.tone = bad
		}
		links := map[string]cell{Old: {"untouched", good}, New: {"changed too", bad}}[t.Links]
		if links.text == "" {
			links = cell{"ruined", bad}
		}
		s.rows = append(s.rows, []cell{{row.Title, plain}, inode, origin(t.Mode), origin(t.Owner), links, row.LibAsleep.Held.cell()})
	}
	return s
}

func (r *Report) launching() section {
	s := section{
		title: "Launches while program and libraries are switched to and fro",
		head:  []string{"", "switches", "launches", "mixed", "failed", "why, mostly"},
		right: 1,
		notes: "Both run back to back, so the counts say what can happen, not how often it does:",
		terms: [][2]string{
			{"mixed", "a process that runs files of both releases"},
			{"failed", "did not start, or died"},
		},
	}
	for _, row := range r.Rows {
		n := row.Launches
		if n == nil {
			continue
		}
		count := func(n int) cell {
			if n == 0 {
				return cell{"0", good}
			}
			return cell{strconv.Itoa(n), bad}
		}
		s.rows = append(s.rows, []cell{{row.Title, plain}, {strconv.Itoa(n.Switches), plain},
			{strconv.Itoa(n.Launches), plain}, count(n.Mixed), count(n.Failed), {n.mostly(), plain}})
	}
	return s
}

// refusal names the errno of the refusals.
func (r *Report) refusal() string {
	var names []string
	for _, row := range r.Rows {
		for _, f := range []Fate{row.ExeAsleep, row.ExeCalling} {
			if f.Outcome == Refused && f.Errno != "" && !slices.Contains(names, f.Errno) {
				names = append(names, f.Errno)
			}
		}
	}
	if len(names) == 0 {
		return "as by ETXTBSY"
	}
	return strings.Join(names, ", ")
}

// exe is the worse of what became of the two running programs.
func (row Row) exe() Fate {
	if severity[row.ExeCalling.Outcome] > severity[row.ExeAsleep.Outcome] {
		return row.ExeCalling
	}
	return row.ExeAsleep
}

var severity = map[Outcome]int{Unharmed: 0, Refused: 1, Mixed: 2, Unloaded: 3, Wrong: 4, Hung: 5, Exited: 6, Killed: 7}

func (f Fate) cell() cell {
	switch f.Outcome {
	case Unharmed:
		return cell{string(f.Outcome), good}
	case Refused:
		return cell{string(f.Outcome), fair}
	case Killed:
		return cell{f.Signal, bad}
	case Exited:
		return cell{"exit " + strconv.Itoa(f.Status), bad}
	case Hung:
		return cell{"hangs", bad}
	}
	return cell{string(f.Outcome), bad}
}

func (f Fate) plugin() cell {
	switch f.Outcome {
	case Unharmed:
		return cell{"own", good}
	case Mixed:
		return cell{"mixed", bad}
	case Unloaded:
		return cell{"fails", bad}
	}
	return f.cell()
}

func (row Row) started() cell {
	exe, lib := row.ExeAsleep.Started, row.LibAsleep.Started
	switch {
	case exe == Nothing || lib == Nothing:
		return cell{"fails", bad}
	case exe != lib:
		return cell{exe + "/" + lib, fair}
	case exe == Old:
		return cell{exe, fair}
	}
	return cell{exe, good}
}

func origin(what string) cell {
	switch what {
	case "":
		return cell{"?", plain}
	case "source", "caller":
		what += "'s"
	}
	return cell{what, plain}
}

func (h Held) cell() cell {
	switch {
	case h.Deleted > 0:
		return cell{megabytes(h.Deleted) + " till exit", plain}
	case h.Kept > 0:
		return cell{megabytes(h.Kept) + " kept", plain}
	}
	return cell{"overwritten", bad}
}

func megabytes(n int64) string { return strconv.FormatFloat(float64(n)/1e6, 'f', 1, 64) + " MB" }

// mostly is the most common reason of the failed launches.
func (n *Launches) mostly() string {
	most := ""
	for reason, count := range n.Reasons {
		if most == "" || count > n.Reasons[most] || count == n.Reasons[most] && reason < most {
			most = reason
		}
	}
	if most == "" {
		return ""
	}
	return most
}

// heading says what the report holds for, in a line or two.
func (r *Report) heading() string {
	h := fmt.Sprintf("Linux %s, %s, %s", r.Kernel, r.Machine, r.FileSystem)
	for _, t := range r.Tools {
		h += ", " + t.Version
	}
	return h + "."
}

// remainder says what was not tried, one line for each reason.
func (r *Report) remainder() []string {
	var whys []string
	titles := map[string][]string{}
	for _, u := range r.Untried {
		if titles[u.Why] == nil {
			whys = append(whys, u.Why)
		}
		titles[u.Why] = append(titles[u.Why], u.Title)
	}
	var lines []string
	for _, why := range whys {
		lines = append(lines, "Not tried, "+why+": "+strings.Join(titles[why], ", ")+".")
	}
	return lines
}
