package deploy

import (
	"context"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"moult.example/internal/deploy/hostfacts"
	"moult.example/internal/stale"
)

// viewers finds, for each of these generations, the processes of other mount
// namespaces that see it by a mount of its own, as [Held.Enter] shows it, or as a
// container that was given a path through the live link, and those where something
// is mounted on a name of it: they use it also while they have nothing of it open,
// and to remove that name would take their mount away. What may not be read of a process makes it an
// unreadable one for [stale.Users], which is asked as well.
//
// With as, it is about one generation that has been renamed to that just now.
func (s *state) viewers(ns []int, as ...string) (map[int][]int, error) {
	at, err := s.insides(ns, as...)
	if err != nil {
		return nil, err
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
			shown = append(at.shownBy(mounts), at.coveredBy(mounts)...)
			known[space+root] = shown
		}
		for _, n := range shown {
			users[n] = append(users[n], pid)
		}
	}
	return users, nil
}

// insides are the places of generations in the file system that they are on,
// which has many names.
type insides struct {
	dev string
	of  map[int][]string
}

func (s *state) insides(ns []int, as ...string) (at insides, err error) {
	mounts, err := hostfacts.Mounts()
	if err != nil {
		return at, err
	}
	at.of = make(map[int][]string, len(ns))
	for _, n := range ns {
		for _, name := range append([]string{genDir(n)}, as...) {
			inside, m, ok := hostfacts.Inside(s.abs(name), mounts)
			if ok {
				at.dev, at.of[n] = m.Dev, append(at.of[n], inside)
			}
		}
	}
	return at, nil
}

// shownBy are the generations of which these mounts show all or a part.
func (at insides) shownBy(mounts []hostfacts.Mount) (ns []int) {
	for _, m := range mounts {
		if m.Dev == at.dev {
			ns = at.holding(ns, m.Root)
		}
	}
	return ns
}

// coveredBy are the generations in which something is mounted, under whatever
// name: a mount is on a place of the file system that its parent shows.
func (at insides) coveredBy(mounts []hostfacts.Mount) (ns []int) {
	byID := make(map[uint64]*hostfacts.Mount, len(mounts))
	for i := range mounts {
		byID[mounts[i].ID] = &mounts[i]
	}
	for _, m := range mounts {
		on := byID[m.Parent]
		if on == nil || on.Dev != at.dev {
			continue
		}
		if rest, ok := strings.CutPrefix(m.Point, strings.TrimSuffix(on.Point, "/")); ok {
			ns = at.holding(ns, path.Join(on.Root, rest))
		}
	}
	return ns
}

// holding adds the generations in which a place of the file system is.
func (at insides) holding(ns []int, place string) []int {
	for n, names := range at.of {
		in := slices.ContainsFunc(names, func(inside string) bool {
			return place == inside || strings.HasPrefix(place, inside+"/")
		})
		if in && !slices.Contains(ns, n) {
			ns = append(ns, n)
		}
	}
	return ns
}

// mounted are those of these generations that a mount of our own namespace shows
// under another name, or in which something is mounted under another name. What is
// mounted under their own, their inventory tells.
func (s *state) mounted(ns []int, as ...string) ([]int, error) {
	at, err := s.insides(ns, as...)
	if err != nil {
		return nil, err
	}
	mounts, err := hostfacts.Mounts()
	if err != nil {
		return nil, err
	}
	elsewhere := slices.DeleteFunc(at.coveredBy(mounts), func(n int) bool {
		return slices.ContainsFunc(mounts, func(m hostfacts.Mount) bool { return strings.HasPrefix(m.Point, s.abs(genDir(n))+"/") })
	})
	return append(at.shownBy(mounts), elsewhere...), nil
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
		inodes, err := s.inodes(ctx, n)
		if err != nil {
			return err
		}
		report, err := stale.Users(ctx, stale.Options{Proc: s.t.opts.Proc}, []stale.Tree{{Dir: s.abs(genDir(n)), Inodes: inodes}})
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
