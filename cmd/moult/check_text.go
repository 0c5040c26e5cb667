package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"moult.example/internal/deploy"
)

// fewFindings are listed unasked: a library that is gone breaks hundreds.
const fewFindings = 30

// writeLinkReport prints what moult check has found: what it would break, then
// warnings; notes and what was there before with verbose, else their number.
func writeLinkReport(w io.Writer, r *deploy.LinkReport, verbose bool) {
	counts, left := map[string]int{}, 0
	searched := map[deploy.Path]string{}
	for i := range r.Findings {
		f := &r.Findings[i]
		kind := string(f.Severity)
		if f.Before {
			kind = "before"
		}
		counts[kind]++
		if !verbose && (f.Before || f.Severity == "note") {
			continue
		}
		if !verbose && counts["break"]+counts["warning"] > fewFindings {
			left++
			continue
		}
		writeLinkFinding(w, f, searched)
	}
	if left > 0 {
		fmt.Fprintf(w, "… and %d more: --verbose lists them\n", left)
	}
	for i := range r.TypeChanges {
		t := &r.TypeChanges[i]
		counts[string(t.Severity)]++
		fmt.Fprintf(w, "%-8s %s: %s: %s\n", t.Severity, t.Path.Quoted(), oneLine(t.What), oneLine(t.Why))
		fmt.Fprintf(w, "         by way of %s\n", t.Symbol.Quoted())
	}
	for i := range r.Types {
		writeLinkTypes(w, &r.Types[i], verbose, counts)
	}
	for _, t := range r.Twice {
		fmt.Fprintf(w, "twice    %s: %s\n", t.Path.Quoted(), t.Why)
	}
	if verbose {
		for _, p := range r.Plugins {
			learned := ""
			if p.Learned {
				learned = ", as a process has"
			}
			fmt.Fprintf(w, "plugin   %s: loaded by %s%s\n", p.Path.Quoted(), quotedList(p.Hosts), learned)
		}
	}
	for _, u := range r.Unread {
		fmt.Fprintf(w, "unread   %s: %s\n", u.Path.Quoted(), oneLine(u.Why))
	}
	fmt.Fprintf(w, "%s and %s judged", count(r.Programs, "program"), libraries(r.Libraries))
	if r.Outside > 0 {
		fmt.Fprintf(w, ", and %d of this host that use them", r.Outside)
	}
	if r.Foreign > 0 {
		fmt.Fprintf(w, "; %d for other machines not", r.Foreign)
	}
	fmt.Fprintf(w, ": %s, %s", broken(counts["break"], len(r.Unread)), count(counts["warning"], "warning"))
	if n := counts["note"]; n > 0 {
		fmt.Fprintf(w, ", %s", count(n, "note"))
	}
	if n := counts["before"]; n > 0 {
		fmt.Fprintf(w, "; %d as before", n)
	}
	if r.More > 0 {
		fmt.Fprintf(w, "; %d more are not listed", r.More)
	}
	fmt.Fprintln(w)
}

// writeLinkTypes tells what is not said by the changes themselves.
func writeLinkTypes(w io.Writer, t *deploy.LinkTypes, verbose bool, counts map[string]int) {
	switch {
	case t.ABIDiff == "incompatible":
		counts["break"]++
		fmt.Fprintf(w, "break    %s: abidiff: incompatible\n", t.Path.Quoted())
	case t.ABIDiff != "" && t.ABIDiff != "compatible":
		fmt.Fprintf(w, "note     %s: abidiff: %s\n", t.Path.Quoted(), oneLine(t.ABIDiff))
	}
	if !verbose {
		return
	}
	for line := range strings.Lines(t.Report) {
		text := strings.TrimLeft(line, " ") // what is deeper says of what the rest is
		fmt.Fprintf(w, "         %s%s\n", line[:len(line)-len(text)], oneLine(text))
	}
	if t.Why != "" {
		fmt.Fprintf(w, "note     %s: types not compared: %s\n", t.Path.Quoted(), oneLine(t.Why))
	} else {
		fmt.Fprintf(w, "note     %s: types of %s compared\n", t.Path.Quoted(), count(t.Compared, "symbol"))
	}
}

func libraries(n int) string {
	if n == 1 {
		return "1 library"
	}
	return fmt.Sprintf("%d libraries", n)
}

// broken does not say of what could not be read that it is whole.
func broken(n, unread int) string {
	text := fmt.Sprintf("%d broken", n)
	switch {
	case unread == 0 && n == 0:
		return "nothing broken"
	case unread > 0 && n == 0:
		text = "nothing broken in the rest"
	}
	if unread > 0 {
		text = count(unread, "file") + " could not be read, " + text
	}
	return text
}

// writeLinkFinding prints one finding. Where it was looked for is the same for
// all symbols of an object, and is said once: searched has what was said.
func writeLinkFinding(w io.Writer, f *deploy.LinkFinding, searched map[deploy.Path]string) {
	kind := string(f.Severity)
	if f.Before {
		kind = "before"
	}
	fmt.Fprintf(w, "%-8s %s: %s\n", kind, f.Path.Quoted(), oneLine(f.Why))
	more := func(what, text string) {
		if text != "" {
			fmt.Fprintf(w, "         %s %s\n", what, text)
		}
	}
	if f.Name != "" && f.Symbol != "" && f.Symbol != f.Name {
		more("symbol", f.Symbol.Quoted())
	}
	if f.Found != "" {
		more("found", f.Found.Quoted())
	}
	if text := quotedList(f.Searched); searched[f.Path] != text {
		more("looked in", text)
		searched[f.Path] = text
	}
	var near []string
	for _, n := range f.Near {
		near = append(near, oneLine(string(n)))
	}
	more("near", strings.Join(near, ", "))
	in := slices.DeleteFunc(slices.Clone(f.Programs), func(p deploy.Path) bool { return p == f.Path })
	text := quotedList(in)
	if f.More > 0 {
		text += fmt.Sprintf(" and %d more", f.More)
	}
	more("in", text)
}

// quotedList is names for people: the first few.
func quotedList(names []deploy.Path) string {
	const show = 6
	var parts []string
	for i, n := range names {
		if i == show {
			parts = append(parts, fmt.Sprintf("… (%d more)", len(names)-show))
			break
		}
		parts = append(parts, n.Quoted())
	}
	return strings.Join(parts, ", ")
}
