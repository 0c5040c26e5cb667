package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"moult.example/internal/deploy"
)

// printResult prints what a job has done, also where it did not come to its
// end: then the error follows.
func (a *app) printResult(r deploy.Result, err error) error {
	if err != nil && !changed(err) {
		return err
	}
	a.remarkResult(r)
	old := a.afterCommit(r, err)
	v := struct {
		deploy.Result
		Stale *int `json:"stale,omitempty"` // processes that still run what was there before; see lookBudget
	}{r, known(old)}
	if printErr := a.print(v, func(w io.Writer) {
		writeResult(w, r)
		writeOld(w, old, " "+r.Target.Quoted())
	}); printErr != nil && err == nil {
		if !r.Unchanged {
			return &unsaidError{printErr}
		}
		return printErr
	}
	return err
}

// unsaidError is a job that is done, of which nobody was told.
type unsaidError struct{ err error }

func (e *unsaidError) Error() string { return "done, but not said: " + e.err.Error() }
func (e *unsaidError) Unwrap() error { return e.err }

// remarkResult says what a job has to say beside its result.
func (a *app) remarkResult(r deploy.Result) {
	if r.Recovered != nil {
		a.remark("%s", recoveredText(*r.Recovered))
	}
	for _, warning := range r.Warnings {
		a.remark("%s", warning)
	}
}

// changed says that a job has done something although it failed.
func changed(err error) bool { return diagnose(err).Status == statusUnfinished }

func writeResult(w io.Writer, r deploy.Result) {
	what := map[string]string{"stage": "is staged", "pin": "is pinned", "unpin": "is pinned no longer"}[r.Job]
	if what == "" || r.Job == "stage" && r.Unchanged {
		what = "is live"
	}
	head := r.Target.Quoted() + ": " + generation(r.Generation) + " " + what
	named := identity(r.Name, r.Version, r.Release)
	switch {
	case r.Job == "forget":
		fmt.Fprintf(w, "%s: forgotten; its files stay as they are\n", r.Target.Quoted())
		return
	case r.Unchanged && r.Job == "commit":
		fmt.Fprintf(w, "%s: nothing is staged; %s is live%s\n", r.Target.Quoted(), generation(r.Generation), named)
		return
	case r.Unchanged:
		fmt.Fprintf(w, "%s already%s\n", head, named)
		return
	case r.Job == "pin" || r.Job == "unpin":
		fmt.Fprintln(w, head)
		return
	case r.From >= 0 && r.Job != "stage":
		head += fmt.Sprintf(", was %d", r.From)
	}
	fmt.Fprintf(w, "%s%s\n", head, named)
	fmt.Fprintf(w, "  %s added, %d replaced, %d removed, %d the same; %s copied\n",
		count(r.Added, "file"), r.Replaced, r.Removed, r.Same, size(r.CopyBytes))
	writeLinks(w, r.Links)
	writePaths(w, "changed here, so kept", r.Kept)
	writePaths(w, "the release's version, laid beside", r.New)
	writePaths(w, "damaged, put right", r.Mended)
	writePaths(w, "still in use, so removed by a later gc", r.Deferred)
	writePaths(w, "changed by someone in between, so kept", r.Conflicts)
	if len(r.Collected) > 0 {
		fmt.Fprintf(w, "  collected: %s\n", numbers(r.Collected))
	}
}

func writePlan(w io.Writer, p deploy.Plan, list bool) {
	from := "nothing is live"
	if p.From >= 0 {
		from = generation(p.From) + " is live"
	}
	fmt.Fprintf(w, "%s (%s): %s; planned%s\n", p.Target.Quoted(), p.Layout, from, identity(p.Name, p.Version, p.Release))
	if p.CutShort {
		fmt.Fprintf(w, "  first recovers what an earlier command has left\n")
	}
	if p.Adopt {
		fmt.Fprintf(w, "  adopts what is there as generation 0\n")
	}
	switch {
	case p.Same && len(p.Problems) == 0:
		fmt.Fprintf(w, "  nothing to do\n")
	case !p.Same:
		fmt.Fprintf(w, "  %s, %d the same, %s to copy\n", cmp.Or(tally(p.Changes), "no file to change"), p.Unchanged, size(p.CopyBytes))
	}
	writeChanges(w, p.Changes, list)
	writeLinks(w, p.Links)
	for _, warning := range p.Warnings {
		fmt.Fprintf(w, "  warning: %s\n", warning)
	}
	for _, problem := range p.Problems {
		fmt.Fprintf(w, "  refused: %s\n", problemText(problem))
	}
}

