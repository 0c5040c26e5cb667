package deploy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// Recover finishes what commands that were cut short have left in the target,
// for all of its products. It decides nothing, it can be repeated, and a second
// one finds nothing to do. It needs no network and no release.
func (t *Target) Recover(ctx context.Context) ([]Recovered, error) {
	layout, err := t.readLayout()
	if err != nil {
		return nil, err
	}
	if layout == "" && !t.remains() {
		return nil, fmt.Errorf("%s: %w", t.path, ErrNoTarget)
	}
	unlock, err := t.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := t.sweepForgotten(); err != nil {
		return nil, err
	}
	if !exists(t.abs(dotMoult)) {
		return []Recovered{{Schema: 1, Target: Path(t.path), Finished: jobForget}}, nil
	}
	states, err := t.states()
	if err != nil {
		return nil, err
	}
	var all []Recovered
	var errs []error
	for _, s := range states {
		r, err := s.recoverLocked()
		if err == nil || r.Finished != "" || r.Discarded > 0 { // else nothing was recovered
			all = append(all, *r)
		}
		if err != nil {
			errs = append(errs, err)
		} else if len(r.Conflicts) > 0 {
			errs = append(errs, fmt.Errorf("%s: %w", t.path, &ConflictError{r.Conflicts}))
		}
	}
	return all, errors.Join(errs...)
}

// recoverAll brings all products of the target in order, for the sake of one: a
// commit of a neighbour that was cut short may be about to place what this one
// places too.
func (t *Target) recoverAll(s *state) (*Recovered, error) {
	states := []*state{s}
	if s.layout == Shared {
		all, err := t.states()
		if err != nil {
			return nil, err
		}
		for _, other := range all {
			if other.dir != s.dir {
				states = append(states, other)
			}
		}
	}
	var did *Recovered
	for _, one := range states {
		r, err := one.recoverLocked()
		if err != nil {
			return nil, err
		}
		if did == nil || did.Nothing {
			did = r
		}
	}
	return did, nil
}

// states are the books of all products of the target.
func (t *Target) states() ([]*state, error) {
	layout, err := t.readLayout()
	if err != nil {
		return nil, err
	}
	if layout == Owned {
		s, err := t.state("")
		return []*state{s}, err
	}
	names, err := t.names()
	if err != nil {
		return nil, err
	}
	var all []*state
	for _, name := range names {
		all = append(all, &state{t: t, layout: Shared, name: name, dir: dotMoult + "/" + name})
	}
	return all, nil
}

// recoverLocked brings one product in order. Whatever writes calls it first,
// under the lock.
func (s *state) recoverLocked() (*Recovered, error) {
	r := &Recovered{Schema: 1, Target: Path(s.t.path), Name: s.name}
	j, err := s.readJournal()
	if err != nil {
		return r, fmt.Errorf("recover: %w", err)
	}
	if j != nil {
		if err := s.redo(j, r); err != nil {
			return r, fmt.Errorf("recover: %w", err)
		}
	}
	if err := s.sweep(r); err != nil {
		return r, fmt.Errorf("recover: %w", err)
	}
	if s.layout == Owned && (j == nil || j.Job != jobForget) {
		if err := s.relink(r); err != nil {
			return r, fmt.Errorf("recover: %w", err)
		}
	}
	r.Nothing = r.Finished == "" && r.Discarded == 0
	return r, nil
}

// redo finishes a decided commit.
func (s *state) redo(j *journal, r *Recovered) error {
	// Who wrote the journal may have been killed before its name was durable.
	// It must not vanish in a power cut after what it says is half done again.
	if err := s.t.fs.SyncDir(s.dir); err != nil {
		return err
	}
	done, err := s.finish(j)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnfinished, err)
	}
	r.Finished, r.Generation, r.Conflicts = j.Job, j.Generation, done.conflicts
	if j.Job == jobForget {
		return nil
	}
	m, err := s.manifest(j.Generation)
	if err != nil {
		return err
	}
	_, err = s.settle(j, m, done, "finished by recovery")
	if errors.Is(err, ErrAfter) || len(done.conflicts) > 0 {
		return nil // it is in the history, and there is no more that recovery could do
	}
	return err
}

