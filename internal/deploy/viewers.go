package deploy

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"

	"moult.example/internal/deploy/hostfacts"
	"moult.example/internal/stale"
)

// viewers finds, for each of these generations, the processes that see it as
// [Held.Enter] shows it, by their mounts: they use it also while they have
// nothing of it open. What may not be read of a process makes it an unreadable
// one for [stale.Users], which is asked as well.
func (s *state) viewers(ns []int) (map[int][]int, error) {
	at := make(map[string]int, len(ns))
	for _, n := range ns {
		at[s.abs(genDir(n))] = n
	}
	proc := s.t.opts.Proc
	own, err := os.Readlink(proc + "/self/ns/mnt")
	if err != nil {
		return nil, nil // a recorded tree
	}
	dirs, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	users := map[int][]int{}
	known := map[string][]int{} // generations that a namespace shows
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		p := proc + "/" + d.Name()
		space, err := os.Readlink(p + "/ns/mnt")
		if err != nil || space == own {
			continue
		}
		root, err := os.Readlink(p + "/root")
		if err != nil {
			continue
		}
		shown, ok := known[space+root]
		if !ok {
			mounts, err := hostfacts.MountsIn(p + "/mountinfo")
			if err != nil {
				continue // it has ended
			}
			for _, m := range mounts {
				if n, ok := at[m.Point]; ok && !slices.Contains(shown, n) {
					shown = append(shown, n)
				}
			}
			known[space+root] = shown
		}
		for _, n := range shown {
			users[n] = append(users[n], pid)
		}
	}
	return users, nil
}

// refuseUsedStage refuses to drop a generation that was staged, and tried with
// [Target.Hold] before its commit, while somebody still runs from it.
func (s *state) refuseUsedStage(ctx context.Context) error {
	if s.layout == Shared {
		return nil
	}
	all, err := s.generations()
	if err != nil {
		return err
	}
	for _, n := range all {
		if s.committed(n) {
			continue
		}
		report, err := stale.Users(ctx, stale.Options{Proc: s.t.opts.Proc}, []stale.Tree{{Dir: s.abs(genDir(n))}})
		if err != nil {
			return err
		}
		views, err := s.viewers([]int{n})
		if err != nil {
			return err
		}
		pids := views[n]
		for _, u := range report.Users {
			pids = append(pids, u.PID)
		}
		if len(pids) > 0 {
			return refuse("", fmt.Sprintf("generation %d is staged, and process %d runs from it: a new stage would drop it", n, pids[0]),
				fmt.Sprintf("end it, or moult commit %s first", s.t.path))
		}
	}
	return nil
}
