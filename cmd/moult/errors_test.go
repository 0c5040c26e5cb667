package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"moult.example/internal/deploy"
	"moult.example/internal/lab"
)

// TestDiagnose holds the exit statuses, which are an interface: a change here
// breaks other people's programs.
func TestDiagnose(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("stage lib/x.so: %w", err) }
	for _, c := range []struct {
		err    error
		status int
		hint   string
	}{
		{errors.New("anything"), 1, ""},
		{&usageError{message: "no", hint: "try yes"}, 2, "try yes"},
		{errFound, 3, ""},
		{wrap(deploy.ErrUnfinished), 4, "moult recover"},
		{wrap(&deploy.ConflictError{Paths: []deploy.Path{"bin/a"}}), 4, "move it away"},
		{wrap(deploy.ErrCutShort), 4, "moult recover"},
		{wrap(deploy.ErrAfter), 4, "moult rollback"},
		{wrap(deploy.ErrInstallPartly), 4, "again"},
		{wrap(deploy.ErrBusy), 5, "--wait"},
		{wrap(context.Canceled), 130, ""},
		{errors.Join(errFound, wrap(deploy.ErrCutShort)), 4, "moult recover"},
		{errors.Join(wrap(context.Canceled), wrap(deploy.ErrUnfinished)), 4, "moult recover"},
		{wrap(&deploy.RefusedError{Problems: []deploy.Problem{{Path: "x", Why: "immutable", Hint: "chattr -i"}}}), 1, "chattr -i"},
		{wrap(deploy.ErrNoTarget), 1, "moult targets"},
		{wrap(&deploy.NoProductError{Target: "/usr/local", Name: "x", Holds: []string{"y"}}), 1, "--name"},
		{wrap(deploy.ErrNoGeneration), 1, "moult status"},
		{wrap(deploy.ErrNewer), 1, "newer"},
		{wrap(&fs.PathError{Op: "write", Path: "x", Err: unix.ENOSPC}), 1, "moult gc"},
		{wrap(&fs.PathError{Op: "open", Path: "x", Err: unix.EACCES}), 1, "root"},
		{wrap(&deploy.ListError{Err: &fs.PathError{Op: "mkdir", Path: "//x", Err: unix.EACCES}}), 1, "MOULT_STATE_DIR"},
		{ofSource(wrap(&fs.PathError{Op: "open", Path: "build/bin/x", Err: unix.EACCES}), "./build/"), 1, "must be able to read it"},
		{ofSource(wrap(&fs.PathError{Op: "open", Path: "bin/x", Err: unix.EACCES}), "."), 1, "must be able to read it"},
		{ofSource(wrap(&fs.PathError{Op: "open", Path: "a.tar", Err: unix.EACCES}), "a.tar"), 1, "must be able to read it"},
		{ofSource(wrap(&fs.PathError{Op: "open", Path: "/opt/app/.moult/lock", Err: unix.EACCES}), "build"), 1, "owns the target"},
		{ofSource(wrap(&fs.PathError{Op: "open", Path: "/opt/app/.moult/lock", Err: unix.EACCES}), "."), 1, "owns the target"},
		{ofSource(wrap(&fs.PathError{Op: "write", Path: "build/x", Err: unix.ENOSPC}), "build"), 1, "moult gc"},
		{&lab.CompilerError{Command: "cc", Err: exec.ErrNotFound}, 1, "C compiler"},
		{&lab.LaunchError{Dir: "/x", Why: "execve: permission denied"}, 1, "--dir"},
	} {
		d := diagnose(c.err)
		if d.Status != c.status || !strings.Contains(d.Hint, c.hint) || c.hint == "" && d.Hint != "" {
			t.Errorf("%v: status %d, hint %q, want %d, %q", c.err, d.Status, d.Hint, c.status, c.hint)
		}
	}
}

