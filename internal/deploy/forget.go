package deploy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"moult.example/internal/stale"
)

// ForgetOptions say what to forget.
type ForgetOptions struct {
	Name  string
	Force bool // even if processes use generations that are not live
}

// Forget leaves a target as plain files, with nothing of ours behind. What is
// live stays where it is, under the same names and as the same inodes; all
// other generations go.
func (t *Target) Forget(ctx context.Context, o ForgetOptions) (Result, error) {
	if layout, err := t.readLayout(); err == nil && layout == "" && !exists(t.abs(dotMoult)) {
		return Result{}, errors.Join(t.unregister(), fmt.Errorf("%s: %w", t.path, ErrNoTarget))
	}
	if layout, err := t.readLayout(); err == nil && layout == "" && t.remains() {
		_, err := t.Recover(ctx)
		return Result{Schema: 1, Target: Path(t.path), Job: "forget"}, err
	}
	res, err := t.locked(ctx, o.Name, func(s *state, res *Result) error {
		res.Job = "forget"
		if s.layout == Shared {
			if err := s.checkDisplaced(); err != nil && !o.Force {
				return err
			}
			if err := s.checkForgettable(noGeneration, nil); err != nil {
				return err
			}
			return s.forgetShared()
		}
		return s.forgetOwned(ctx, o, res.From)
	})
	if errors.Is(err, errForgotten) {
		return Result{Schema: 1, Target: Path(t.path), Job: "forget"}, nil
	}
	return res, err
}

// errForgotten: what a forget that was cut short had left is gone now, and there
// is nothing else.
var errForgotten error = forgotten{}

type forgotten struct{}

// Error implements error.
func (forgotten) Error() string {
	return ErrNoTarget.Error() + ": it was being forgotten, which is finished now"
}

// Unwrap makes it one that is [ErrNoTarget].
func (forgotten) Unwrap() error { return ErrNoTarget }

// remains says that .moult holds nothing but what a forget that was cut short
// leaves last.
func (t *Target) remains() bool {
	entries, err := os.ReadDir(t.abs(dotMoult))
	if err != nil {
		return false
	}
	return !slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		return !slices.Contains([]string{"lock", "layout", "layout.new", "journal", "cache.source", "cache.source.new"}, e.Name())
	})
}

// ForgetPath drops a target from the registry whose directory, or whose .moult,
// is gone for good.
func ForgetPath(path string, opts Options) error {
	abs, err := resolve(path)
	if errors.Is(err, fs.ErrNotExist) {
		abs, err = filepath.Abs(path) // its parent has gone too
	}
	if err != nil {
		return err
	}
	t := &Target{path: abs, opts: opts.withDefaults()}
	if exists(t.abs(dotMoult)) || !registered(t.opts.StateDir, abs) {
		return fmt.Errorf("%s: %w", abs, ErrNoTarget)
	}
	return t.unregister()
}

func (s *state) forgetOwned(ctx context.Context, o ForgetOptions, live int) error {
	if live == noGeneration {
		if err := s.checkForgettable(live, nil); err != nil {
			return err
		}
		return s.removeBooks()
	}
	if err := s.checkMounts(); err != nil {
		return err
	}
	if !o.Force {
		if err := joinRefusals(s.othersInUse(ctx, live), s.checkForget(ctx, live)); err != nil {
			return err
		}
	}
	m, err := s.manifest(live)
	if err != nil {
		return err
	}
	if err := s.checkForgettable(live, topNames(m)); err != nil {
		return err
	}
	j := s.newJournal(jobForget, live, live, m)
	for _, name := range topNames(m) {
		if isLink(s.t.abs(name), ownText(name)) {
			j.Adopt = append(j.Adopt, Path(name))
		}
	}
	// The generation's own .moult/live leads to the target for as long as names
	// are being exchanged: see adoption.
	helper := s.adoptHelper(live)
	if err := s.t.fs.Symlink(adoptHelperText, helper); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := s.t.fs.SyncDir(parentOf(helper)); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.decide(j); err != nil {
		if err2 := s.undecide(); err2 != nil {
			return fmt.Errorf("%w: journal: %w; and to take it back: %w", ErrUnfinished, err, err2)
		}
		return fmt.Errorf("journal: %w", err)
	}
	if err := s.finishForget(j); err != nil {
		return fmt.Errorf("%w: %w", ErrUnfinished, err)
	}
	return nil
}

