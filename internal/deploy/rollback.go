package deploy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"moult.example/internal/release"
)

// RollbackOptions say where to go back to.
type RollbackOptions struct {
	Name       string
	Generation int    // -1: the one that was live before, but for those that a rollback with Because has left
	NoHooks    bool   // run no hook, ldconfig or systemctl
	DryRun     bool   // check that it can be done, and change nothing
	Because    string // why the live generation is no good, for the history: "not healthy"; "" if nobody says so
}

// Rollback makes an earlier generation live again, after it has been verified
// byte for byte: somebody may have written into a file of it. Processes that
// still run that generation's files are no longer stale: they are the same
// inodes.
func (t *Target) Rollback(ctx context.Context, o RollbackOptions) (Result, error) {
	if o.DryRun {
		return t.tryRollback(ctx, o)
	}
	return t.locked(ctx, o.Name, func(s *state, res *Result) error {
		n, how, err := s.prepareRollback(ctx, o, res)
		if err != nil || res.Unchanged {
			return err
		}
		if err := s.commitLocked(ctx, n, res, how); errors.Is(err, ErrUnfinished) {
			return err // the journal needs what was laid out
		} else if err != nil {
			return errors.Join(err, s.sweep(&Recovered{}))
		}
		if err := s.sweep(&Recovered{}); err != nil {
			res.Warnings = append(res.Warnings, "what was laid out for it is still there, the next command removes it: "+err.Error())
		}
		return nil
	})
}

// prepareRollback finds the generation to go back to and sees that it can be
// done; but for a dry run it lays out what the commit needs.
func (s *state) prepareRollback(ctx context.Context, o RollbackOptions, res *Result) (n int, how commitHow, err error) {
	res.Job = "rollback"
	if n, err = s.rollbackTo(o.Generation, res); err != nil {
		return n, how, err
	}
	if err := s.summarise(n, res); err != nil {
		return n, how, err
	}
	if n == res.From {
		res.Unchanged = true
		return n, how, nil
	}
	how = commitHow{job: jobRollback, noHooks: o.NoHooks, because: o.Because}
	if s.layout == Owned {
		if err := s.readyOwned(ctx, n, res, o.DryRun); err != nil {
			return n, how, err
		}
		return n, how, s.reportKept(n, res)
	}
	return n, how, s.readyShared(ctx, n, res, &how, o.DryRun)
}

// tryRollback is a dry run: it takes no lock and writes nothing, so it cannot
// recover first either.
func (t *Target) tryRollback(ctx context.Context, o RollbackOptions) (res Result, err error) {
	s, err := t.state(o.Name)
	if err != nil {
		return res, err
	}
	res = Result{Schema: 1, Target: Path(t.path), Layout: s.layout, Name: s.name}
	if res.From, err = s.live(); err != nil {
		return res, err
	}
	n, _, err := s.prepareRollback(ctx, o, &res)
	res.Generation = n
	if err == nil && s.cutShort() {
		err = fmt.Errorf("%s: %w", t.path, ErrCutShort)
	}
	return res, err
}

// rollbackTo finds the generation to go back to.
func (s *state) rollbackTo(n int, res *Result) (int, error) {
	live := res.From
	if live == noGeneration {
		return 0, fmt.Errorf("%s: nothing is live here: %w", s.t.path, ErrNoGeneration)
	}
	if n < 0 {
		prev, passed, err := s.previous(live)
		if err != nil {
			return 0, err
		}
		if prev == noGeneration && len(passed) > 0 {
			return 0, fmt.Errorf("%s: %w before %d but %s; its number goes there all the same", s.t.path, ErrNoGeneration, live, passed[0])
		}
		if prev == noGeneration {
			return 0, fmt.Errorf("%s: %w: none was live before %d", s.t.path, ErrNoGeneration, live)
		}
		for _, p := range passed {
			res.Warnings = append(res.Warnings, fmt.Sprintf("generation %s: passed over; its number goes there all the same", p))
		}
		return prev, nil
	}
	if !exists(s.abs(genDir(n))) {
		have, _ := s.generations()
		list := strings.Trim(strings.ReplaceAll(fmt.Sprint(have), " ", ", "), "[]")
		return 0, fmt.Errorf("%s: %d: %w: it has %s", s.t.path, n, ErrNoGeneration, list)
	}
	return n, nil
}

// passedOver is a generation that nobody wants back who does not say so.
type passedOver struct {
	n       int
	because string
}

func (p passedOver) String() string {
	return fmt.Sprintf("%d, which a rollback has left: %s", p.n, p.because)
}

// previous is the generation that was live before this one: what the last
// commit came from, or, where the history does not say, the highest below it.
// What was left for a reason is passed over.
func (s *state) previous(live int) (n int, passed []passedOver, err error) {
	records, err := s.history()
	if err != nil {
		return noGeneration, nil, err
	}
	why := badOnes(records)
	no := func(n int) bool {
		p := passedOver{n, why[n]}
		if p.because != "" && !slices.Contains(passed, p) {
			passed = append(passed, p)
		}
		return p.because != ""
	}
	for _, r := range slices.Backward(records) {
		if r.switched() && r.To == live && r.From != live && exists(s.abs(genDir(r.From))) && !no(r.From) {
			return r.From, passed, nil
		}
	}
	ns, err := s.generations()
	if err != nil {
		return noGeneration, nil, err
	}
	for _, n := range slices.Backward(ns) {
		if n < live && s.committed(n) && !no(n) {
			return n, passed, nil
		}
	}
	return noGeneration, passed, nil
}