// TestErrorLines gives each of several targets its line, and leaves one sentence
// that wraps two errors in one.
func TestErrorLines(t *testing.T) {
	a, b := errors.New("a: gone"), errors.New("b: gone")
	many := make([]error, 12)
	for i := range many {
		many[i] = a
	}
	for _, c := range []struct {
		err   error
		lines int
		last  string
	}{
		{a, 1, "a: gone"},
		{errors.Join(a, b), 2, "b: gone"},
		{fmt.Errorf("%w; %w", a, b), 1, "a: gone; b: gone"},
		{errors.Join(many...), 9, "and 4 more"},
		{&deploy.RefusedError{Problems: []deploy.Problem{{Path: "a", Why: "odd", Hint: "mend"}, {Path: "b", Why: "odd", Hint: "mend"}}}, 3, "b: odd"},
		{&deploy.RefusedError{Problems: []deploy.Problem{{Path: "a", Why: "odd", Hint: "mend"}, {Path: "b", Why: "odd", Hint: "drop"}}}, 3, "b: odd (drop)"},
	} {
		if got := errorLines(c.err, diagnose(c.err)); len(got) != c.lines || got[len(got)-1] != c.last {
			t.Errorf("%v: got %q, want %d lines, the last %q", c.err, got, c.lines, c.last)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args         string
		stderr, hint string
	}{
		{"aply r t", `moult: unknown command "aply"`, "did you mean moult apply?"},
		{"statsu", `moult: unknown command "statsu"`, "did you mean moult status?"},
		{"undo t", `moult: unknown command "undo"`, "did you mean moult rollback?"},
		{"ls", `moult: unknown command "ls"`, "did you mean moult targets?"},
		{"frobnicate", `moult: unknown command "frobnicate"`, "moult --help"},
		{"help aply", `moult: help: unknown command "aply"`, "did you mean moult apply?"},
		{"apply --adpt r t", "moult: apply: unknown flag: --adpt", "did you mean --adopt?"},
		{"apply --zzz r t", "moult: apply: unknown flag: --zzz", "moult apply --help"},
		{"apply r", "moult: apply: no TARGET is given", "usage: moult apply [FLAGS] RELEASE TARGET"},
		{"apply", "moult: apply: no RELEASE and no TARGET is given", "usage: moult apply [FLAGS] RELEASE TARGET"},
		{"apply a b c", `moult: apply: "c" is one operand too many`, "usage: moult apply"},
		{"apply --layout odd r t", "moult: apply: unknown --layout odd", "owned or shared"},
		{"apply --owners odd r t", `moult: apply: unknown --owners "odd"`, "names, numbers or none"},
		{"apply --wait soon r t", "moult: apply: invalid argument", "moult apply --help"},
		{"apply --max-size 3Q r t", "moult: apply: invalid argument", "moult apply --help"},
		{"commit t seven", `moult: commit: "seven" is not the number`, "moult status"},
		{"rollback 2 t", `moult: rollback: "t" is not the number of a generation`, "the order is TARGET GENERATION"},
		{"recover", "moult: recover: no TARGET is given, and no --all", "usage"},
		{"recover --all t", "moult: recover: want targets or --all, not both", ""},
		{"version x", "moult: version: it takes no operands, so \"x\" is one too many", "usage"},
	} {
		status, stdout, stderr := runMoult(strings.Fields(c.args)...)
		if status != statusUsage || stdout != "" || !strings.HasPrefix(stderr, c.stderr) || !strings.Contains(stderr, c.hint) {
			t.Errorf("moult %s: status %d, stdout %q, stderr %q, want 2, nothing, %q and %q", c.args, status, stdout, stderr, c.stderr, c.hint)
		}
	}
}

// TestOnlyLooked wants a command that changes nothing to say why, and not that
// nothing has changed.
func TestOnlyLooked(t *testing.T) {
	a, b := &deploy.RefusedError{Problems: []deploy.Problem{{Why: "one"}}}, &deploy.RefusedError{Problems: []deploy.Problem{{Why: "two"}}}
	for _, c := range []struct{ group, want string }{
		{groupLook, "moult: look: one\nmoult: look: x: two\n"},
		{groupReplace, "moult: look: " + deploy.Refused + "one\nmoult: look: x: " + deploy.Refused + "two\n"},
	} {
		var errs strings.Builder
		root, look := &cobra.Command{Use: "moult"}, &cobra.Command{Use: "look", GroupID: c.group}
		root.AddCommand(look)
		if status := newApp(nil, nil, &errs, nil).report(look, errors.Join(a, fmt.Errorf("x: %w", b))); status != statusFailed || errs.String() != c.want {
			t.Errorf("%s: status %d, %q, want 1, %q", c.group, status, errs.String(), c.want)
		}
	}
}

// TestErrorDocument wants that --json gives one document also when it fails.
func TestErrorDocument(t *testing.T) {
	status, stdout, stderr := runMoult("aply", "--json")
	var got struct {
		Schema, Status int
		Error, Hint    string
	}
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatalf("%v in %q", err, stdout)
	}
	if status != 2 || got.Schema != 1 || got.Status != 2 || got.Error != `unknown command "aply"` || got.Hint == "" || stderr == "" {
		t.Errorf("status %d, document %+v, stderr %q", status, got, stderr)
	}
}

func TestWait(t *testing.T) {
	for text, want := range map[string]string{"30s": "30s", "5m": "5m0s", "forever": "forever", "0s": "", "-1s": "error", "soon": "error"} {
		var w wait
		got := "error"
		if w.Set(text) == nil {
			got = w.String()
		}
		if got != want {
			t.Errorf("--wait %s is %q, want %q", text, got, want)
		}
	}
}

func TestSizes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 9949: "9.9 kB", 9951: "10 kB", 999499: "999 kB", 999500: "1.0 MB", 312e6: "312 MB", 5e15: "5.0 PB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) is %q, want %q", n, got, want)
		}
	}
	for text, want := range map[string]int64{"0": 0, "800": 800, "2K": 2048, "3M": 3 << 20, "4G": 4 << 30, "1T": 1 << 40, "": -1, "-1": -1, "1KK": -1, "9999999999T": -1, "1.5G": -1} {
		var b byteCount
		got := int64(-1)
		if b.Set(text) == nil {
			got = int64(b)
		}
		if got != want {
			t.Errorf("--max-size %q is %d, want %d", text, got, want)
		}
	}
}

// TestCollection names several generations as several.
func TestCollection(t *testing.T) {
	for want, given := range map[string][]int{
		"/t: collected nothing\n": nil, "/t: collected generation 3\n": {3}, "/t: collected generations 1, 3\n": {1, 3},
	} {
		var b strings.Builder
		if writeCollection(&b, deploy.Collection{Target: "/t", Collected: given}, false); b.String() != want {
			t.Errorf("%v is %q, want %q", given, b.String(), want)
		}
	}
}

func TestPIDs(t *testing.T) {
	for want, given := range map[string][]int{"pid 1": {1}, "pid 1, 2": {1, 2}, "pid 1, 2, 3, 4, 5, 6": {1, 2, 3, 4, 5, 6}, "pid 1, 2, 3, 4, 5 and 2 more": {1, 2, 3, 4, 5, 6, 7}} {
		if got := pids(given); got != want {
			t.Errorf("%v is %q, want %q", given, got, want)
		}
	}
}
