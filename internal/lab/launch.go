package lab

import (
	"context"
	"path/filepath"
	"sync"
	"time"
)

// launches switches the whole set between its two versions, back to back, and
// starts the program meanwhile, back to back too. nil means that the method is
// not a way to replace a set.
func (l *lab) launches(ctx context.Context) (*Launches, error) {
	if l.method.set == "" {
		return nil, nil
	}
	target, err := l.target(ctx, "v1")
	if err != nil {
		return nil, err
	}
	span := launchTime
	if l.opt.Quick {
		span = quickLaunchTime
	}
	n := &Launches{Reasons: map[string]int{}}
	ctx, cancel := context.WithTimeout(ctx, span)
	defer cancel()

	var starting sync.WaitGroup
	starting.Go(func() {
		for ctx.Err() == nil {
			// its own context: the end of the span cuts no launch short
			s := l.launch(context.WithoutCancel(ctx), filepath.Join(target, exeFile))
			n.Launches++
			switch {
			case s.failure != "":
				n.Failed++
				n.Reasons[s.failure]++
			case s.mixed():
				n.Mixed++
			}
		}
	})
	for turn := 0; ctx.Err() == nil; turn++ {
		tree := []string{"v2", "v1"}[turn%2]
		began := time.Now()
		out, err := l.shell(context.WithoutCancel(ctx), l.method.set, l.tree(tree), target)
		n.Switches++
		if err != nil {
			n.Errors++
			if n.Said == "" {
				n.Said = reason(out, err)
			}
			// A tool that fails at once must not turn this into a busy loop
			// that starves the launches.
			if wait := time.Millisecond - time.Since(began); wait > 0 {
				time.Sleep(wait)
			}
		}
	}
	starting.Wait()
	return n, nil
}
