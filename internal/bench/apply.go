package main

import (
	"context"
	"fmt"
	"path/filepath"
)

// theSource is the tree of the targets, made once.
func (b *bench) theSource() (*tree, error) {
	if b.source != nil {
		return b.source, nil
	}
	b.say("make the tree")
	t, err := makeTree(filepath.Join(b.dir, "source"), shape{
		files: b.scaled(treeFiles, 50), dirs: b.scaled(treeDirs, 10), bytes: int64(treeBytes * b.opt.scale), spread: 2.2, seed: 1,
	})
	b.source = t
	return t, err
}

func (t *tree) String() string {
	return fmt.Sprintf("%d files in %d directories, %.0f MB", len(t.files), t.dirs, float64(t.bytes)/1e6)
}

// slow are the rounds of the peers that take ten times as long and are there
// for comparison only.
func slow(rounds int) int { return min(rounds, 2) }

// measureFirst: a tree comes to a place where nothing is.
func (b *bench) measureFirst(ctx context.Context, s *Section) error {
	source, err := b.theSource()
	if err != nil {
		return err
	}
	s.Title = "first apply, " + source.String()
	moult := moultWay("moult apply", "")
	var all []*entrant
	for _, w := range []*way{moult, rsyncWay("rsync -a"), copyWay(), ostreeWay(), dpkgWay()} {
		if !w.here(s) {
			continue
		}
		e := b.first(w, source)
		if w.pack != nil {
			e.rounds = slow(b.opt.rounds)
		}
		all = append(all, e)
	}
	if err := b.turns(ctx, b.opt.rounds, nil, all...); err != nil {
		return err
	}
	s.compare("rsync -a", all...)
	s.hold(moult.name, "rsync -a", 0.55, all...)
	s.hold(moult.name, "cp -a + sync -f", 1.1, all...)
	s.memory(moult.name, all, 64, source)
	return nil
}

// first is a way into a new place in each turn. The last one stays, for update
// and nothing to go on with.
func (b *bench) first(w *way, source *tree) *entrant {
	var p *place
	return &entrant{
		name: w.name,
		before: func(ctx context.Context) (err error) {
			if p != nil {
				if err := b.discard(p.dir); err != nil {
					return err
				}
			}
			if p, err = b.newPlace("first"); err != nil {
				return err
			}
			if w.pack != nil {
				if err := w.pack(b, ctx, source.dir, p); err != nil {
					return err
				}
			}
			return b.settle(b.dir, source.dir)
		},
		run: func(ctx context.Context) (usage, error) { return w.onto(b, ctx, source.dir, p) },
		after: func(context.Context) error {
			b.places[w.name] = p
			return arrived(w, source, p, source.files)
		},
	}
}

// memory holds the greatest resident set of an entrant to a number of megabytes.
func (s *Section) memory(name string, all []*entrant, atMost float64, source *tree) {
	for _, e := range all {
		if e.name != name || len(e.samples) == 0 {
			continue
		}
		var most int64
		for _, u := range e.samples {
			most = max(most, u.rss)
		}
		s.check(fmt.Sprintf("%s, resident, %d files", name, len(source.files)), float64(most)/1e6, atMost, "MB")
	}
}

// standing is the place where a way has delivered the source at least once.
func (b *bench) standing(ctx context.Context, w *way, source *tree) (*place, error) {
	if p := b.places[w.name]; p != nil {
		return p, nil
	}
	p, err := b.newPlace("standing")
	if err != nil {
		return nil, err
	}
	if w.pack != nil {
		if err := w.pack(b, ctx, source.dir, p); err != nil {
			return nil, err
		}
	}
	if _, err := w.onto(b, ctx, source.dir, p); err != nil {
		return nil, err
	}
	b.places[w.name] = p
	return p, nil
}

// next is a way to a place where the last release is.
func (b *bench) next(ctx context.Context, s *Section, w *way, source *tree, changed *[]treeFile) *entrant {
	if !w.here(s) {
		return nil
	}
	p, err := b.standing(ctx, w, source)
	if err != nil {
		s.skip(w.name, err.Error())
		return nil
	}
	return &entrant{
		name: w.name,
		before: func(ctx context.Context) error {
			if w.pack != nil {
				if err := w.pack(b, ctx, source.dir, p); err != nil {
					return err
				}
			}
			return b.settle(b.dir, source.dir)
		},
		run: func(ctx context.Context) (usage, error) { return w.onto(b, ctx, source.dir, p) },
		after: func(context.Context) error {
			if w.tidy != nil {
				if err := w.tidy(b, p); err != nil {
					return err
				}
			}
			return arrived(w, source, p, *changed)
		},
	}
}

// measureUpdate: ten files have changed since the last time.
func (b *bench) measureUpdate(ctx context.Context, s *Section) error {
	source, err := b.theSource()
	if err != nil {
		return err
	}
	moult := moultWay("moult apply", "")
	var changed []treeFile
	var all []*entrant
	for _, w := range []*way{moult, rsyncWay("rsync -a"), linkDestWay(), ostreeWay(), dpkgWay()} {
		e := b.next(ctx, s, w, source, &changed)
		if e == nil {
			continue
		}
		if w.pack != nil {
			e.rounds = slow(b.opt.rounds)
		}
		all = append(all, e)
	}
	change := func(int) (err error) {
		changed, err = source.change()
		return err
	}
	// quick ones get more rounds, since less is to be seen in each
	if err := b.turns(ctx, 2*b.opt.rounds, change, all...); err != nil {
		return err
	}
	s.Title = fmt.Sprintf("an update of %d files, %.1f MB, of %s", len(changed), float64(bytesOf(changed))/1e6, source)
	s.compare("rsync -a", all...)
	s.hold(moult.name, "rsync -a", 1.0, all...)
	s.hold(moult.name, "rsync --link-dest + sync -f", 1.0, all...)
	return nil
}

func bytesOf(files []treeFile) (sum int64) {
	for _, f := range files {
		sum += f.size
	}
	return sum
}

// measureNothing: the release is there already.
func (b *bench) measureNothing(ctx context.Context, s *Section) error {
	source, err := b.theSource()
	if err != nil {
		return err
	}
	s.Title = "nothing changed, " + source.String()
	moult := moultWay("moult apply", "")
	none := []treeFile{}
	var all []*entrant
	for _, w := range []*way{moult, rsyncWay("rsync -a")} {
		if e := b.next(ctx, s, w, source, &none); e != nil {
			all = append(all, e)
		}
	}
	// the first is for whoever missed the last update, and is not counted
	for _, e := range all {
		if e.failed = e.turn(ctx); e.failed == nil {
			e.samples = nil
		}
	}
	if err := b.turns(ctx, 3*b.opt.rounds, nil, all...); err != nil {
		return err
	}
	s.compare("rsync -a", all...)
	s.hold(moult.name, "rsync -a", 0.5, all...)
	return nil
}

// arrived compares files of the source with what is live: who does less than
// the job is not to look fast. Of many files it takes some.
func arrived(w *way, source *tree, p *place, files []treeFile) error {
	for i := 0; i < len(files); i += 1 + len(files)/50 {
		want, got := filepath.Join(source.dir, files[i].path), filepath.Join(w.live(p), files[i].path)
		same, err := equal(want, got)
		if err != nil {
			return err
		}
		if !same {
			return fmt.Errorf("%s: not what the source holds", got)
		}
	}
	return nil
}
