package lab

import (
	"errors"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"moult.example/internal/testneed"
)

const readme = "../../README.md"

// The README's tables, which moult lab --markdown has printed, say what a fresh
// run says, in all that does not depend on the machine: not which signal
// killed a program, not how much was counted.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile(readme)
	if errors.Is(err, fs.ErrNotExist) {
		testneed.Skip(t, "there is no README.md yet")
	}
	if err != nil {
		t.Fatal(err)
	}
	_, text2, found := strings.Cut(string(text), "<!-- lab:begin -->\n")
	tables, _, closed := strings.Cut(text2, "<!-- lab:end -->")
	if !found || !closed {
		t.Fatal("README.md has no part between <!-- lab:begin --> and <!-- lab:end -->")
	}
	r := fresh(t)
	want, got := stable(r.Markdown(), r.Root), stable(tables, r.Root)
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("README.md lacks: %s", line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("README.md has, and a fresh run has not: %s", line)
		}
	}
	if t.Failed() {
		t.Log("moult lab --markdown prints what belongs there")
	}
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
