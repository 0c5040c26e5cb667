package main

import (
	"context"
	"slices"

	"moult.example/internal/stale"
)

// psEarlier is the processes that run what was there before a file, which are no
// users of the file itself.
type psEarlier struct {
	pids   []int
	runs   stale.Origin // of the first
	gets   stale.Origin
	differ bool // not all run an earlier generation
}

// psOlder finds them for each file: whoever asks who uses a file that was
// replaced wants to know of those, too, before believing that nobody does.
func (a *app) psOlder(ctx context.Context, f *psFlags, reports []*stale.FileReport) ([]psEarlier, error) {
	all := make([]psEarlier, len(reports))
	found, err := a.psLook(ctx, f)
	if err != nil {
		return nil, err
	}
	for i, r := range reports {
		for _, p := range found.old {
			at := slices.IndexFunc(p.Files, func(x stale.File) bool {
				return x.Next == r.ID && x.Has != r.ID && x.Verdict.Severity() >= stale.Stale.Severity()
			})
			if at < 0 {
				continue
			}
			x, old := p.Files[at], &all[i]
			if len(old.pids) == 0 {
				old.runs, old.gets = x.Runs, x.Gets
			}
			old.pids = append(old.pids, p.PID)
			if x.Runs.Target != x.Gets.Target || x.Runs.Generation >= x.Gets.Generation {
				old.differ = true
			}
		}
		slices.Sort(all[i].pids)
	}
	return all, nil
}

func (o psEarlier) text() string {
	n := len(o.pids)
	switch {
	case !o.runs.Known() || o.runs.Target != o.gets.Target:
		return plural(n, "process still runs", "processes still run") + " what was there before: moult ps"
	case o.differ:
		return plural(n, "process runs", "processes run") + " another generation of it: moult ps " + plain(o.gets.Target)
	}
	return plural(n, "process runs", "processes run") + " an earlier generation of it: moult ps " + plain(o.gets.Target)
}