// othersInUse refuses while a process uses a generation that would go.
func (s *state) othersInUse(ctx context.Context, live int) error {
	ns, err := s.generations()
	if err != nil {
		return err
	}
	var trees []stale.Tree
	for _, n := range ns {
		inodes, err := s.inodes(ctx, n)
		if err != nil {
			return err
		}
		trees = append(trees, stale.Tree{Dir: s.abs(genDir(n)), Inodes: inodes})
	}
	report, err := stale.Users(ctx, stale.Options{Proc: s.t.opts.Proc}, trees)
	if err != nil {
		return err
	}
	for _, u := range report.Users {
		for _, use := range u.Uses {
			if n := ns[use.Of]; n != live {
				return refuse("", fmt.Sprintf("pid %d (%s) still uses generation %d, which would go", u.PID, Path(u.Comm).Quoted(), n), "restart it first, or --force")
			}
		}
	}
	views, err := s.viewers(ns)
	for n, pids := range views {
		return refuse("", fmt.Sprintf("pid %d has a mount of generation %d, or in it, which would go", pids[0], n), "end it first, or --force")
	}
	return err
}

// finishForget brings the real files back to the target's directory, and
// removes our books, the journal last.
func (s *state) finishForget(j *journal) error {
	for _, name := range j.Adopt {
		if !exists(s.abs(genDir(j.Generation))) {
			break // that was done before: the books were going already
		}
		if isLink(s.t.abs(string(name)), ownText(string(name))) {
			if err := s.exchangeTop(string(name), j.Generation, true); err != nil {
				return err
			}
		}
	}
	dirs := map[string]bool{".": true, s.file(genDir(j.Generation)): true}
	if err := s.syncDirs(dirs); err != nil {
		return err
	}
	return s.removeBooks()
}

// removeBooks removes .moult. What no release has brought into a generation is
// not removed with it: that stops the job while nothing is lost.
func (s *state) removeBooks() error {
	entries, err := os.ReadDir(s.t.abs(dotMoult))
	if err != nil {
		return err
	}
	last := []string{"journal", "layout", "lock"}
	for _, e := range entries {
		if !slices.Contains(last, e.Name()) {
			if err := removeTree(s.t, dotMoult+"/"+e.Name()); err != nil {
				return err
			}
		}
	}
	if err := s.t.fs.SyncDir(dotMoult); err != nil {
		return err
	}
	// From here on there is nothing that a recovery at boot would be needed for.
	if err := s.t.unregister(); err != nil {
		return err
	}
	for _, name := range last {
		if err := s.t.fs.Remove(dotMoult + "/" + name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := s.t.fs.SyncDir(dotMoult); err != nil {
			return err
		}
	}
	if err := s.t.fs.Remove(dotMoult); err != nil {
		return err
	}
	return s.t.fs.SyncDir(".")
}

// forgetShared removes one product's books; its files stay where they are. The
// last product takes .moult with it.
func (s *state) forgetShared() error {
	if err := s.dropUncommitted(); err != nil {
		return err // with the temporaries that only it knows of
	}
	gone := dotMoult + "/" + forgetPrefix + s.name
	if err := s.t.fs.Rename(s.dir, gone); err != nil {
		return err
	}
	if err := errors.Join(s.t.fs.SyncDir(dotMoult), s.t.sweepForgotten()); err != nil {
		return fmt.Errorf("%w: %w", ErrUnfinished, err)
	}
	return nil
}

// forgetPrefix begins the name of books that are on their way out.
const forgetPrefix = ".forget-"

// removeForgotten goes on removing the books of products that were forgotten,
// and says whether there were any.
func (t *Target) removeForgotten() (any bool, err error) {
	entries, err := os.ReadDir(t.abs(dotMoult))
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), forgetPrefix) {
			continue
		}
		if err := removeTree(t, dotMoult+"/"+e.Name()); err != nil {
			return true, err
		}
		any = true
	}
	if !any {
		return false, nil
	}
	return true, t.fs.SyncDir(dotMoult)
}

// sweepForgotten does that, and removes .moult if nothing else is in it: the
// last product takes it along. The lock goes with it, so the caller must not go
// on as if it had it.
func (t *Target) sweepForgotten() error {
	if _, err := t.removeForgotten(); err != nil {
		return err
	}
	if !t.remains() || exists(t.abs(dotMoult+"/journal")) && exists(t.abs(layoutFile)) {
		return nil // in use, or an owned target's journal, which recovery finishes
	}
	s := &state{t: t, layout: Shared, dir: dotMoult}
	return s.removeBooks()
}
