package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
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
	s.Method = "median; inotify tells once which name changes first and which last, then an onlooker on a processor of its own looks at the inodes of these two without a pause"
	other, why := lastCPU()
	if why == "" {
		why = missing("cc")
	}
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
		order, err := b.learn(ctx, w, set)
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		long := []time.Duration{0}
		if order.changes != 1 {
			if long, err = b.gazeAt(ctx, w, set, order, other); err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
		}
		s.window(w, order, long)
	}
	for _, w := range all {
		if w.name == ownedName {
			b.traceCommit(ctx, s, w, set)
		}
	}
	return nil
}

// learn switches once and says what changed, in which order.
func (b *bench) learn(ctx context.Context, w *switcher, set *set) (seen, error) {
	see, err := newWatch(w.public(w.p, set))
	if err != nil {
		return seen{}, err
	}
	_, err = w.turn(b, ctx, set)
	order := see.end()
	if err == nil && order.changes == 0 {
		err = errors.New("nothing changed")
	}
	return order, err
}

// gazeAt measures how long each of some switches takes to be visible.
func (b *bench) gazeAt(ctx context.Context, w *switcher, set *set, order seen, other int) (long []time.Duration, err error) {
	for range w.rounds {
		if err := b.settle(b.dir); err != nil {
			return nil, err
		}
		g, err := newGaze(other, order.first, order.last)
		if err != nil {
			return nil, err
		}
		err = without(other, func() error { _, err := w.turn(b, ctx, set); return err })
		d := g.end()
		if err != nil {
			return nil, err
		}
		if d > 0 {
			long = append(long, d)
		}
	}
	if len(long) == 0 {
		return nil, errors.New("the first and the last name did not change")
	}
	return long, nil
}

// window makes the row of one way.
func (s *Section) window(w *switcher, order seen, long []time.Duration) {
	ms := func(d time.Duration) float64 { return d.Seconds() * 1e3 }
	mid := median(long, ms)
	s.Rows = append(s.Rows, Row{Name: w.name, Value: mid, Note: fmt.Sprintf(
		"%s to %s; changes of public names: %d", number(ms(slices.Min(long))), number(ms(slices.Max(long))), order.changes)})
	switch w.name {
	case sharedName:
		s.check(w.name+", median", mid, 1.5, "ms")
	case ownedName:
		s.check(w.name+", changes of public names", float64(order.changes), 1, "")
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