// writeLinks tells of what was broken before, which is no reason to refuse.
func writeLinks(w io.Writer, l *deploy.Links) {
	if l != nil && l.Before > 0 {
		fmt.Fprintf(w, "  %s broken before, and still: moult check says more\n", count(l.Before, "link"))
	}
}

// fewChanges is how many are listed unasked.
const fewChanges = 20

func writeChanges(w io.Writer, changes []deploy.Change, all bool) {
	for i, c := range changes {
		if i == fewChanges && !all && len(changes) > fewChanges+1 {
			fmt.Fprintf(w, "  … and %d more; -v lists them\n", len(changes)-i)
			return
		}
		fmt.Fprintf(w, "  %-7s  %s", c.Action, c.Path.Quoted())
		if c.Why != "" {
			fmt.Fprintf(w, "  (%s)", c.Why)
		}
		fmt.Fprintln(w)
	}
}

// tally counts the changes by what they do: 3 to add, 1 to remove.
func tally(changes []deploy.Change) string {
	counts := map[string]int{}
	for _, c := range changes {
		counts[c.Action]++
	}
	var parts []string
	for _, kind := range [][2]string{
		{"add", "to add"}, {"replace", "to replace"}, {"remove", "to remove"},
		{"keep", "changed here and kept"}, {"new", "to lay beside"},
	} {
		if n := counts[kind[0]]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, kind[1]))
		}
	}
	return strings.Join(parts, ", ")
}

func problemText(p deploy.Problem) string {
	text := p.Why
	if p.Path != "" {
		text = p.Path.Quoted() + ": " + text
	}
	if p.Hint != "" {
		text += " (" + p.Hint + ")"
	}
	return text
}

func writePaths(w io.Writer, title string, paths []deploy.Path) {
	if len(paths) == 0 {
		return
	}
	fmt.Fprintf(w, "  %s:\n", title)
	for _, p := range paths {
		fmt.Fprintf(w, "    %s\n", p.Quoted())
	}
}

// identity is what a release is called: ": app 2.1, release 3b0c12345678".
func identity(name, version, id string) string {
	text := strings.TrimSpace(name + " " + version)
	if id != "" {
		text = strings.TrimPrefix(text+", release "+short(id), ", ")
	}
	if text == "" {
		return ""
	}
	return ": " + text
}

// short is enough of a digest to tell releases apart.
func short(id string) string { return id[:min(len(id), 12)] }

func generation(n int) string { return fmt.Sprintf("generation %d", n) }

func numbers(ns []int) string {
	return strings.ReplaceAll(strings.Trim(fmt.Sprint(ns), "[]"), " ", ", ")
}

func recoveredText(r deploy.Recovered) string {
	text := r.Target.Quoted()
	if r.Name != "" {
		text += " (" + r.Name + ")"
	}
	switch {
	case r.Nothing:
		text += ": nothing to recover"
	case r.Finished == "links":
		text += fmt.Sprintf(": recovered: the links in the target are those of %s again", generation(r.Generation))
	case r.Finished == "forget":
		text += ": recovered: a forget that was cut short is done"
	case r.Finished != "":
		text += fmt.Sprintf(": recovered: a %s that was cut short is done, %s is live", r.Finished, generation(r.Generation))
	default:
		text += ": recovered"
	}
	if r.Discarded > 0 {
		text += "; cleaned away: " + count(r.Discarded, "unfinished stage")
	}
	if len(r.Conflicts) > 0 {
		text += "; changed by someone else, so kept: " + r.Conflicts[0].Quoted()
		if more := len(r.Conflicts) - 1; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
	}
	return text
}
