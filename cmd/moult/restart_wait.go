package main

import (
	"context"
	"sync"
	"time"

	"moult.example/internal/restart"
)

// runRestart is restart.Run with a line on the terminal that says what is waited
// for. A step can take minutes and a health probe another one, in which nothing
// else tells that moult is alive; so the line is drawn by the clock, not only
// when something happens.
func (a *app) runRestart(ctx context.Context, o restart.Options, plan *restart.Plan) (*restart.Result, error) {
	var mu sync.Mutex
	last := restart.Event{All: len(plan.Steps)}
	o.OnEvent = func(e restart.Event) {
		mu.Lock()
		defer mu.Unlock()
		last = e
	}
	over := make(chan struct{})
	var drawing sync.WaitGroup
	drawing.Go(func() {
		tick := time.NewTicker(redraw)
		defer tick.Stop()
		for {
			select {
			case <-over:
				return
			case <-tick.C:
				mu.Lock()
				e := last
				mu.Unlock()
				a.progress.restarting(e)
			}
		}
	})
	r, err := restart.Run(ctx, o, plan)
	close(over)
	drawing.Wait()
	a.progress.finish()
	return r, err
}

// restarting says which step is waited for, or that the health is asked.
func (p *progress) restarting(e restart.Event) {
	if e.State == restart.Running {
		p.step("restart", oneLine(e.Step), e.Done, e.All)
		return
	}
	p.draw("restart", func(passed time.Duration) string {
		return "restart  is all well?  " + passed.Round(time.Second).String()
	})
}
