package deploy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"

	"moult.example/internal/release"
)

// RollbackOptions say where to go back to.
type RollbackOptions struct {
	Name       string
	Generation int  // -1: the one that was live before
	NoHooks    bool // run no hook, ldconfig or systemctl
	DryRun     bool // check that it can be done, and change nothing
}

// Rollback makes an earlier generation live again, after it has been verified
// byte for byte: somebody may have written into a file of it. Processes that
// still run that generation's files are no longer stale: they are the same
// inodes.
func (t *Target) Rollback(ctx context.Context, o RollbackOptions) (Result, error) {
	return t.locked(ctx, o.Name, func(s *state, res *Result) error {
		res.Job = "rollback"
		n, err := s.rollbackTo(o.Generation, res.From)
		if err != nil {
			return err
		}
		if err := s.summarise(n, res); err != nil {
			return err
		}
		if n == res.From {
			res.Unchanged = true
			return nil
		}
		how := commitHow{job: jobRollback, noHooks: o.NoHooks}
		if s.layout == Owned {
			err = s.readyOwned(ctx, n, res, o.DryRun)
		} else {
			err = s.readyShared(ctx, n, res, &how, o.DryRun)
		}
		if err != nil || o.DryRun {
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

// rollbackTo finds the generation to go back to.
func (s *state) rollbackTo(n, live int) (int, error) {
	if live == noGeneration {
		return 0, fmt.Errorf("%s: nothing is live here: %w", s.t.path, ErrNoGeneration)
	}
	if n < 0 {
		prev, err := s.previous(live)
		if err != nil {
			return 0, err
		}
		if prev == noGeneration {
			return 0, fmt.Errorf("%s: there is no generation before %d: %w", s.t.path, live, ErrNoGeneration)
		}
		return prev, nil
	}
	if !exists(s.abs(genDir(n))) {
		have, _ := s.generations()
		return 0, fmt.Errorf("%s: %d: %w: there are %v", s.t.path, n, ErrNoGeneration, have)
	}
	return n, nil
}

// previous is the generation that was live before this one: what the last
// commit came from, or, where the history does not say, the highest below it.
func (s *state) previous(live int) (int, error) {
	records, err := s.history()
	if err != nil {
		return noGeneration, err
	}
	for _, r := range slices.Backward(records) {
		switch r.Job {
		case jobCommit, jobRollback, jobAdopt:
			if r.To == live && r.From != live && r.Result != "undone" && exists(s.abs(genDir(r.From))) {
				return r.From, nil
			}
		}
	}
	ns, err := s.generations()
	if err != nil {
		return noGeneration, err
	}
	for _, n := range slices.Backward(ns) {
		if n < live && s.committed(n) {
			return n, nil
		}
	}
	return noGeneration, nil
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
	live, err := s.manifest(res.From)
	if err != nil {
		return err
	}
	liveInfo, err := s.info(res.From)
	if err != nil {
		return err
	}
	for i := range m.Entries {
		e := &m.Entries[i]
		was := live.Find(e.Path)
		if !e.Keep || was == nil || e.Type != release.File {
			continue
		}
		if err := s.keepOnRollback(n, e, was, res, ownersOf(liveInfo), dry); err != nil {
			return err
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
		if err := fsys.Rename(to, to+newSuffix); err != nil {
			return err
		}
		res.New = append(res.New, Path(e.Path+newSuffix))
	}
	if now.Type == 0 {
		return fsys.SyncDir(dir)
	}
	temp := join(dir, tempName())
	if err := copyFound(s.t, from, temp, now); err != nil {
		return err
	}
	if err := fsys.SyncFS(); err != nil {
		return err
	}
	if err := fsys.Rename(temp, to); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

// readyShared plans the way back: every path of the generation, and every path
// that the live one has and it has not, becomes what it was.
func (s *state) readyShared(ctx context.Context, n int, res *Result, how *commitHow, dry bool) error {
	b, err := s.planBack(n, res.From)
	if err != nil {
		return err
	}
	if len(b.problems) > 0 {
		return &RefusedError{b.problems}
	}
	res.Kept = b.kept
	if dry {
		return nil
	}
	ops, wait, err := s.splitMapped(ctx, b.ops)
	if err != nil {
		return err
	}
	if err := s.stageBack(ops); err != nil {
		return err
	}
	s.order(ops)
	how.ops, how.wait = ops, wait
	if how.ops == nil {
		how.ops = []op{}
	}
	return nil
}

// back is a rollback of a shared target, before anything is changed.
type back struct {
	s        *state
	n, live  int
	m, liveM *release.Manifest
	who      *owners
	found    map[string]foundPath // what was displaced from generation n
	ops      []op
	problems []Problem
	kept     []Path
}

func (s *state) planBack(n, live int) (*back, error) {
	b := &back{s: s, n: n, live: live}
	var err error
	if b.m, err = s.manifest(n); err != nil {
		return nil, err
	}
	if b.liveM, err = s.manifest(live); err != nil {
		return nil, err
	}
	info, err := s.info(n)
	if err != nil {
		return nil, err
	}
	b.who = ownersOf(info)
	if b.found, err = s.readFound(n); err != nil {
		return nil, err
	}
	if err := b.foreign(); err != nil {
		return nil, err
	}
	for i := range b.m.Entries {
		if err := b.want(&b.m.Entries[i]); err != nil {
			return nil, err
		}
	}
	for _, path := range sortedKeys(b.found) {
		if b.m.Find(path) == nil {
			if err := b.restore(path, b.found[path]); err != nil {
				return nil, err
			}
		}
	}
	return b, b.drop()
}

// foreign adds what later generations displaced on paths that generation n does
// not have: files of others, which come back. The latest counts.
func (b *back) foreign() error {
	ns, err := b.s.generations()
	if err != nil {
		return err
	}
	for _, n := range slices.Backward(ns) {
		if n <= b.n {
			break
		}
		m, err := b.s.manifest(n)
		if err != nil {
			return err
		}
		later, err := b.s.readFound(n)
		if err != nil {
			return err
		}
		for path, f := range later {
			_, have := b.found[path]
			if !have && b.m.Find(path) == nil && m.Find(path) == nil {
				b.found[path] = f
			}
		}
	}
	return nil
}

// want plans one entry of the generation.
func (b *back) want(e *release.Entry) error {
	at := e.Path
	if dir := parentOf(e.Path); dir != "." && exists(b.s.t.abs(dir)) {
		real, why := b.s.t.realDir(dir)
		if why != "" {
			b.problems = append(b.problems, Problem{Path(dir), why, ""})
			return nil
		}
		at = join(real, e.Path[len(dir)+1:])
	}
	uid, gid, err := b.who.of(e)
	if err != nil {
		b.problems = append(b.problems, Problem{Path(e.Path), err.Error(), ""})
		return nil
	}
	want := fixOwners(*e, uid, gid)
	if e.Type == release.Dir {
		if !exists(b.s.t.abs(at)) {
			b.ops = append(b.ops, op{Kind: "mkdir", Path: Path(at), New: toJSON(&want)})
		}
		return nil
	}
	f, ok := b.found[at]
	if !ok {
		f = foundPath{Path: Path(at), Keep: Path(b.s.keepName(at, &want)), Entry: toJSON(&want)}
	}
	if e.Keep && b.theirs(e, at) {
		b.kept = append(b.kept, Path(at))
		return nil
	}
	return b.restore(at, f)
}

// theirs says whether a file that the user may change was changed since the
// live release brought it.
func (b *back) theirs(e *release.Entry, at string) bool {
	was := b.liveM.Find(e.Path)
	if was == nil {
		return false
	}
	info, err := b.s.info(b.live)
	if err != nil {
		return false
	}
	uid, gid, err := ownersOf(info).of(was)
	now, err2 := find(b.s.t.abs(at), "", nil)
	return err != nil || err2 != nil || differs(was, uid, gid, &now, false) != ""
}

// restore plans that a path becomes what f says, unless it is that already.
func (b *back) restore(path string, f foundPath) error {
	want, err := f.Entry.entry(path)
	if err != nil {
		return err
	}
	now, err := find(b.s.t.abs(path), "", nil)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return err
	}
	uid, gid := atoi(want.Owner), atoi(want.Group)
	if !missing && differs(want, uid, gid, &now, false) == "" {
		return nil
	}
	if !missing && (now.Type == release.Dir || now.Type == entryTypeOther) {
		b.problems = append(b.problems, Problem{Path(path), "is a directory or a special file now", "move it away"})
		return nil
	}
	kept, err := find(b.s.t.abs(string(f.Keep)), "", nil)
	if errors.Is(err, fs.ErrNotExist) {
		b.problems = append(b.problems, Problem{Path(path), fmt.Sprintf("the bytes that generation %d had here are gone", b.n), "apply its release instead"})
		return nil
	}
	if err != nil {
		return err
	}
	if why := differs(want, uid, gid, &kept, false); why != "" {
		b.problems = append(b.problems, Problem{Path(path), "what was kept of it is not what it was: " + why, "apply its release instead"})
		return nil
	}
	o := op{Kind: "place", Path: Path(path), Temp: f.Keep, New: f.Entry} // Temp: until stageBack links it
	if !missing {
		o.Kind, o.Old, o.Keep = "swap", toJSON(&now), Path(b.s.keepName(path, &now))
	}
	b.ops = append(b.ops, o)
	return nil
}

// drop plans the removal of what only the live release has.
func (b *back) drop() error {
	planned := map[Path]bool{}
	for _, o := range b.ops {
		planned[o.Path] = true
	}
	st := &stager{plan: &plan{s: b.s, cache: newKnown()}}
	info, err := b.s.info(b.live)
	if err != nil {
		return err
	}
	st.liveInfo = info
	for i := range b.liveM.Entries {
		if e := &b.liveM.Entries[i]; b.m.Find(e.Path) == nil {
			st.removed = append(st.removed, e)
		}
	}
	for _, o := range st.removals() {
		if _, restored := b.found[string(o.Path)]; !restored && !planned[o.Path] {
			b.ops = append(b.ops, o)
		}
	}
	return nil
}

// stageBack lays everything that is to come back beside where it will be: new
// directories, and second names for the old files. The list of it is durable
// before, as in any stage.
func (s *state) stageBack(ops []op) error {
	from := map[Path]Path{} // temporary → where the old file lies
	var staged []op
	for i := range ops {
		o := &ops[i]
		switch o.Kind {
		case "mkdir":
			o.Temp = s.tempFor(string(o.Path))
		case "swap", "place":
			temp := s.tempFor(string(o.Path))
			from[temp], o.Temp = o.Temp, temp
		default:
			continue
		}
		staged = append(staged, *o)
	}
	if len(staged) == 0 {
		return nil
	}
	n, err := s.next()
	if err != nil {
		return err
	}
	stage := s.file(stageDir(n))
	if err := makeDir(s.t.fs, stage); err != nil {
		return err
	}
	if err := writeJSON(s.t.fs, stage+"/staged.json", staging{Schema: 1, Ops: staged}); err != nil {
		return err
	}
	if err := errors.Join(s.t.fs.SyncDir(stage), s.t.fs.SyncDir(s.file("generations"))); err != nil {
		return err
	}
	for _, o := range staged {
		if err := s.layBack(o, string(from[o.Temp])); err != nil {
			return err
		}
	}
	return s.t.fs.SyncFS()
}

func (s *state) layBack(o op, from string) error {
	if o.Kind == "mkdir" {
		if err := s.t.fs.Mkdir(string(o.Temp)); err != nil {
			return err
		}
		return s.setMeta(o.Temp, o.New)
	}
	err := s.t.fs.Link(from, string(o.Temp))
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EMLINK) || errors.Is(err, unix.EOPNOTSUPP) {
		found, err := find(s.t.abs(from), "", nil)
		if err != nil {
			return err
		}
		return copyFound(s.t, from, string(o.Temp), &found)
	}
	return err
}
