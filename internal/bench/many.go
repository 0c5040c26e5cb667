package main

import (
	"context"
	"fmt"
	"path/filepath"
)

// measureMany: does the time grow with the number of files, or faster? And how
// much memory does it take? What rsync does with the same trees shows how much of
// the growth is the kernel's and its caches'.
func (b *bench) measureMany(ctx context.Context, s *Section) error {
	s.Title = "many small files: time for each, and memory"
	s.Unit = "of the time for each of the few"
	few, err := b.manySource("few", 10000)
	if err != nil {
		return err
	}
	many, err := b.manySource("many", 100000)
	if err != nil {
		return err
	}
	moult := moultWay("moult apply", "")
	for _, w := range []*way{moult, rsyncWay("rsync -a")} {
		if !w.here(s) {
			continue
		}
		var all []*entrant // first and again of the few, first and again of the many
		var each []float64 // seconds
		for _, source := range []*tree{few, many} {
			rounds := b.opt.rounds
			if source == many {
				rounds = slow(rounds)
			}
			pair, err := b.firstAndAgain(ctx, w, source, rounds)
			if err != nil {
				return err
			}
			for _, e := range pair {
				all = append(all, e)
				each = append(each, e.wall().Seconds()/float64(len(source.files)))
			}
		}
		for i, e := range all {
			s.Rows = append(s.Rows, Row{Name: e.name, Value: each[i] / each[i%2], Samples: samplesOf(e.samples)})
		}
		if w != moult {
			continue
		}
		s.check("first apply, time for each file", each[2]/each[0], linear, s.Unit)
		s.check("nothing changed, time for each file", each[3]/each[1], linear, s.Unit)
		for _, e := range all[2:] {
			s.memory(e.name, all, 200, many)
		}
	}
	return nil
}

// firstAndAgain brings a source to a new place, and then there once more.
func (b *bench) firstAndAgain(ctx context.Context, w *way, source *tree, rounds int) ([]*entrant, error) {
	first := b.first(w, source)
	first.name = fmt.Sprintf("%s, %d files", w.name, len(source.files))
	if err := b.turns(ctx, rounds, nil, first); err != nil {
		return nil, err
	}
	if first.failed != nil {
		return nil, first.failed
	}
	p := b.places[w.name]
	defer delete(b.places, w.name)
	again := b.again(w, source, p)
	if err := b.turns(ctx, 3, nil, again); err != nil {
		return nil, err
	}
	if again.failed != nil {
		return nil, again.failed
	}
	return []*entrant{first, again}, b.discard(p.dir)
}

// linear is how much more each of ten times as many files may take, and still
// be called the same: caches are not linear, and sorting is not.
const linear = 1.25

func (b *bench) manySource(name string, files int) (*tree, error) {
	n := b.scaled(files, 100)
	return makeTree(filepath.Join(b.dir, name), shape{files: n, dirs: n / 40, bytes: int64(n) * 2000, spread: 0.7, seed: 2})
}

// again applies what is there already.
func (b *bench) again(w *way, source *tree, p *place) *entrant {
	return &entrant{
		name:   fmt.Sprintf("%s again, %d files", w.name, len(source.files)),
		before: func(context.Context) error { return b.settle(b.dir, source.dir) },
		run:    func(ctx context.Context) (usage, error) { return w.onto(b, ctx, source.dir, p) },
	}
}