// sweep removes what stages and collections without a journal have left.
func (s *state) sweep(r *Recovered) error {
	entries, err := os.ReadDir(s.abs("generations"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if n, ok := number(name, ".stage-"); ok {
			err = s.removeStage(n)
		} else if n, ok := number(name, ".trash-"); ok {
			err = s.removeTrash(n)
		} else {
			continue
		}
		if err != nil {
			return err
		}
		r.Discarded++
	}
	if err := s.sweepUncommitted(r); err != nil {
		return err
	}
	for _, name := range []string{sourceCache + ".new", layoutFile + ".new"} {
		if exists(s.t.abs(name)) { // where all is read-only, not even what is missing can be removed
			if err := s.t.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	for _, name := range []string{"live.new", "journal.new", "cache.new", "cache.source.new", "pins.json.new", "deferred.json.new", "made.json.new"} {
		if exists(s.abs(name)) {
			if err := s.t.fs.Remove(s.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// sweepUncommitted removes generations that an apply has staged and did not
// come to commit. Those that were staged on their own wait for their commit.
func (s *state) sweepUncommitted(r *Recovered) error {
	ns, err := s.generations()
	if err != nil {
		return err
	}
	live, err := s.live()
	if err != nil {
		return err
	}
	for _, n := range ns {
		// Generation 0 of an adoption that was never decided is links alone.
		undecided := n == 0 && s.layout == Owned && live == noGeneration
		if info, err := s.info(n); !undecided && (err != nil || info.Waits || s.committed(n)) {
			continue
		}
		if err := s.removeGeneration(n); err != nil {
			return err
		}
		r.Discarded++
	}
	return nil
}

func number(name, prefix string) (int, bool) {
	rest, ok := strings.CutPrefix(name, prefix)
	n, err := strconv.Atoi(rest)
	return n, ok && err == nil
}

// relink rebuilds the links in the target's directory from the live manifest.
func (s *state) relink(r *Recovered) error {
	live, err := s.live()
	if err != nil || live == noGeneration {
		return err
	}
	m, err := s.manifest(live)
	if err != nil {
		return err
	}
	missing, extra := s.checkLinks(m)
	if len(missing)+len(extra) == 0 {
		return nil
	}
	if r.Conflicts, err = s.addLinks(m); err != nil {
		return err
	}
	if len(missing)+len(extra) > len(r.Conflicts) && r.Finished == "" {
		r.Finished, r.Generation = "links", live
	}
	return s.dropLinks(m)
}

// cutShort says, without a lock and without writing, whether there is something
// to recover. While another moult is at work there is nothing to say.
func (s *state) cutShort() bool {
	if holder(s.t.opts.Proc, s.t.abs(lockFile)) != "" {
		return false
	}
	if exists(s.abs("journal")) {
		return true
	}
	entries, _ := os.ReadDir(s.abs("generations"))
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			return true
		}
	}
	ns, _ := s.generations()
	for _, n := range ns {
		if info, err := s.info(n); err == nil && !info.Waits && !s.committed(n) {
			return true
		}
	}
	if s.layout != Owned {
		return false
	}
	live, err := s.live()
	if err != nil || live == noGeneration {
		return false
	}
	m, err := s.manifest(live)
	if err != nil {
		return true
	}
	missing, extra := s.checkLinks(m)
	for _, name := range missing {
		if !exists(s.t.abs(name)) {
			return true
		}
	}
	return len(extra) > 0
}

// removeStage takes away a stage that was never completed.
func (s *state) removeStage(n int) error {
	return s.dropGeneration(stageDir(n))
}

// removeGeneration takes away a generation that nobody can be using, since it
// was never live: it gets a name that says so first.
func (s *state) removeGeneration(n int) error {
	if err := s.rename(genDir(n), stageDir(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.dropGeneration(stageDir(n))
}

// dropGeneration removes a generation that was never live, under whatever name,
// with what it has laid elsewhere.
func (s *state) dropGeneration(dir string) error {
	if s.layout == Shared {
		if err := s.removeTemps(dir); err != nil {
			return err
		}
	}
	if err := removeTree(s.t, s.file(dir)); err != nil {
		return err
	}
	return s.t.fs.SyncDir(s.file("generations"))
}

// dropUncommitted removes generations that were staged and never committed: a
// new stage takes their place.
func (s *state) dropUncommitted() error {
	ns, err := s.generations()
	if err != nil {
		return err
	}
	for _, n := range ns {
		if !s.committed(n) {
			if err := s.removeGeneration(n); err != nil {
				return err
			}
		}
	}
	return nil
}
