package deploy

import (
	"context"
	"errors"
	"fmt"

	"moult.example/internal/release"
)

// commitHow is what a commit needs to know beside the generation.
type commitHow struct {
	job     string // jobCommit, jobRollback, jobAdopt
	noHooks bool
	synced  bool   // the generation was made, and synced, a moment ago
	because string // why the live generation is left, for the history
	adopt   []string
	ops     []op // shared: nil are those that were staged
	wait    []op // shared: removals for gc
}

// Commit makes a staged generation the live one. The errors are those of Apply.
func (t *Target) Commit(ctx context.Context, o CommitOptions) (Result, error) {
	return t.locked(ctx, o.Name, func(s *state, res *Result) error {
		res.Job = "commit"
		n, err := s.staged(o.Generation)
		if o.Generation <= 0 && errors.Is(err, ErrNoGeneration) && res.From > 0 {
			// What was staged was live already, or was committed by somebody else.
			res.Unchanged = true
			info, err := s.info(res.From)
			res.Release, res.Version = info.Release, info.Version
			return err
		}
		if err != nil {
			return err
		}
		info, err := s.info(n)
		if err != nil {
			return err
		}
		if info.Base != res.From && s.layout == Shared {
			return refuse("", fmt.Sprintf("generation %d was staged over generation %d, but %d is live now", n, info.Base, res.From), "stage it again")
		}
		if err := s.summarise(n, res); err != nil {
			return err
		}
		if s.layout == Owned {
			m, err := s.manifest(n)
			if err != nil {
				return err
			}
			if err := s.carryKeeps(n, m, res, false); err != nil {
				return err
			}
		}
		if err := s.reportKept(n, res); err != nil {
			return err
		}
		if err := s.commitLocked(ctx, n, res, commitHow{job: jobCommit, noHooks: o.NoHooks}); err != nil {
			return err
		}
		res.Collected, res.Warnings = s.collectAfter(ctx, o.Retention, res.Warnings)
		return nil
	})
}

// locked runs a job that writes, on a target that is there: lock, recover, do.
func (t *Target) locked(ctx context.Context, name string, do func(s *state, res *Result) error) (res Result, err error) {
	if layout, err := t.readLayout(); err != nil || layout == "" {
		return res, errors.Join(err, fmt.Errorf("%s: %w", t.path, ErrNoTarget))
	}
	unlock, err := t.lock(ctx)
	if err != nil {
		return res, err
	}
	defer unlock()
	if err := t.sweepForgotten(); err != nil {
		return res, err
	}
	if !exists(t.abs(dotMoult)) {
		return res, errForgotten
	}
	s, err := t.state(name)
	if err != nil {
		return res, err
	}
	res = Result{Schema: 1, Target: Path(t.path), Layout: s.layout, Name: s.name}
	recovered, err := t.recoverAll(s)
	if err != nil {
		return res, err
	}
	if !recovered.Nothing {
		res.Recovered = recovered
	}
	if res.From, err = s.live(); err != nil {
		return res, err
	}
	res.Generation = res.From
	return res, do(s, &res)
}

// staged finds the generation to commit: n, or the newest that was never live.
func (s *state) staged(n int) (int, error) {
	ns, err := s.generations()
	if err != nil {
		return 0, err
	}
	if n > 0 {
		for _, have := range ns {
			if have == n && s.committed(n) {
				return 0, refuse("", fmt.Sprintf("generation %d is live or was", n), fmt.Sprintf("moult rollback %s %d", s.t.path, n))
			}
			if have == n {
				return n, nil
			}
		}
		return 0, fmt.Errorf("%s: %d: %w", s.t.path, n, ErrNoGeneration)
	}
	if len(ns) > 0 && !s.committed(ns[len(ns)-1]) {
		return ns[len(ns)-1], nil
	}
	return 0, fmt.Errorf("%s: nothing is staged: %w", s.t.path, ErrNoGeneration)
}

// committed says that a generation is live, or was.
func (s *state) committed(n int) bool {
	live, err := s.live()
	return err != nil || n == live || exists(s.abs(s.books(genDir(n))+"/committed"))
}

// summarise fills in what a generation is and how it differs from the live one.
func (s *state) summarise(n int, res *Result) error {
	m, err := s.numbered(n)
	if err != nil {
		return err
	}
	old := &release.Manifest{}
	if res.From != noGeneration {
		if old, err = s.numbered(res.From); err != nil {
			return err
		}
	}
	info, err := s.info(n)
	if err != nil {
		return err
	}
	res.Release, res.Version = info.Release, m.Version
	for _, c := range compareManifests(old, m, false) {
		switch e := m.Find(string(c.Path)); {
		case c.Action == "remove":
			if old.Find(string(c.Path)).Type != release.Dir {
				res.Removed++
			}
		case e.Type == release.Dir:
		case c.Action == "add":
			res.Added++
		default:
			res.Replaced++
		}
	}
	for i := range m.Entries {
		if m.Entries[i].Type != release.Dir {
			res.Same++
		}
	}
	res.Same -= res.Added + res.Replaced
	return nil
}

// numbered is a generation's manifest with this host's numbers for owners.
func (s *state) numbered(n int) (*release.Manifest, error) {
	m, err := s.manifest(n)
	if err != nil {
		return nil, err
	}
	info, err := s.info(n)
	if err != nil {
		return nil, err
	}
	return ownersOf(info).number(m), nil
}

