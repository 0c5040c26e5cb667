package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// entrant is one of those that do the same job in turn.
type entrant struct {
	name   string
	rounds int // in how many rounds it takes part, from the first; 0 is all

	before func(ctx context.Context) error // outside the timing
	run    func(ctx context.Context) (usage, error)
	after  func(ctx context.Context) error // outside the timing

	samples []usage
	failed  error
}

// turns lets all entrants do their job, round by round. Who is first changes
// with each round, so that nobody always follows the same one.
//
// Who fails once is out, and the others go on.
func (b *bench) turns(ctx context.Context, rounds int, round func(n int) error, entrants ...*entrant) error {
	for n := range rounds {
		if round != nil {
			if err := round(n); err != nil {
				return err
			}
		}
		for i := range entrants {
			e := entrants[(n+i)%len(entrants)]
			if e.failed != nil || e.rounds > 0 && n >= e.rounds {
				continue
			}
			if e.failed = e.turn(ctx); e.failed != nil {
				b.say("%s: %v", e.name, e.failed)
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *entrant) turn(ctx context.Context) error {
	if e.before != nil {
		if err := e.before(ctx); err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
	}
	u, err := e.run(ctx)
	if err != nil {
		return err
	}
	if e.after != nil {
		if err := e.after(ctx); err != nil {
			return fmt.Errorf("check: %w", err)
		}
	}
	e.samples = append(e.samples, u)
	return nil
}

// wall is the median of the entrant's times.
func (e *entrant) wall() time.Duration {
	return time.Duration(median(e.samples, func(u usage) float64 { return float64(u.wall) }))
}

// median of what value says of each sample; of an even number it is the mean of
// the two in the middle.
func median[T any](samples []T, value func(T) float64) float64 {
	values := make([]float64, 0, len(samples))
	for _, s := range samples {
		values = append(values, value(s))
	}
	slices.Sort(values)
	n := len(values)
	switch {
	case n == 0:
		return 0
	case n%2 == 1:
		return values[n/2]
	}
	return (values[n/2-1] + values[n/2]) / 2
}