// badOnes are the generations that were left for a reason when they were left
// last, and why.
func badOnes(records []Record) map[int]string {
	why := map[int]string{}
	for _, r := range records {
		if r.switched() {
			why[r.From] = r.Because
		}
	}
	return why
}

// switched says that another generation is live since.
func (r Record) switched() bool {
	switch r.Job {
	case jobCommit, jobRollback, jobAdopt:
		return r.Result != "undone"
	}
	return false
}

// readyOwned verifies the generation, and takes over into it what the user has
// changed in files that are theirs to change.
func (s *state) readyOwned(ctx context.Context, n int, res *Result, dry bool) error {
	m, err := s.manifest(n)
	if err != nil {
		return err
	}
	damage, err := s.verifyGeneration(ctx, n, m, newKnown())
	if err != nil {
		return err
	}
	if len(damage) > 0 {
		return refuse(string(damage[0].Path), fmt.Sprintf("generation %d is not what it was: %s (%d in all)", n, damage[0].Why, len(damage)), "apply its release again, or roll back to another generation")
	}
	return s.carryKeeps(n, m, res, dry)
}

// carryKeeps takes over into a generation that is to be live what the user has
// changed in the live one since it came, in files that are theirs to change.
func (s *state) carryKeeps(n int, m *release.Manifest, res *Result, dry bool) error {
	if res.From == noGeneration {
		return nil
	}
	live, err := s.manifest(res.From)
	if err != nil {
		return err
	}
	info, err := s.info(res.From)
	if err != nil {
		return err
	}
	for i := range m.Entries {
		e := &m.Entries[i]
		was := live.Find(e.Path)
		if !e.Keep || was == nil || e.Type != release.File {
			continue
		}
		if err := s.keepOnRollback(n, e, was, res, ownersOf(info), dry); err != nil {
			return err
		}
	}
	for i := range live.Entries {
		if e := &live.Entries[i]; m.Find(e.Path) == nil && s.changedHere(s.file(genDir(res.From)), e) {
			res.Warnings = append(res.Warnings, fmt.Sprintf("%s was changed here, and generation %d has it not: that version stays with generation %d", Path(e.Path).Quoted(), n, res.From))
		}
	}
	return nil
}

// keepOnRollback carries one file of the user's into the generation that is to
// be live again. Nobody reaches that generation yet, and the step can be done
// again.
func (s *state) keepOnRollback(n int, e, was *release.Entry, res *Result, who *owners, dry bool) error {
	from, to := s.file(genDir(res.From)+"/"+e.Path), s.file(genDir(n)+"/"+e.Path)
	now, err := find(s.t.abs(from), "", nil)
	if errors.Is(err, fs.ErrNotExist) {
		now, err = release.Entry{}, nil
	}
	if err != nil {
		return err
	}
	uid, gid, err := who.of(was)
	if err != nil || now.Type != 0 && differs(was, uid, gid, &now, false) == "" {
		return err
	}
	res.Kept = append(res.Kept, Path(e.Path))
	if dry {
		return nil
	}
	return s.carryBack(n, e, from, to, &now, res)
}

func (s *state) carryBack(n int, e *release.Entry, from, to string, now *release.Entry, res *Result) error {
	fsys := s.t.fs
	dir := parentOf(to)
	old, err := find(s.t.abs(to), "", nil)
	if err == nil && old.Type == release.File && (now.Type == 0 || old.Digest != now.Digest) && old.Digest == e.Digest {
		// Never over what is there: it may be the user's notes, or the release's.
		switch err := fsys.Place(to, to+newSuffix); {
		case err == nil:
			res.New = append(res.New, Path(e.Path+newSuffix))
		case errors.Is(err, fs.ErrExist), errors.Is(err, unix.ENAMETOOLONG):
			res.Warnings = append(res.Warnings, fmt.Sprintf("the release's own %s is not laid beside the changed one: %v", Path(e.Path).Quoted(), err))
		default:
			return err
		}
	}
	if now.Type == 0 {
		if err := fsys.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return fsys.SyncDir(dir)
	}
	// Under a name that the next recovery takes for a stage that was cut short.
	next, err := s.next()
	if err != nil {
		return err
	}
	temp := s.file(stageDir(next))
	if err := copyFound(s.t, from, temp, now); err != nil {
		return err
	}
	if err := fsys.SyncFS(); err != nil {
		return err
	}
	if err := fsys.Rename(temp, to); err != nil {
		return errors.Join(err, fsys.Remove(temp))
	}
	return errors.Join(fsys.SyncDir(dir), fsys.SyncDir(s.file("generations")))
}
