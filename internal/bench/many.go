package main

import (
	"context"
	"fmt"
	"path/filepath"
)

// measureMany: does the time grow with the number of files, or faster? And how
// much memory does it take?
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
	var all []*entrant
	var each []float64
	for _, source := range []*tree{few, many} {
		w := moultWay("moult apply", "")
		first := b.first(w, source)
		first.name = fmt.Sprintf("moult apply, %d files", len(source.files))
		rounds := min(b.opt.rounds, 2)
		if source == few {
			rounds = b.opt.rounds
		}
		if err := b.turns(ctx, rounds, nil, first); err != nil {
			return err
		}
		if first.failed != nil {
			return first.failed
		}
		again := b.again(w, source, b.places[w.name])
		if err := b.turns(ctx, 3, nil, again); err != nil {
			return err
		}
		if again.failed != nil {
			return again.failed
		}
		all = append(all, first, again)
		each = append(each, first.wall().Seconds()/float64(len(source.files)), again.wall().Seconds()/float64(len(source.files)))
		if err := b.discard(b.places[w.name].dir); err != nil {
			return err
		}
		delete(b.places, w.name)
	}
	for i, e := range all {
		s.Rows = append(s.Rows, Row{Name: e.name, Value: each[i] / each[i%2], Samples: samplesOf(e.samples)})
	}
	s.check("first apply, time for each file", each[2]/each[0], linear, s.Unit)
	s.check("nothing changed, time for each file", each[3]/each[1], linear, s.Unit)
	for _, e := range all[2:] {
		s.memory(e.name, all, 200, many)
	}
	return nil
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
		name:   fmt.Sprintf("the same again, %d files", len(source.files)),
		before: func(context.Context) error { return b.settle(b.dir, source.dir) },
		run:    func(ctx context.Context) (usage, error) { return w.onto(b, ctx, source.dir, p) },
	}
}
