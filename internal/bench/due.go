package main

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"
)

// retire is how long a generation is kept after it was live, and a little more.
const retire = 61 * time.Second

// measureDue is the update as most hosts see it: the last one was more than a
// minute ago, and an old generation may go. Back to back, as measureUpdate has
// them, none may.
func (b *bench) measureDue(ctx context.Context, s *Section) error {
	source, err := b.theSource()
	if err != nil {
		return err
	}
	// Here not even root may be able to look into every process, and then
	// nothing is ever collected.
	moult := moultWay("moult apply", "", "--ignore-unreadable")
	var changed []treeFile
	var all []*entrant
	for _, w := range []*way{moult, rsyncWay("rsync -a")} {
		if e := b.next(ctx, s, w, source, &changed); e != nil {
			all = append(all, e)
		}
	}
	// Three are kept, so the one that the fourth gives up was live before the
	// last two.
	pause := time.Duration(float64(retire/2) * min(1, b.opt.scale))
	round := func(int) (err error) {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
		if changed, err = source.change(); err != nil {
			return err
		}
		return lookAtAll(b.dir)
	}
	const first = 4
	if err := b.turns(ctx, first, round, all...); err != nil {
		return err
	}
	for _, e := range all {
		e.samples = nil
	}
	if err := b.turns(ctx, b.opt.rounds, round, all...); err != nil {
		return err
	}
	s.Title = fmt.Sprintf("the same when an old generation is due to go: %d files, %.1f MB, of %s", len(changed), float64(bytesOf(changed))/1e6, source)
	s.compare("rsync -a", all...)
	s.hold(moult.name, "rsync -a", 1.0, all...)
	return nil
}

// lookAtAll looks at every file in the work directory. After half a minute without
// work the caches of the processor and of the kernel belong to others, and the
// targets are for warm ones; the other sections have no pauses.
func lookAtAll(dir string) error {
	return filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil {
			_, err = d.Info()
		}
		return err
	})
}