// commitLocked is the one way in which a generation becomes live: check, run
// the hook before, write the journal, do what it says, settle.
func (s *state) commitLocked(ctx context.Context, n int, res *Result, how commitHow) (err error) {
	m, err := s.manifest(n)
	if err != nil {
		return err
	}
	if len(how.adopt) > 0 {
		how.job = jobAdopt
		if err := s.makeGenerationZero(how.adopt); err != nil {
			return fmt.Errorf("adopt: %w", err)
		}
		defer func() {
			// A refusal leaves nothing of it; once decided, undo sees to that.
			if live, err2 := s.live(); err != nil && !errors.Is(err, ErrUnfinished) && err2 == nil && live == noGeneration {
				err = errors.Join(err, removeTree(s.t, s.file(genDir(0))))
			}
		}()
	}
	j := s.newJournal(how.job, res.From, n, m)
	j.NoHooks, j.Because, j.Ops, j.Defer = how.noHooks, how.because, how.ops, how.wait
	for _, name := range how.adopt {
		j.Adopt = append(j.Adopt, Path(name))
	}
	if s.layout == Shared && how.ops == nil {
		if err := s.stagedOps(ctx, n, j); err != nil {
			return err
		}
	}
	if err := s.readyToCommit(n, m, j, how.synced); err != nil {
		return err
	}
	if !how.noHooks && m.Hooks.Before != "" {
		if err := s.runHook(ctx, "before", m.Hooks.Before, m, j); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.decide(j); err != nil {
		// It may have reached the disk or not; with it gone, nothing is decided.
		if err2 := s.undecide(); err2 != nil {
			return fmt.Errorf("%w: journal: %w; and to take it back: %w", ErrUnfinished, err, err2)
		}
		return fmt.Errorf("journal: %w", err)
	}
	j.fresh = true
	done, err := s.finish(j)
	if err != nil && !done.switched {
		if err2 := s.undo(j, done); err2 != nil {
			return fmt.Errorf("%w: %w; and to take it back: %w", ErrUnfinished, err, err2)
		}
		s.noted = nil // who staged it tells what became of it
		_ = s.record(s.undoneRecord(j, err))
		return fmt.Errorf("commit: %w (taken back: nothing has changed)", err)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnfinished, err)
	}
	res.Generation, res.Conflicts, res.Deferred = n, done.conflicts, done.deferred
	warnings, err := s.settle(j, m, done, "")
	res.Warnings = append(res.Warnings, warnings...)
	return err
}

func (s *state) undoneRecord(j *journal, cause error) Record {
	r := s.t.newRecord(j.Job, j.From, j.From)
	r.Release, r.Version, r.Result, r.Note = j.Release, j.Version, "undone", cause.Error()
	return r
}

// outcome is what has become of a journal.
type outcome struct {
	switched  bool // past undoing: the new release is what people get
	conflicts []Path
	deferred  []Path
	opsDone   int // shared: so many operations were done by this process
}

// finish does what a journal says, from wherever it was cut short.
func (s *state) finish(j *journal) (out outcome, err error) {
	switch {
	case j.Job == jobForget:
		return outcome{switched: true}, s.finishForget(j)
	case s.layout == Owned:
		out.conflicts, out.switched, err = s.finishOwned(j)
		return out, err
	}
	return s.finishShared(j)
}

// undo takes back what finish has done, when it failed before the switch.
func (s *state) undo(j *journal, done outcome) error {
	if s.layout == Owned {
		return s.undoOwned(j)
	}
	return s.undoShared(j, done.opsDone)
}

// markCommitted lets a generation know that it was live: only one that never
// was may be dropped without asking who uses it.
func (s *state) markCommitted(n int) error {
	books := s.file(s.books(genDir(n)))
	if !exists(s.t.abs(books + "/committed")) { // else somebody who was killed may not have synced it
		if err := writeFile(s.t.fs, books+"/committed", nil, false); err != nil { // its name is all that there is to it
			return err
		}
	}
	return s.t.fs.SyncDir(books)
}

// close writes down what was done, and last takes the journal away.
func (s *state) close(j *journal, r Record) error {
	if err := s.markCommitted(j.Generation); err != nil {
		return err
	}
	if err := s.record(r); err != nil {
		return err
	}
	return s.undecide()
}

// settle ends a commit that is visible and durable: history, what runs after
// it, and last the journal goes. What runs after it runs at least once, also
// when the machine goes down meanwhile.
func (s *state) settle(j *journal, m *release.Manifest, done outcome, note string) (warnings []string, err error) {
	if !j.NoHooks {
		warnings, err = s.runAfter(j, m)
	}
	r := s.t.newRecord(j.Job, j.From, j.Generation)
	r.Release, r.Version, r.Because, r.Note = j.Release, j.Version, j.Because, note
	if note != "" {
		r.Command, r.User = j.Command, j.User
	}
	if len(done.conflicts) > 0 {
		r.Result = "conflict"
	} else if err != nil {
		r.Result, r.Note = "after-failed", err.Error()
	}
	if err2 := s.close(j, r); err2 != nil {
		return warnings, fmt.Errorf("%w: %w", ErrUnfinished, err2)
	}
	if err != nil {
		return warnings, fmt.Errorf("%w: %w", ErrAfter, err)
	}
	if len(done.conflicts) > 0 {
		return warnings, &ConflictError{done.conflicts}
	}
	return warnings, nil
}
