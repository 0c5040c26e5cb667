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

// readyShared plans the way back: every path of the generation, and every path
// that the live one has and it has not, becomes what it was.
func (s *state) readyShared(ctx context.Context, n int, res *Result, how *commitHow, dry bool) error {
	b, err := s.planBack(n, res.From)
	if err != nil {
		return err
	}
	if err := s.checkHidden(b.liveM, b.m); err != nil {
		return err
	}
	for _, path := range sortedKeys(b.found) {
		b.problems = append(b.problems, fixedProblems(s.t.abs(string(b.found[path].Keep)))...) // it could not get its name back
	}
	if len(b.problems) > 0 {
		return &RefusedError{b.problems}
	}
	res.Kept = b.kept
	res.count(b.ops, b.m)
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

// count is what operations do, for a result: generation 0 has no manifest that
// would tell.
func (res *Result) count(ops []op, m *release.Manifest) {
	res.Added, res.Replaced, res.Removed, res.Same = 0, 0, 0, 0
	for i := range m.Entries {
		if m.Entries[i].Type != release.Dir {
			res.Same++
		}
	}
	for _, o := range ops {
		switch o.Kind {
		case "place":
			res.Added++
		case "swap":
			res.Replaced++
		case "remove":
			res.Removed++
		}
	}
	res.Same = max(0, res.Same-res.Added-res.Replaced)
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
	planned  map[string]bool // paths in the target that an entry of m has settled
	regroup  map[string]bool // paths of m that are not hard links as m wants them
}

func (s *state) planBack(n, live int) (*back, error) {
	b := &back{s: s, n: n, live: live, planned: map[string]bool{}}
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
	if b.problems, err = s.placedByOthers(b.m); err != nil {
		return nil, err
	}
	b.regroup = s.misgrouped(b.m)
	for i := range b.m.Entries {
		if err := b.want(&b.m.Entries[i]); err != nil {
			return nil, err
		}
	}
	// What is there now and is not the live release's is somebody's, and newer.
	ours := s.t.places(b.liveM)
	for _, path := range sortedKeys(b.found) {
		if !b.planned[path] && (ours[path] || !exists(s.t.abs(path))) {
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
		own := b.s.t.places(m)
		for path, f := range later {
			if _, have := b.found[path]; !have && !own[path] {
				b.found[path] = f
			}
		}
	}
	return nil
}

// want plans one entry of the generation.
func (b *back) want(e *release.Entry) error {
	at, why := b.s.t.resolvePath(e.Path)
	if why != "" {
		b.problems = append(b.problems, Problem{Path(parentOf(e.Path)), why, ""})
		return nil
	}
	b.planned[at] = true
	uid, gid, err := b.who.of(e)
	if err != nil {
		b.problems = append(b.problems, Problem{Path(e.Path), err.Error(), ""})
		return nil
	}
	want := fixOwners(*e, uid, gid)
	if e.Type == release.Dir {
		return b.wantDir(e, at, &want)
	}
	f, ok := b.found[at]
	if !ok {
		f = foundPath{Path: Path(at), Keep: Path(b.s.keepName(at, &want)), Entry: toJSON(&want)}
	}
	// One that the user has overwritten was never displaced: it is theirs too.
	if e.Keep && (b.theirs(e, at) || !exists(b.s.t.abs(string(f.Keep)))) {
		if now, err := b.s.lookAt(Path(at)); err != nil || now == nil || !now.is(f.Entry) {
			b.kept = append(b.kept, Path(at))
		}
		return nil
	}
	return b.restore(at, f)
}

// wantDir plans a directory: made again, or with the mode that it had, if the
// live release has given it another.
func (b *back) wantDir(e *release.Entry, at string, want *release.Entry) error {
	now, err := find(b.s.t.abs(at), "", nil)
	if errors.Is(err, fs.ErrNotExist) {
		b.ops = append(b.ops, op{Kind: "mkdir", Path: Path(at), New: toJSON(want)})
		return nil
	}
	was := b.liveM.Find(e.Path)
	if err != nil || now.Type != release.Dir || was == nil || entriesDiffer(e, was, false) == "" {
		return err
	}
	if differs(want, atoi(want.Owner), atoi(want.Group), &now, false) != "" {
		b.ops = append(b.ops, op{Kind: "meta", Path: Path(at), Old: toJSON(&now), New: toJSON(want)})
	}
	return nil
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
	same := !missing && differs(want, uid, gid, &now, b.m.Times) == ""
	// Equal bytes are not enough where it was displaced all the same: for its
	// hard links, or by a release of which it is a part no longer.
	_, displaced := b.found[path]
	if same && (!displaced && !b.regroup[path] || !b.otherInode(path, f.Keep)) {
		return nil
	}
	if !missing && (now.Type == release.Dir || now.Type == entryTypeOther) {
		b.problems = append(b.problems, Problem{Path(path), "is a directory or a special file now", "move it away"})
		return nil
	}
	kept, err := find(b.s.t.abs(string(f.Keep)), "", nil)
	if errors.Is(err, fs.ErrNotExist) && f.Claimed {
		return nil // somebody else's, and somebody else has changed it
	}
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

// otherInode says that what lies at keep is there, and another file than what
// is at path.
func (b *back) otherInode(path string, keep Path) bool {
	at := b.s.t.abs(string(keep))
	return exists(at) && !oneInode(at, b.s.t.abs(path))
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
			return forPath(o.Path, err)
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
