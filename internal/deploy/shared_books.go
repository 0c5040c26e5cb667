package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"moult.example/internal/release"
	"moult.example/internal/stale"
)

// found is what a commit took away from under a generation, in found.json of
// that generation: for each path, what was there, be it the release's file, one
// that the user had changed, or somebody else's; and where it lies now.
type found struct {
	Schema int         `json:"schema"`
	Paths  []foundPath `json:"paths"`
}

type foundPath struct {
	Path  Path   `json:"path"`
	Keep  Path   `json:"keep"`
	Entry *entry `json:"entry"`

	// Claimed: it was not displaced, since the release wanted just that; it lies
	// at Keep once something else has displaced it.
	Claimed bool `json:"claimed,omitempty"`
}

// writeFound remembers what a journal displaces.
func (s *state) writeFound(j *journal) error {
	f := found{Schema: 1, Paths: slices.Clone(j.Claims)}
	for _, o := range j.Ops {
		if o.Keep != "" && o.Old != nil {
			f.Paths = append(f.Paths, foundPath{Path: o.Path, Keep: o.Keep, Entry: o.Old})
		}
	}
	if j.From != noGeneration && exists(s.abs(genDir(j.From))) {
		f.Paths = append(s.stillHeld(j.From, f.Paths), f.Paths...)
		if err := writeJSON(s.t.fs, s.file(genDir(j.From)+"/found.json"), f); err != nil {
			return err
		}
	}
	if j.Job != jobRollback {
		return nil
	}
	// What was displaced from there has been given back, but where another product
	// has a file by now: it comes back when that is gone. Books of others that
	// cannot be read are no reason not to recover.
	others, err := s.otherProducts()
	given := func(f foundPath) bool { return !f.Claimed && err == nil && others[string(f.Path)] == "" }
	left := slices.DeleteFunc(s.stillHeld(j.Generation, nil), given)
	return writeJSON(s.t.fs, s.file(genDir(j.Generation)+"/found.json"), found{Schema: 1, Paths: left})
}

// stillHeld is what is remembered of a generation on paths that are not among
// these. Of one that is live that is claims, and what it could not get back.
func (s *state) stillHeld(n int, but []foundPath) []foundPath {
	held := []foundPath{}
	have, err := s.readFound(n)
	if err != nil {
		return held
	}
	for _, path := range sortedKeys(have) {
		if !slices.ContainsFunc(but, func(f foundPath) bool { return string(f.Path) == path }) {
			held = append(held, have[path])
		}
	}
	return held
}

// readFound is what was displaced from a generation, by path. Only what still
// lies there counts.
func (s *state) readFound(n int) (map[string]foundPath, error) {
	var f found
	err := readJSON(s.abs(genDir(n)+"/found.json"), &f)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	paths := map[string]foundPath{}
	for _, p := range f.Paths {
		if cleanPath(string(p.Path)) && cleanPath(string(p.Keep)) && (p.Claimed || exists(s.t.abs(string(p.Keep)))) {
			paths[string(p.Path)] = p
		}
	}
	return paths, nil
}

// deferred are names that a commit should have removed, but that a process
// still maps.
type deferred struct {
	Schema int  `json:"schema"`
	Ops    []op `json:"ops"`
}

func (s *state) readDeferred() ([]op, error) {
	var d deferred
	err := readJSON(s.abs("deferred.json"), &d)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return d.Ops, err
}

