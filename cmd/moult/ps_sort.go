package main

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"moult.example/internal/stale"
)

// psKey is what a process is sorted by. It is made once for each: what is
// compared a thousand times should not be.
type psKey struct {
	*stale.Process
	severity int
	since    time.Time
	files    string
}

// psOrders are the orders of --sort.
var psOrders = map[string]func(a, b *psKey) int{
	"verdict": func(a, b *psKey) int {
		return cmp.Or(cmp.Compare(b.severity, a.severity), cmp.Compare(a.files, b.files), byPID(a, b))
	},
	"pid":   byPID,
	"user":  func(a, b *psKey) int { return cmp.Or(cmp.Compare(a.User, b.User), byPID(a, b)) },
	"start": func(a, b *psKey) int { return cmp.Or(a.Start.Compare(b.Start), byPID(a, b)) },
	"since": func(a, b *psKey) int { return cmp.Or(a.since.Compare(b.since), byPID(a, b)) },
	"unit":  func(a, b *psKey) int { return cmp.Or(cmp.Compare(a.Unit.Name, b.Unit.Name), byPID(a, b)) },
}

func byPID(a, b *psKey) int { return cmp.Compare(a.PID, b.PID) }

// psSorted returns the processes in one of the orders.
func psSorted(processes []stale.Process, order string) []stale.Process {
	keys := make([]psKey, len(processes))
	list := make([]*psKey, len(processes))
	for i := range processes {
		p := &processes[i]
		keys[i] = psKey{Process: p, severity: p.Verdict().Severity(), since: psSince(*p)}
		if order == "verdict" {
			keys[i].files = psFilesKey(*p)
		}
		list[i] = &keys[i]
	}
	slices.SortStableFunc(list, psOrders[order])
	sorted := make([]stale.Process, len(list))
	for i, k := range list {
		sorted[i] = *k.Process
	}
	return sorted
}

// psFilesKey is the same for processes of which the same is to be told.
func psFilesKey(p stale.Process) string {
	var b []byte
	for _, f := range p.Files {
		for _, text := range []string{string(f.Verdict), f.Path, psChange(f)} {
			b = append(append(b, text...), 0)
		}
		for _, n := range []uint64{f.Has.Dev, f.Has.Ino, f.Next.Dev, f.Next.Ino} {
			b = append(strconv.AppendUint(b, n, 10), 0)
		}
	}
	return string(b)
}

// psSince is since when a process runs old code, as far as known.
func psSince(p stale.Process) (since time.Time) {
	for _, f := range p.Files {
		if f.Verdict != stale.None && !f.Since.IsZero() && (since.IsZero() || f.Since.Before(since)) {
			since = f.Since
		}
	}
	return since
}
