package main

import (
	"fmt"
	"path"
	"strings"
	"time"
	"unicode/utf8"

	"moult.example/internal/restart"
	"moult.example/internal/stale"
)

// What a process runs, and what it would get.

// psChange says it of one file: "generation 1 → 2 (app 1.0 → 2.0)", or the
// build ids, or in words what is the matter.
func psChange(f stale.File) string {
	switch {
	case f.Verdict == stale.Corrupt || f.Verdict == stale.None:
		return f.Why
	case f.Verdict == stale.Same:
		return "another file of the same bytes"
	case f.Runs.Known() && f.Gets.Known() && f.Runs.Target == f.Gets.Target:
		return originChange(f.Runs, f.Gets)
	case f.Runs.Known() || f.Gets.Known():
		return originText(f.Runs, f.RunsBuildID) + " → " + originText(f.Gets, f.GetsBuildID)
	case f.RunsBuildID != "" && f.Verdict == stale.Gone:
		return "build " + buildID(f.RunsBuildID) + " → nothing"
	case f.RunsBuildID != "" && f.GetsBuildID != "" && f.RunsBuildID != f.GetsBuildID:
		return "build " + buildID(f.RunsBuildID) + " → " + buildID(f.GetsBuildID)
	}
	return f.Why
}

func originChange(runs, gets stale.Origin) string {
	text := fmt.Sprintf("%s generation %d → %d", plain(runs.Target), runs.Generation, gets.Generation)
	if runs.Generation == gets.Generation {
		text = fmt.Sprintf("%s generation %d", plain(runs.Target), runs.Generation)
	}
	was, is := oneLine(strings.TrimSpace(runs.Product+" "+runs.Version)), oneLine(strings.TrimSpace(gets.Product+" "+gets.Version))
	switch {
	case was == is && was != "":
		text += " (" + was + ")"
	case runs.Product == gets.Product && runs.Version != "" && gets.Version != "":
		text += fmt.Sprintf(" (%s → %s)", was, oneLine(gets.Version))
	case was != "" || is != "":
		text += fmt.Sprintf(" (%s → %s)", orDash(was), orDash(is))
	}
	return text
}

func originText(o stale.Origin, id string) string {
	switch {
	case o.Known():
		text := fmt.Sprintf("%s generation %d", plain(o.Target), o.Generation)
		if named := oneLine(strings.TrimSpace(o.Product + " " + o.Version)); named != "" {
			text += " (" + named + ")"
		}
		return text
	case id != "":
		return "build " + buildID(id)
	}
	return "nothing of a release"
}

// buildID is enough of one to tell builds apart.
func buildID(id string) string { return id[:min(len(id), 8)] }

// psPart is files of a process of which the same is to be told.
type psPart struct {
	verdict stale.Verdict
	change  string
	target  string // if all are of one release
	files   []stale.File
}

// psParts puts the files of one release together.
func psParts(p stale.Process) []psPart {
	var parts []psPart
	for _, f := range p.Files {
		if f.Verdict == stale.None {
			continue
		}
		part := psPart{verdict: f.Verdict, change: psChange(f), files: []stale.File{f}}
		if f.Runs.Known() && f.Verdict != stale.Corrupt {
			part.target = f.Runs.Target
		}
		merged := false
		for i := range parts {
			if q := &parts[i]; part.target != "" && q.target == part.target && q.verdict == part.verdict && q.change == part.change {
				q.files = append(q.files, f)
				merged = true
			}
		}
		if !merged {
			parts = append(parts, part)
		}
	}
	return parts
}

// files are the lines below a process, or below several that have the same.
func (v psView) files(p stale.Process, now time.Time) []string {
	if v.verbose {
		return v.allFiles(p, now)
	}
	var out []string
	parts, shown, all := psParts(p), 0, 0
	for _, part := range parts {
		all += len(part.files)
	}
	few := fewFiles
	if all == few+1 {
		few = all // instead of a line that says that there is one more
	}
	for _, part := range parts {
		if shown >= few {
			break
		}
		word := ""
		if part.verdict != p.Verdict() {
			word = strings.ToUpper(string(part.verdict)) + " "
		}
		if part.target == "" {
			shown++
			out = append(out, v.fileLine(word+publicName(part.files[0].Path), part.change)...)
			continue
		}
		var names []string
		for _, f := range part.files[:min(len(part.files), few-shown)] {
			names = append(names, plain(nameInRelease(part.target, f.Path)))
		}
		shown += len(names)
		out = append(out, v.fileLine(word+part.change+":", strings.Join(names, ", "))...)
	}
	if all > shown {
		out = append(out, fmt.Sprintf("%s… and %d more files; -v lists them", psIndent, all-shown))
	}
	return out
}

