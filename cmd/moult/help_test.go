package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// moult runs a command line inside the test.
func runMoult(args ...string) (status int, stdout, stderr string) {
	var out, errs bytes.Buffer
	status = newApp(strings.NewReader(""), &out, &errs, nil).run(context.Background(), args)
	return status, out.String(), errs.String()
}

// commands are the names of all commands that people see, "" for moult itself.
func commands() []string {
	names := []string{""}
	for _, c := range newRootCommand(newApp(nil, nil, nil, nil), "").Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return names
}

// TestHelp compares every help text whole; go test ./cmd/moult -update writes
// them. A new command needs nothing here but its text.
func TestHelp(t *testing.T) {
	var want []string
	for _, name := range commands() {
		args, file := []string{"--help"}, "moult.txt"
		if name != "" {
			args, file = []string{name, "--help"}, name+".txt"
		}
		want = append(want, file)
		t.Run(file, func(t *testing.T) {
			status, got, stderr := runMoult(args...)
			if status != 0 || stderr != "" {
				t.Fatalf("status %d, stderr %q, want 0 and nothing", status, stderr)
			}
			checkHelp(t, name, got)
			golden(t, filepath.Join("testdata", "help", file), got)
		})
	}
	files, _ := filepath.Glob("testdata/help/*")
	for _, f := range files {
		if !slices.Contains(want, filepath.Base(f)) {
			t.Errorf("%s: there is no such command any more", f)
		}
	}
}

// checkHelp wants what every help has: examples, statuses, eighty columns.
func checkHelp(t *testing.T, name, text string) {
	for _, part := range []string{"Usage: moult", "\nExamples:\n", "\nExit status:\n"} {
		if !strings.Contains(text, part) {
			t.Errorf("has no %q", part)
		}
	}
	if name != "" && strings.Count(text[strings.Index(text, "Examples:"):], "moult "+name) < 2 {
		t.Errorf("want two examples at least")
	}
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > columns {
			t.Errorf("%d columns, want %d at most: %q", n, columns, line)
		}
		if strings.TrimRight(line, " \n") != strings.TrimRight(line, "\n") {
			t.Errorf("blanks at the end of %q", line)
		}
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got\n%s\nwant\n%s", file, got, want)
	}
}

// TestHelpForms wants that moult help X, X --help and -h say the same.
func TestHelpForms(t *testing.T) {
	_, want, _ := runMoult("apply", "--help")
	for _, args := range [][]string{{"help", "apply"}, {"apply", "-h"}, {"--help", "apply"}} {
		if status, got, stderr := runMoult(args...); status != 0 || got != want {
			t.Errorf("moult %v: status %d, stderr %q, differs from apply --help", args, status, stderr)
		}
	}
}

// TestCompletion wants a script for each shell, and one that names a command's
// flags.
func TestCompletion(t *testing.T) {
	for shell, mark := range map[string]string{"bash": "__start_moult", "zsh": "#compdef moult", "fish": "complete -c moult"} {
		if status, out, stderr := runMoult("completion", shell); status != 0 || !strings.Contains(out, mark) {
			t.Errorf("completion %s: status %d, stderr %q, no %q in %d bytes", shell, status, stderr, mark, len(out))
		}
	}
	if status, _, stderr := runMoult("completion", "tcsh"); status != statusUsage || !strings.Contains(stderr, "bash, zsh or fish") {
		t.Errorf("completion tcsh: status %d, stderr %q, want 2 and the shells", status, stderr)
	}
	for _, c := range []struct{ flag, want string }{
		{"apply --layout", "owned\nshared\n:4\n"}, {"ps --sort", "verdict\npid\n"}, {"lab --explain", "cp\n"}, {"rollback --name", ":4\n"},
	} {
		if _, out, _ := runMoult(append([]string{cobra.ShellCompRequestCmd}, append(strings.Fields(c.flag), "")...)...); !strings.HasPrefix(out, c.want) {
			t.Errorf("completing the value of %s gives %q, want %q", c.flag, out, c.want)
		}
	}
	if _, out, _ := runMoult(cobra.ShellCompRequestCmd, "apply", "--lay"); !strings.Contains(out, "--layout") {
		t.Errorf("completing apply --lay gives %q, want --layout", out)
	}
}

// What a shell shows beside a flag is its whole text, without the marks of the
// help.
func TestCompletionTexts(t *testing.T) {
	for _, name := range commands() {
		args := []string{cobra.ShellCompRequestCmd, name, "--"}
		if name == "" {
			args = []string{cobra.ShellCompRequestCmd, "--"}
		}
		status, out, stderr := runMoult(args...)
		if status != 0 || strings.Contains(out, "`") || !strings.Contains(out, "--json\tprint ") {
			t.Errorf("%q: status %d, %s\n%s", args, status, stderr, out)
		}
	}
	_, out, _ := runMoult(cobra.ShellCompRequestCmd, "apply", "--link")
	if want := "--links\ta release that breaks what loads it: POLICY refuse, warn or ignore\n"; !strings.HasPrefix(out, want) {
		t.Errorf("got %q, want %q", out, want)
	}
}
