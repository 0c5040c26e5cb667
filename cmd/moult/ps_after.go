package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"moult.example/internal/deploy"
	"moult.example/internal/stale"
)

// lookBudget is how long a command that has replaced something may look for
// processes that still run what was there before. It is for a line of help: a
// host on which it would take longer gets the line without the number.
const lookBudget = 10 * time.Millisecond

// runsOld counts the processes with old code of which want says that they are
// meant; -1 if there was no time to count them.
func (a *app) runsOld(want func(stale.File) bool) int {
	ctx, cancel := context.WithTimeout(context.Background(), a.lookBudget)
	defer cancel()
	report, err := stale.Find(ctx, stale.Options{MapsOnly: true, FilesOnly: true, Places: deploy.NewPlaces(a.options(0)), Answers: a.servers.answer})
	if err != nil {
		return -1
	}
	n := 0
	for _, p := range report.Processes {
		for _, f := range p.Files {
			if f.Verdict.Severity() >= stale.Stale.Severity() && want(f) {
				n++
				break
			}
		}
	}
	return n
}

// wantsOld says that whoever reads the result wants to know who still runs what
// was there before: a person, or a program that reads JSON.
func (a *app) wantsOld() bool { return !a.quiet && (a.json || isTerminal(a.stdout)) }

// afterCommit is [app.runsOld] of a target that has been changed. It is nil if
// nobody wants to know.
func (a *app) afterCommit(r deploy.Result, err error) *int {
	switch r.Job {
	case "apply", "commit", "rollback":
	default:
		return nil
	}
	if err != nil || r.Unchanged || r.From < 0 || !a.wantsOld() {
		return nil
	}
	f := psFlags{targets: []string{string(r.Target)}}
	n := a.runsOld(func(x stale.File) bool { return f.below(x.Runs.Target, x.Gets.Target, x.Path, x.Mapped) })
	return &n
}

// afterInstall is the same for files that install has replaced.
func (a *app) afterInstall(r deploy.InstallResult, dry bool) *int {
	replaced := map[string]bool{}
	for _, f := range r.Files {
		if dest, err := filepath.Abs(f.Dest); err == nil && f.Replaced && !f.Unchanged {
			replaced[dest] = true
		}
	}
	if dry || len(replaced) == 0 || !a.wantsOld() {
		return nil
	}
	n := a.runsOld(func(x stale.File) bool { return replaced[x.Path] || replaced[trimDeleted(x.Mapped)] })
	return &n
}

// known is a count for a JSON document, which leaves out what is not known.
func known(n *int) *int {
	if n != nil && *n < 0 {
		return nil
	}
	return n
}

// writeOld is the line for people.
func writeOld(w io.Writer, n *int, operand string) {
	switch {
	case n == nil || *n == 0:
	case *n < 0:
		fmt.Fprintf(w, "  moult ps%s says who still runs what was there before\n", operand)
	default:
		fmt.Fprintf(w, "  %s what was there before: moult ps%s\n", plural(*n, "process still runs", "processes still run"), operand)
	}
}