// nameInRelease is what a release calls a file of a target.
func nameInRelease(target, file string) string {
	if name, below := strings.CutPrefix(path.Clean(restart.PublicPath(file)), strings.TrimSuffix(target, "/")+"/"); below {
		return name
	}
	return file
}

// publicName is a path before people: what the loader of a program of an owned
// target has found is T/.moult/live/bin/../lib/x.
func publicName(file string) string { return plain(restart.PublicPath(file)) }

// fileLine is a name and what is to be told of it, on two lines if one is too
// short.
func (v psView) fileLine(name, text string) []string {
	line := psIndent + name + "  " + text
	if text == "" || v.width == 0 || utf8.RuneCountInString(line) <= v.width {
		return []string{strings.TrimRight(line, " ")}
	}
	return append([]string{psIndent + name}, v.wrap(psIndent+"  ", text)...)
}

// allFiles is everything that is known of a process.
func (v psView) allFiles(p stale.Process, now time.Time) []string {
	var out []string
	say := func(indent, text string) { out = append(out, v.wrap(psIndent+indent, text)...) }
	for _, f := range p.Files {
		if f.Verdict == stale.None {
			continue
		}
		say("", fmt.Sprintf("%s %s: %s", strings.ToUpper(string(f.Verdict)), f.Kind, publicName(f.Path)))
		if change := psChange(f); change != f.Why {
			say("  ", change)
		}
		if f.Why != "" {
			say("  ", f.Why+sinceText(now, f.Since))
		}
		if f.Runs.Release != f.Gets.Release {
			say("  ", "release "+orDash(short(f.Runs.Release))+" → "+orDash(short(f.Gets.Release)))
		}
		if f.Runs.Known() && f.RunsBuildID != f.GetsBuildID {
			say("  ", "build "+orDash(buildID(f.RunsBuildID))+" → "+orDash(buildID(f.GetsBuildID)))
		}
		if f.Mapped != f.Path {
			say("  ", "the kernel calls it "+plain(f.Mapped))
		}
		for _, note := range f.Notes {
			say("  ", note)
		}
	}
	return out
}

func sinceText(now, since time.Time) string {
	if since.IsZero() {
		return ""
	}
	return ", " + ago(now, since)
}

// suspects are what cannot be proven: notes on files without a verdict, and
// hints.
func (v psView) suspects(found psFound) []string {
	var rows [][]string
	var of []stale.Process
	for _, p := range append(append([]stale.Process{}, found.suspect...), found.old...) {
		if len(suspicions(p, found.at)) == 0 {
			continue
		}
		rows = append(rows, []string{fmt.Sprint(p.PID), cut(plain(userName(p.UID, p.User)), 16), ago(found.at, p.Start), where(p.Unit, p.Container), v.command(p.Command, p.Comm)})
		of = append(of, p)
	}
	if len(rows) == 0 {
		return nil
	}
	out := []string{"", v.styled("Perhaps old, which cannot be proven:", styleHead)}
	if len(found.old) == 0 {
		out = out[1:]
	}
	more := 0
	if !v.verbose && len(rows) > fewOthers+1 {
		rows, more = rows[:fewOthers], len(rows)-fewOthers
	}
	layout := v.layOut(append([][]string{{"PID", "USER", "STARTED", "UNIT", "COMMAND"}}, rows...))
	for i := range rows {
		out = append(out, layout[i+1])
		texts := suspicions(of[i], found.at)
		for j, text := range texts {
			if j == fewFiles && !v.verbose && len(texts) > fewFiles+1 {
				out = append(out, fmt.Sprintf("%s… and %d more; -v lists them", psIndent, len(texts)-j))
				break
			}
			out = append(out, v.wrap(psIndent, text)...)
		}
	}
	if more > 0 {
		out = append(out, fmt.Sprintf("%s… and %d more processes; -v lists them", psIndent, more))
	}
	return out
}

func suspicions(p stale.Process, now time.Time) (texts []string) {
	for _, f := range p.Files {
		if f.Verdict != stale.None {
			continue
		}
		for _, note := range f.Notes {
			texts = append(texts, publicName(f.Path)+": "+note+sinceText(now, f.Since))
		}
	}
	for _, h := range p.Hints {
		texts = append(texts, publicName(h.Path)+": "+h.Why+sinceText(now, h.Since))
	}
	return texts
}
