package deploy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// Retention says which retired generations are kept. Live, previous, pinned and
// used ones always are, and one that was live in the last 60 seconds: a launch
// may have begun from it and not be seen yet.
type Retention struct {
	Generations int   // how many, beside the pinned ones; 0 is 3, negative is as few as can be
	Bytes       int64 // and at most so many bytes of generations that are not live; 0 is no limit

	// Unreadable takes processes that may not be looked into for no users. By
	// default each counts as a user of every generation: another user's, for
	// who is not root, or one that a security module hides even from root.
	Unreadable bool

	// Spare leaves the newest of those that may go for the next stage to be made
	// of, as the collection after a commit does: it saves making and removing a
	// name for each file. It has no effect with Bytes or negative Generations.
	Spare bool

	closed bool // retired ones were taken out of reach already
}

// GCOptions say what may be collected.
type GCOptions struct {
	Name      string
	Retention Retention
	DryRun    bool
}

// Collection is what gc has found and done.
type Collection struct {
	Schema     int        `json:"schema"`
	Target     Path       `json:"target"`
	Name       string     `json:"name"`
	Collected  []int      `json:"collected"`         // gone now; with a dry run, would go
	Removed    []Path     `json:"removed,omitempty"` // shared: names that had to wait until nobody mapped them
	FreedBytes int64      `json:"freed_bytes"`       // of files that no other generation holds, as far as known
	Kept       []Kept     `json:"kept"`
	Recovered  *Recovered `json:"recovered,omitempty"`
}

// Kept is a generation that was not collected, and why.
type Kept struct {
	Generation int    `json:"generation"`
	Why        string `json:"why"`
	PIDs       []int  `json:"pids,omitempty"` // who uses it
}

// whySpare is why the newest of those that retention does not ask for is kept.
const whySpare = "the next one is made of it"

// whyClosed is all that who may not look into a generation can say of it.
const whyClosed = "closed to this user, so that it cannot be told"

// GC removes generations that are no longer needed.
func (t *Target) GC(ctx context.Context, o GCOptions) (c Collection, err error) {
	if o.DryRun {
		s, err := t.state(o.Name)
		if err != nil {
			return c, err
		}
		return s.collect(ctx, o.Retention, true)
	}
	res, err := t.locked(ctx, o.Name, func(s *state, res *Result) error {
		return s.refreshing(func() error {
			c, err = s.collect(ctx, o.Retention, false)
			return err
		})
	})
	c.Recovered = res.Recovered
	return c, err
}

// collectAfter is the collection at the end of a commit. That it fails is no
// failure of the commit.
func (s *state) collectAfter(ctx context.Context, r Retention, warnings []string) ([]int, []string) {
	r.Spare = true
	c, err := s.collect(ctx, r, false)
	if err != nil && ctx.Err() == nil {
		warnings = append(warnings, "gc: "+err.Error())
	}
	return c.Collected, warnings
}

// collect does what GC says. Its error is ErrUnfinished if something has gone
// before.
func (s *state) collect(ctx context.Context, r Retention, dry bool) (Collection, error) {
	c, err := s.collectSome(ctx, r, dry)
	if err != nil && !dry && (len(c.Collected) > 0 || len(c.Removed) > 0) && !errors.Is(err, ErrUnfinished) {
		err = fmt.Errorf("%w: %w", ErrUnfinished, err)
	}
	return c, err
}

func (s *state) collectSome(ctx context.Context, r Retention, dry bool) (Collection, error) {
	c := Collection{Schema: 1, Target: Path(s.t.path), Name: s.name, Collected: []int{}, Kept: []Kept{}}
	candidates, err := s.candidates(r, &c)
	if err != nil {
		return c, err
	}
	if last := len(candidates) - 1; r.Spare && r.mayReuse() && s.layout == Owned && last >= 0 {
		c.Kept = append(c.Kept, Kept{Generation: candidates[last], Why: whySpare})
		candidates = candidates[:last]
	}
	if s.layout == Shared && !dry {
		if err := s.removeDeferred(ctx, &c); err != nil {
			return c, err
		}
	}
	var closable []int
	if !dry && !r.closed {
		if closable, err = s.closable(c.Kept); err != nil {
			return c, err
		}
	}
	used, err := s.usage(ctx, candidates, closable, r.Unreadable, r.Spare)
	if err != nil {
		return c, err
	}
	for _, n := range candidates {
		if k, ok := used.by(n); ok {
			c.Kept = append(c.Kept, k)
			continue
		}
		if dry {
			c.Collected = append(c.Collected, n)
			continue
		}
		if s.beforeTake != nil {
			s.beforeTake()
			s.beforeTake = nil
		}
		if err := s.take(ctx, n, used.inv[n], &c); err != nil {
			return c, fmt.Errorf("generation %d: %w", n, err)
		}
	}
	if dry {
		return c, nil
	}
	if err := s.closeRetired(closable, used); err != nil {
		return c, err
	}
	if s.layout == Shared && len(c.Collected) > 0 {
		if err := s.dropObjects(&c); err != nil {
			return c, err
		}
	}
	if len(c.Collected) > 0 {
		rec := s.t.newRecord("gc", noGeneration, noGeneration)
		rec.Note = fmt.Sprint("collected ", c.Collected)
		return c, s.record(rec)
	}
	return c, nil
}