func (s *state) saveDeferred(ops []op) error {
	if len(ops) == 0 {
		err := s.t.fs.Remove(s.file("deferred.json"))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return writeJSON(s.t.fs, s.file("deferred.json"), deferred{Schema: 1, Ops: ops})
}

// writeDeferred adds what a journal defers, and forgets what is wanted again.
func (s *state) writeDeferred(j *journal) error {
	have, err := s.readDeferred()
	if err != nil {
		return err
	}
	m, err := s.manifest(j.Generation)
	if err != nil {
		return err
	}
	var ops []op
	for _, o := range append(have, j.Defer...) {
		again := slices.ContainsFunc(ops, func(p op) bool { return p.Path == o.Path })
		if !again && m.Find(string(o.Path)) == nil {
			ops = append(ops, o)
		}
	}
	if len(have) == 0 && len(ops) == 0 {
		return nil
	}
	return s.saveDeferred(ops)
}

// made are the directories that commits have made here: only those may go when
// no release needs them. One that was there before, even empty, is not ours.
type made struct {
	Schema int    `json:"schema"`
	Dirs   []Path `json:"dirs"`
}

func (s *state) readMade() (map[string]bool, error) {
	var m made
	if err := readJSON(s.abs("made.json"), &m); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	dirs := map[string]bool{}
	for _, dir := range m.Dirs {
		dirs[string(dir)] = true
	}
	return dirs, nil
}

// writeMade adds the directories that a journal makes.
func (s *state) writeMade(j *journal) error {
	dirs, err := s.readMade()
	if err != nil {
		return err
	}
	before := len(dirs)
	for _, o := range j.Ops {
		if o.Kind == "mkdir" {
			dirs[string(o.Path)] = true
		}
	}
	if len(dirs) == before {
		return nil
	}
	m := made{Schema: 1}
	for _, dir := range sortedKeys(dirs) {
		m.Dirs = append(m.Dirs, Path(dir))
	}
	return writeJSON(s.t.fs, s.file("made.json"), m)
}

// stagedOps puts the operations of a staged generation into a journal, in the
// order of a commit; and those that have to wait, since a process maps what they
// would remove.
func (s *state) stagedOps(ctx context.Context, n int, j *journal) error {
	st, err := s.readStaging(genDir(n))
	if err != nil {
		return err
	}
	if st == nil {
		return fmt.Errorf("%s: %d: %w", s.t.path, n, ErrNoGeneration)
	}
	if j.Ops, j.Defer, err = s.splitMapped(ctx, st.Ops); err != nil {
		return err
	}
	j.Claims = st.Claims
	s.order(j.Ops)
	return nil
}

// splitMapped sets those removals apart whose file a process executes or maps.
func (s *state) splitMapped(ctx context.Context, all []op) (ops, wait []op, err error) {
	var files []stale.Inode
	var of []int
	for i, o := range all {
		var st unix.Stat_t
		if o.Kind == "remove" && unix.Lstat(s.t.abs(string(o.Path)), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			files = append(files, stale.Inode{Dev: uint64(st.Dev), Ino: st.Ino})
			of = append(of, i)
		}
	}
	if len(files) == 0 {
		return all, nil, nil
	}
	report, err := stale.UsersOf(ctx, stale.Options{Proc: s.t.opts.Proc}, files)
	if err != nil {
		return nil, nil, err
	}
	mapped := map[int]bool{}
	for _, u := range report.Users {
		for _, use := range u.Uses {
			mapped[of[use.Of]] = true
		}
	}
	for i, o := range all {
		if mapped[i] && !s.forLoader(o.Path) {
			wait = append(wait, o)
		} else {
			ops = append(ops, o)
		}
	}
	return ops, wait, nil
}

// forLoader says that ldconfig(8) would find a library under this name. It
// links each soname to the highest version in the directory: one that had to be
// removed and stays would undo a rollback. Who maps it keeps it all the same.
func (s *state) forLoader(path Path) bool {
	return strings.Contains(filepath.Base(string(path)), ".so") && len(loaderDirs([]string{s.t.abs(parentOf(string(path)))})) > 0
}

// checkPlanned looks a last time at each path of a journal, and remembers what
// is there, for the check after the exchange.
func (s *state) checkPlanned(j *journal) error {
	var problems []Problem
	for i := range j.Ops {
		o := &j.Ops[i]
		err := unix.Lstat(s.t.abs(string(o.Path)), &o.planned)
		switch {
		case err == unix.ENOENT && o.Old == nil, o.Kind == "rmdir", o.Kind == "meta":
			continue
		case err == unix.ENOENT:
			problems = append(problems, Problem{o.Path, "was removed since this was planned", "stage again"})
		case err != nil:
			return &fs.PathError{Op: "lstat", Path: s.t.abs(string(o.Path)), Err: err}
		case o.Old == nil:
			problems = append(problems, Problem{o.Path, "was made by somebody since this was planned", "stage again"})
		case !s.stillIs(o):
			problems = append(problems, Problem{o.Path, "was changed since this was planned", "stage again"})
		}
	}
	if len(problems) > 0 {
		return &RefusedError{problems}
	}
	return nil
}

// stillIs compares what is cheap to compare: a change of bytes that keeps the
// size moves the time.
func (s *state) stillIs(o *op) bool {
	e, _, err := lstat(s.t.abs(string(o.Path)))
	if err != nil {
		return false
	}
	return string(e.Type) == o.Old.Type && e.Mode == o.Old.Mode && e.Owner == o.Old.Owner && e.Group == o.Old.Group &&
		e.Size == o.Old.Size && e.Text == string(o.Old.Text) && (o.Old.MTime == 0 || e.MTime == o.Old.MTime)
}

// zero makes generation 0 of a shared target: nothing is placed, and what the
// first release displaces will be found there.
func (s *state) zero() error {
	if exists(s.abs(genDir(0))) {
		return nil
	}
	dir := s.file(stageDir(0))
	if err := makeDir(s.t.fs, dir); err != nil {
		return err
	}
	empty := &release.Manifest{}
	info := Info{Schema: 1, Release: empty.ID().String(), Name: s.name, Time: s.t.opts.Now().UTC(), Base: noGeneration, Adopted: true}
	data, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"manifest": empty.Encode(), "info.json": append(data, '\n'), "committed": nil} {
		if err := writeFile(s.t.fs, dir+"/"+name, content, true); err != nil {
			return err
		}
	}
	if err := s.t.fs.SyncDir(dir); err != nil {
		return err
	}
	if err := s.t.fs.Place(dir, s.file(genDir(0))); err != nil {
		return err
	}
	if err := s.t.fs.SyncDir(s.file("generations")); err != nil {
		return err
	}
	if err := s.point(0); err != nil {
		return err
	}
	return s.t.fs.SyncDir(s.dir)
}
