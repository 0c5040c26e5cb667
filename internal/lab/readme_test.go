package lab

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

const (
	readme = "../../README.md"
	page   = "../../docs/lab.md"
)

// printed is what a document shows of the lab's report.
func printed(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), "<!-- lab:begin -->\n")
	tables, _, closed := strings.Cut(after, "<!-- lab:end -->")
	if !found || !closed {
		t.Fatalf("%s has no part between <!-- lab:begin --> and <!-- lab:end -->", name)
	}
	return tables
}

// The tables of docs/lab.md, which moult lab --markdown has printed, say what a
// fresh run says, in all that does not depend on the machine: not which signal
// killed a program, not how much was counted.
func TestPage(t *testing.T) {
	r := fresh(t)
	want, got := stable(r.Markdown(), r.Root), stable(printed(t, page), r.Root)
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("docs/lab.md lacks: %s", line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("docs/lab.md has, and a fresh run has not: %s", line)
		}
	}
	if t.Failed() {
		t.Log("moult lab --markdown prints what belongs there")
	}
}

// The README's table is a part of those in docs/lab.md, cell for cell: what
// TestPage finds true there is true here.
func TestReadme(t *testing.T) {
	whole := cellsOf(printed(t, page))
	part := cellsOf(printed(t, readme))
	for at, text := range part {
		if want, ok := whole[at]; !ok || text != want {
			t.Errorf("README.md has for %q in the column %q: %s, docs/lab.md: %s", at[0], at[1], text, want)
		}
	}
	for _, row := range []string{"cp", "mv over", "install", "rsync", "moult install"} {
		if part[[2]string{"`" + row + "`", "program in use"}] == "" {
			t.Errorf("README.md has no row for %s", row)
		}
	}
}

// cellsOf are the cells of tables by row and column. No two of the lab's tables
// have a column of the same name.
func cellsOf(markdown string) map[[2]string]string {
	all := map[[2]string]string{}
	var head []string
	for line := range strings.Lines(markdown) {
		line = strings.TrimSpace(line)
		cells := strings.Split(strings.TrimSuffix(strings.TrimPrefix(line, "| "), " |"), " | ")
		switch {
		case !strings.HasPrefix(line, "|"):
			head = nil
		case head == nil:
			head = cells
		case len(cells) != len(head):
			all[[2]string{cells[0], "that it has too many or too few of"}] = line
		case cells[0] != "---":
			for i, text := range cells[1:] {
				all[[2]string{cells[0], head[1+i]}] = text
			}
		}
	}
	return all
}

var (
	harm     = regexp.MustCompile(`\*\*(SIG[A-Z]+|wrong|hangs|exit \d+)\*\*`)
	quantity = regexp.MustCompile(`\d+\.\d+ MB`)
	number   = regexp.MustCompile(`^\**\d+\**$`)
)

// stable is each row of the tables without what may differ from run to run.
// Owners are there for root only.
func stable(markdown string, root bool) []string {
	var rows []string
	title := ""
	for line := range strings.Lines(markdown) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "**") {
			title = strings.Trim(line, "*")
		}
		if !strings.HasPrefix(line, "|") {
			continue
		}
		line = quantity.ReplaceAllString(harm.ReplaceAllString(line, "harmed"), "some")
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		switch {
		case strings.HasPrefix(title, "Launches"):
			cells = counts(cells)
		case strings.HasPrefix(title, "What the file is") && !root:
			cells = slices.Delete(cells, 3, 4)
		}
		rows = append(rows, title+": "+strings.Join(cells, " | "))
	}
	return rows
}

// counts keeps of a row of launches what its law fixes: no mixed ones, or no
// failed ones.
func counts(cells []string) []string {
	m := find(strings.Trim(cells[0], "`"))
	if m == nil || len(cells) < 5 {
		return cells // the heading
	}
	kept := []string{cells[0]}
	want := laws[m.name]
	for i, fixed := range []string{want.mixed, want.failed} {
		if c := cells[3+i]; fixed != "" || !number.MatchString(c) {
			kept = append(kept, c)
		}
	}
	return kept
}

// Terminals of 80 columns and more hold the tables.
func TestScreen(t *testing.T) {
	r := fresh(t)
	for _, width := range []int{80, 100, 120} {
		for line := range strings.Lines(r.Text(width, false)) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > width {
				t.Errorf("%d columns, want at most %d: %s", n, width, line)
			}
		}
	}
	colored := r.Text(80, true)
	if got := regexp.MustCompile(`\x1b\[\d*m`).ReplaceAllString(colored, ""); got != r.Text(80, false) {
		t.Errorf("colours change the text: %s", got)
	}
	for _, row := range r.Rows {
		if !strings.Contains(colored, "\n"+row.Title+" ") {
			t.Errorf("no row for %s", row.Title)
		}
	}
}