// candidates are the generations that retention does not ask for, oldest first.
func (s *state) candidates(r Retention, c *Collection) ([]int, error) {
	live, err := s.live()
	if err != nil || live == noGeneration {
		return nil, err
	}
	prev, _, err := s.previous(live)
	if err != nil {
		return nil, err
	}
	pins, err := s.pins()
	if err != nil {
		return nil, err
	}
	ns, err := s.generations()
	if err != nil {
		return nil, err
	}
	retired, err := s.retiredAt()
	if err != nil {
		return nil, err
	}
	keep := r.Generations
	if keep == 0 {
		keep = 3
	}
	var out []int
	var bytes int64
	count := 0 // of those that are kept so far, beside the pinned ones
	for _, n := range ns {
		if (n == live || n == prev) && !pins[n] {
			count++
		}
	}
	for _, n := range slices.Backward(ns) {
		why := ""
		recent := s.recent(retired[n], ns)
		switch {
		case n == live:
			why = "live"
		case n == prev:
			why = "previous"
		case pins[n]:
			why = "pinned"
		case s.isClosed(n):
			why = whyClosed
		case !s.committed(n):
			why = "staged"
		}
		if r.Bytes > 0 && (why == "" || why == "previous") {
			bytes += s.bytesOf(n)
		}
		if why == "" {
			count++
		}
		tooMany := count > keep || r.Bytes > 0 && bytes > r.Bytes
		switch {
		case why == "" && !tooMany:
			why = "retention"
		case why == "" && recent:
			why = "retired a moment ago: a launch may have begun from it"
		}
		if why != "" {
			c.Kept = append(c.Kept, Kept{Generation: n, Why: why})
			continue
		}
		out = append(out, n)
	}
	slices.Reverse(out)
	return out, nil
}

// isClosed says that this user may not look into a generation.
func (s *state) isClosed(n int) bool {
	_, err := os.Lstat(s.abs(s.books(genDir(n)) + "/committed"))
	return errors.Is(err, fs.ErrPermission)
}

func (s *state) bytesOf(n int) (sum int64) {
	m, err := s.manifest(n)
	if err != nil {
		return 0
	}
	for i := range m.Entries {
		sum += m.Entries[i].Size
	}
	return sum
}

// take removes one generation: it gets a name that nobody knows, then the
// processes are looked at once more; only then it goes.
func (s *state) take(ctx context.Context, n int, inv *inventory, c *Collection) error {
	if s.layout == Owned {
		m, err := s.manifest(n)
		if err != nil {
			c.Kept = append(c.Kept, Kept{Generation: n, Why: "what is in it and ours cannot be told: " + err.Error()})
			return nil
		}
		if err := inv.examine(ctx, s, func(*item) bool { return true }); err != nil {
			return err
		}
		if why := s.obstacle(inv, m); why != "" {
			c.Kept = append(c.Kept, Kept{Generation: n, Why: why})
			return nil
		}
		if ok, err := s.hide(ctx, n, trashDir(n), inv); err != nil || !ok {
			c.Kept = append(c.Kept, Kept{Generation: n, Why: "came into use a moment ago"})
			return err
		}
		c.FreedBytes += inv.alone()
	} else if err := s.rename(genDir(n), trashDir(n)); err != nil {
		return err
	}
	if err := s.removeTrash(n); err != nil {
		return fmt.Errorf("%w: %w", ErrUnfinished, err)
	}
	c.Collected = append(c.Collected, n)
	return nil
}

// removeTrash removes a collected generation; recovery goes on where a crash
// has stopped it.
func (s *state) removeTrash(n int) error {
	if err := removeTreeBy(s.t, s.file(trashDir(n)), s.removeWatched); err != nil {
		return err
	}
	return s.t.fs.SyncDir(s.file("generations"))
}
