package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"moult.example/internal/deploy"
	"moult.example/internal/restart"
)

func writeRestartPlan(w io.Writer, p *restart.Plan) {
	if len(p.Steps) == 0 {
		fmt.Fprintf(w, "%s%s\n", ofTarget(p.Target), nothingText(p.Left))
	} else {
		fmt.Fprintf(w, "%s%s planned\n", ofTarget(p.Target), plural(len(p.Steps), "restart", "restarts"))
		table(w, func(row func(...any)) {
			for _, s := range p.Steps {
				row("  "+string(s.Method), stepText(s), processesText(s.Processes), whoseText(s, p.Target))
			}
		})
	}
	writeLeft(w, p.Left)
	writeBlind(w, p.Blind, p.Hidden)
}

// nothingText says that there is nothing to do, and whether that is good.
func nothingText(left []restart.Left) string {
	if len(left) > 0 {
		return "nothing that moult can restart"
	}
	return "nothing to restart"
}

// ofTarget begins a line about a target, or about all.
func ofTarget(target string) string {
	if target == "" {
		return ""
	}
	return deploy.Path(target).Quoted() + ": "
}

func stepText(s restart.Step) string {
	text := oneLine(s.Name)
	switch {
	case s.Method == restart.BySignal:
		text += " (" + unix.SignalName(unix.Signal(s.Signal)) + ")"
	case s.Reload:
		text += " (reload)"
	}
	return text
}

func whoseText(s restart.Step, target string) string {
	var notes []string
	switch {
	case s.Foreign && target == "":
		notes = append(notes, "not of a target")
	case s.Foreign:
		notes = append(notes, "not the target's own")
	}
	if s.Rule != "" {
		notes = append(notes, "by "+oneLine(s.Rule))
	}
	if len(notes) == 0 {
		return ""
	}
	return "(" + strings.Join(notes, "; ") + ")"
}

// fewProcesses is how many are listed of one step.
const fewProcesses = 5

func processesText(all []restart.Process) string {
	switch len(all) {
	case 0:
		return "which may be down"
	case 1:
		return "for process " + strconv.Itoa(all[0].PID)
	}
	var pids []string
	for _, p := range all[:min(len(all), fewProcesses)] {
		pids = append(pids, strconv.Itoa(p.PID))
	}
	text := fmt.Sprintf("for %d processes: %s", len(all), strings.Join(pids, " "))
	if len(all) > fewProcesses {
		text += " …"
	}
	return text
}

// writeLeft lists who is left alone. Those with the same reason share a line.
func writeLeft(w io.Writer, all []restart.Left) {
	if len(all) == 0 {
		return
	}
	var names []string
	pids := map[string][]string{}
	for _, l := range all {
		key := plain(l.Comm) + "\x00" + oneLine(l.Why)
		if pids[key] == nil {
			names = append(names, key)
		}
		pids[key] = append(pids[key], strconv.Itoa(l.PID))
	}
	fmt.Fprintf(w, "  left alone:\n")
	for _, key := range names {
		comm, why, _ := strings.Cut(key, "\x00")
		fmt.Fprintf(w, "    %s (%s): %s\n", comm, few(pids[key]), why)
	}
}

// few lists the first of many processes.
func few(pids []string) string {
	text := strings.Join(pids[:min(len(pids), fewProcesses)], " ")
	if len(pids) > fewProcesses {
		text += fmt.Sprintf(" and %d more", len(pids)-fewProcesses)
	}
	return text
}

// writeBlind says that there is more than could be seen.
func writeBlind(w io.Writer, unreadable []int, hidden bool) {
	who := ""
	if os.Geteuid() != 0 {
		who = ": only root sees all"
	}
	if hidden {
		fmt.Fprintf(w, "  some processes are hidden from us%s\n", who)
	} else if len(unreadable) > 0 {
		var list []string
		for _, pid := range unreadable {
			list = append(list, strconv.Itoa(pid))
		}
		fmt.Fprintf(w, "  %s could not be looked into (%s)%s\n", plural(len(list), "process", "processes"), few(list), who)
	}
}

func writeRestarts(w io.Writer, r *restart.Result) {
	switch done := r.Count(restart.Done) + r.Count(restart.Current); {
	case r.HealthOnly:
		fmt.Fprintf(w, "%sasked without a restart\n", ofTarget(r.Target))
	case len(r.Steps) == 0:
		fmt.Fprintf(w, "%s%s\n", ofTarget(r.Target), nothingText(r.Left))
	case done == len(r.Steps):
		fmt.Fprintf(w, "%s%s done\n", ofTarget(r.Target), plural(done, "restart", "restarts"))
	default:
		fmt.Fprintf(w, "%s%d of %s done\n", ofTarget(r.Target), done, plural(len(r.Steps), "restart", "restarts"))
	}
	table(w, func(row func(...any)) {
		for _, o := range r.Steps {
			row("  "+stateText[o.State], stepText(o.Step), outcomeText(o))
		}
	})
	for _, h := range r.Health {
		if h.OK {
			fmt.Fprintf(w, "  well: %s (%s)\n", oneLine(h.Probe), seconds(h.After))
		} else {
			fmt.Fprintf(w, "  not well: %s: %s (%s)\n", oneLine(h.Probe), oneLine(h.Error), plural(h.Tries, "try", "tries"))
		}
	}
	writeLeft(w, r.Left)
	if len(r.Remaining) > 0 {
		fmt.Fprintf(w, "  %s still stale\n", plural(len(r.Remaining), "process is", "processes are"))
	}
	writeBlind(w, r.Blind, r.Hidden)
}

var stateText = map[restart.State]string{
	restart.Done: "done", restart.Current: "done", restart.StillOld: "STALE", restart.Failed: "FAILED", restart.NotTried: "not tried",
}

func outcomeText(o restart.Outcome) string {
	switch {
	case o.Error != "":
		return oneLine(strings.TrimPrefix(o.Error, o.Name+": ")) // the name stands before it
	case o.State == restart.Current:
		return "nothing was left to do"
	case o.State == restart.Done && o.MainPID > 0:
		return fmt.Sprintf("process %d, in %s", o.MainPID, seconds(o.Seconds))
	case o.State == restart.Done:
		return "in " + seconds(o.Seconds)
	}
	return ""
}

func seconds(s float64) string { return fmt.Sprintf("%.1f s", s) }
