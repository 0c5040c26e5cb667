package main

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// switchers are the ways to replace the set where it lies, each in a place with
// the first release in it. rounds is how often each is to be used.
type switcher struct {
	*way
	p      *place
	rounds int
	public func(p *place, s *set) []string // the names whose changes people see
}

// The owned layout and generations have one public name, the link.
func allFiles(live func(*place) string) func(*place, *set) []string {
	return func(p *place, s *set) []string {
		var names []string
		for _, name := range s.names {
			names = append(names, filepath.Join(live(p), name))
		}
		return names
	}
}

func ownedNames(p *place, s *set) []string {
	names := []string{filepath.Join(liveTarget(p), ".moult/live")}
	for _, top := range []string{"bin", "lib", "share"} {
		names = append(names, filepath.Join(liveTarget(p), top))
	}
	return names
}

const (
	sharedName = "moult apply, shared"
	ownedName  = "moult apply, owned"
)

func (b *bench) switchers(ctx context.Context, s *Section, set *set, rounds, slowRounds int) ([]*switcher, error) {
	all := []*switcher{
		{way: moultWay(sharedName, "shared"), rounds: rounds, public: allFiles(liveTarget)},
		{way: moultWay(ownedName, "owned"), rounds: rounds, public: ownedNames},
		{way: dpkgWay(), rounds: slowRounds, public: allFiles(liveInstalled)},
		{way: rsyncWay("rsync -a --delay-updates", "--delay-updates"), rounds: rounds, public: allFiles(liveTarget)},
		{way: rsyncWay("rsync -a"), rounds: rounds, public: allFiles(liveTarget)},
	}
	all = slices.DeleteFunc(all, func(w *switcher) bool { return !w.here(s) })
	for _, w := range all {
		var err error
		if w.p, err = b.newPlace("switch"); err != nil {
			return nil, err
		}
		for n, dir := range set.dirs {
			if w.pack != nil {
				if err := w.pack(b, ctx, dir, w.p); err != nil {
					return nil, fmt.Errorf("%s: %w", w.name, err)
				}
			}
			if n == 0 {
				if _, err := w.onto(b, ctx, dir, w.p); err != nil {
					return nil, fmt.Errorf("%s: %w", w.name, err)
				}
			}
		}
	}
	return all, nil
}

// turn switches to the other release.
func (w *switcher) turn(b *bench, ctx context.Context, set *set) (usage, error) {
	return w.onto(b, ctx, set.dirs[w.p.n%2], w.p)
}

// measureWindow: from the first to the last change that people can see.
func (b *bench) measureWindow(ctx context.Context, s *Section) error {
	s.Title = fmt.Sprintf("from the first to the last visible change, a set of %d files", setFiles)
	s.Unit = "ms"
	s.Method = "median of what an onlooker on the other processor reads from inotify; changes of public names"
	if why := missing("cc"); why != "" {
		s.skip("all", why)
		return nil
	}
	mine, other, why := twoCPUs()
	if why != "" {
		s.skip("all", why)
		return nil
	}
	set, err := b.theSet(ctx)
	if err != nil {
		return err
	}
	all, err := b.switchers(ctx, s, set, 5*b.opt.rounds, 2*b.opt.rounds)
	if err != nil {
		return err
	}
	for _, w := range all {
		var spans []span
		for range w.rounds {
			if err := b.settle(b.dir); err != nil {
				return err
			}
			see, err := newWatch(other, w.public(w.p, set))
			if err != nil {
				return err
			}
			err = onCPU(mine, func() error { _, err := w.turn(b, ctx, set); return err })
			seen := see.end()
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			spans = append(spans, seen)
		}
		s.window(w, spans)
	}
	for _, w := range all {
		if w.name == ownedName {
			b.traceCommit(ctx, s, w, set)
		}
	}
	return nil
}

// window makes the row of one way.
func (s *Section) window(w *switcher, spans []span) {
	ms := func(s span) float64 { return s.long.Seconds() * 1e3 }
	changes := median(spans, func(s span) float64 { return float64(s.changes) })
	most := ms(slices.MaxFunc(spans, func(a, b span) int { return int(a.long - b.long) }))
	long := median(spans, ms)
	s.Rows = append(s.Rows, Row{Name: w.name, Value: long, Note: fmt.Sprintf("at most %s; %.0f changes; %d times", number(most), changes, len(spans))})
	switch w.name {
	case sharedName:
		s.check(w.name+", median", long, 1.5, "ms")
	case ownedName:
		s.check(w.name+", changes of a public name", changes, 1, "")
	}
}

// traceCommit runs an owned apply under strace and names what is renamed between
// the journal and its end. Of that, live alone is what people can see.
func (b *bench) traceCommit(ctx context.Context, s *Section, w *switcher, set *set) {
	const what = "strace of an owned commit"
	if why := missing("strace"); why != "" {
		s.skip(what, why)
		return
	}
	log := filepath.Join(b.dir, "strace")
	_, err := b.run(ctx, []string{
		"strace", "-f", "-o", log, "-e", "trace=rename,renameat,renameat2,unlink,unlinkat",
		b.moult, "apply", "--quiet", set.dirs[w.p.n%2], liveTarget(w.p),
	})
	w.p.n++
	text, err2 := os.ReadFile(log)
	if err != nil || err2 != nil {
		s.skip(what, "strace does not work here")
		return
	}
	names := renamesOfCommit(string(text))
	live := 0
	for _, name := range names {
		if name == "live" {
			live++
		}
	}
	s.check(ownedName+", renames to a public name by strace (all between journal and done: "+strings.Join(names, ", ")+")", float64(live), 1, "")
}

var renameTo = regexp.MustCompile(`rename(?:at2?)?\(.*"([^"]*)"[^"]*$`)

// renamesOfCommit are the names that were renamed to after the rename that puts
// the journal in its place, up to the removal of the journal.
func renamesOfCommit(log string) (names []string) {
	decided := false
	for line := range strings.Lines(log) {
		if strings.Contains(line, "= -1 ") {
			continue
		}
		if m := renameTo.FindStringSubmatch(line); m != nil {
			if path.Base(m[1]) == "journal" {
				decided, names = true, nil
			} else if decided {
				names = append(names, path.Base(m[1]))
			}
		} else if decided && strings.Contains(line, "unlink") && strings.Contains(line, `journal"`) {
			break
		}
	}
	return names
}
