package main

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"moult.example/internal/deploy"
)

func TestFold(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"short", "all is well\n", "all is well\n"},
		{"just so", "twelve and thirteen and eight\n", "twelve and thirteen and eight\n"},
		{"by two", "one line of words that is too long for this\n  indented, and also too long for it\n",
			"one line of words that is too\n  long for this\n  indented, and also too long\n    for it\n"},
		{"second column", "break    bin/x: needs y, which nothing defines\n",
			"break    bin/x: needs y, which\n         nothing defines\n"},
		{"far column", "  generation-forty-two  live since the morning\n",
			"  generation-forty-two  live\n    since the morning\n"},
		{"moult", "moult: apply: not well: the answer is missing\n",
			"moult: apply: not well: the\n       answer is missing\n"},
		{"date", "it is live since 2026-11-21 23:31:28, by root\n",
			"it is live since\n  2026-11-21 23:31:28, by root\n"},
		{"quoted", `it is kept as ("a name with blanks.new" here)`,
			"it is kept as\n  (\"a name with blanks.new\"\n  here)"},
		{"quote in quotes", `it is kept as "a \" b c d e f g" and so on`,
			"it is kept as\n  \"a \\\" b c d e f g\" and so on"},
		{"open quote", `it is no name but an inch: 17" or "so it says`,
			"it is no name but an inch: 17\"\n  or \"so it says"},
		{"long word", "needs /a/path/that/is/longer/than/the/line in it\n",
			"needs\n  /a/path/that/is/longer/than/the/line\n  in it\n"},
		{"one word", "/a/path/that/is/longer/than/the/line\n", "/a/path/that/is/longer/than/the/line\n"},
		{"colours", "\x1b[1;31mnine words\x1b[0m of \x1b[31mred\x1b[0m and two\n", "\x1b[1;31mnine words\x1b[0m of \x1b[31mred\x1b[0m and two\n"},
		{"blanks", strings.Repeat(" ", 40) + "\n\n" + strings.Repeat(" ", 40), "\n\n"},
		{"no end", "one line of words that is too long", "one line of words that is too\n  long"},
	} {
		if got := fold(tt.text, 30); got != tt.want {
			t.Errorf("%s: got\n%q, want\n%q", tt.name, got, tt.want)
		}
	}
}

// Whatever the text and the width: no word is lost, none is broken, and only what
// is one word alone is longer than the terminal is wide.
func TestFoldAny(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	words := []string{"a", "bin/x:", "nothing", `"a name"`, "2026-11-21 23:31:28", "  ", "    ", "\x1b[31mred\x1b[0m", `"`, "(", `\`,
		"ümläute", strings.Repeat("/long", 9), "\n", "moult:"}
	for range 2000 {
		var b strings.Builder
		for range rng.IntN(30) {
			b.WriteString(words[rng.IntN(len(words))] + " ")
		}
		text, width := b.String(), 1+rng.IntN(100)
		got := fold(text, width)
		if g, w := strings.Fields(got), strings.Fields(text); strings.Join(g, " ") != strings.Join(w, " ") {
			t.Fatalf("%q at %d: got %q", text, width, got)
		}
		for line := range strings.Lines(got) {
			line = strings.TrimRight(line, "\n")
			if visible(line) > max(width, narrowest) && len(pieces(line)) > 1 {
				t.Fatalf("%q at %d: too long: %q", text, width, line)
			}
		}
	}
}

// Each form of the table fits where the one before it does not, and a time that
// is cut is cut whole.
func TestStatusForms(t *testing.T) {
	at := time.Date(2026, 11, 21, 23, 31, 28, 0, time.Local)
	s := deploy.Status{Target: "/opt/app", Layout: deploy.Owned, Live: -1, Generations: []deploy.Generation{
		{Number: 1, State: "previous", Release: "5bae9b8b1e11aa", Version: "1.0", Files: 12, Bytes: 36e3, Staged: at},
	}}
	for width, want := range map[int]string{
		0:  "  1           previous  5bae9b8b1e11  1.0      12     36 kB  2026-11-21 23:31:28",
		80: "  1           previous  5bae9b8b1e11  1.0      12     36 kB  2026-11-21 23:31:28",
		79: "  1    previous  5bae9b8b1e11  1.0      12     36 kB  2026-11-21 23:31:28",
		71: "  1    previous  5bae9b8b1e11  1.0      12     36 kB  2026-11-21 23:31",
		67: "  1    previous  5bae9b8b1e11  1.0      12     36 kB  2026-11-21",
		20: "  1    previous  5bae9b8b1e11  1.0      12     36 kB  2026-11-21",
	} {
		var b strings.Builder
		writeStatus(&b, s, width)
		lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
		if got := lines[len(lines)-1]; got != want {
			t.Errorf("at %d: got %q, want %q", width, got, want)
		}
	}
}

// What goes to a terminal is folded at its width, results and errors alike; what
// goes elsewhere has a line for each record, and the same words.
func TestFoldOnTerminal(t *testing.T) {
	t.Setenv("MOULT_STATE_DIR", t.TempDir())
	dir := t.TempDir()
	release := filepath.Join(dir, "release")
	long := strings.Repeat("a-name-of-some-length ", 6)
	if err := os.MkdirAll(filepath.Join(release, "share"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"moult.toml": "name = \"app\"\nversion = \"2026.11.21-rc1\"\n", "share/" + long: "x"} {
		if err := os.WriteFile(filepath.Join(release, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	target := filepath.Join(dir, "target")
	if status, _, errs := runMoult("apply", release, target); status != 0 {
		t.Fatal(errs)
	}
	const width = 64
	p := openTerminal(t, width, 24)
	const over = "\x1b[9999m"
	mark := 0
	onTerminal := func(args ...string) string {
		newApp(strings.NewReader(""), p.device, p.device, nil).run(context.Background(), args)
		p.device.WriteString(over)
		begin := mark
		mark = p.shows(t, mark, over)
		return strings.ReplaceAll(strings.TrimSuffix(p.text()[begin:mark], over), "\r\n", "\n")
	}
	folded := regexp.MustCompile(`\n +`)
	for _, args := range [][]string{
		{"diff", release, target},
		{"commit", filepath.Join(dir, "nothing is here")},
		{"verify", "--name", "no such product as this one in the target", target},
		{"apply", release, target},
	} {
		_, out, errs := runMoult(args...)
		got := onTerminal(args...)
		if want := out + errs; strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(want), " ") {
			t.Errorf("%q: other words on a terminal:\n%s\nwant\n%s", args, got, want)
		} else if widest(want) > width && !folded.MatchString(got) {
			t.Errorf("%q: not folded:\n%s", args, got)
		}
		for line := range strings.Lines(got) {
			if visible(strings.TrimSpace(line)) > width && len(pieces(strings.TrimSpace(line))) > 1 {
				t.Errorf("%q: wider than the terminal: %q", args, line)
			}
		}
	}
	if _, out, _ := runMoult("status", target); widest(out) <= width {
		t.Errorf("a pipe has other lines than wanted:\n%s", out)
	}
	if got := onTerminal("status", "--json", target); widest(got) <= width {
		t.Errorf("JSON is folded:\n%s", got)
	}
}
