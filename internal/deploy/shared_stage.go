package deploy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"moult.example/internal/release"
)

// staging is what a stage in a shared target has laid out, in staged.json: it
// is durable before the first temporary is made, so that no temporary can be
// left behind that nobody knows of.
type staging struct {
	Schema int         `json:"schema"`
	Ops    []op        `json:"ops"`
	Claims []foundPath `json:"claims,omitempty"` // was there before, just as the release wants it
}

// tempPrefix begins the names of temporaries. A name with a dot is taken by no
// glob and no loader, and ldconfig(8) passes it over; it is not made from the
// file's own name, which may be 255 bytes long.
const tempPrefix = ".moult-"

func tempName() string {
	var b [8]byte
	rand.Read(b[:])
	return tempPrefix + hex.EncodeToString(b[:])
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// stageShared lays every new file beside where it will be.
func (b *stager) stageShared(ctx context.Context) error {
	fsys := b.s.t.fs
	if err := makeDir(fsys, b.dir); err != nil {
		return err
	}
	works := b.sharedWork()
	staged := staging{Schema: 1}
	for i := range works {
		staged.Ops = append(staged.Ops, works[i].op)
	}
	staged.Ops = append(staged.Ops, b.removals()...)
	staged.Claims = b.claims()
	if err := writeJSON(fsys, b.dir+"/staged.json", staged); err != nil {
		return err
	}
	if err := errors.Join(fsys.SyncDir(b.dir), fsys.SyncDir(b.s.file("generations"))); err != nil {
		return err
	}
	temps := map[string]string{} // first name of a group of hard links → its temporary
	var files []*work
	for i := range works {
		w := &works[i]
		switch {
		case w.op.Kind == "mkdir":
			if err := fsys.Mkdir(string(w.op.Temp)); err != nil {
				return forPath(w.op.Path, err)
			}
			if err := fsys.SetMeta(string(w.op.Temp), b.metaOf(w.st)); err != nil {
				return forPath(w.op.Path, err)
			}
		case w.op.Kind == "meta" || w.st.e.HardLink != "" && !w.beside:
		default:
			temps[w.st.e.Path] = string(w.op.Temp)
			w.st.staged = string(w.op.Temp)
			files = append(files, w)
		}
	}
	err := parallel(ctx, len(files), func(i int) error { return forPath(files[i].op.Path, b.makeTemp(files[i])) })
	if err != nil {
		return err
	}
	for i := range works {
		if w := &works[i]; w.st.e.HardLink != "" && !w.beside && w.op.Temp != "" {
			w.st.staged = string(w.op.Temp)
			if err := fsys.Link(temps[w.st.e.HardLink], string(w.op.Temp)); err != nil {
				return err
			}
		}
	}
	return b.writeBooks()
}

// claims are the files that were there before this product, and are what it
// would have placed. Nothing is done to them, but a rollback must not take them
// away.
func (b *stager) claims() []foundPath {
	var claims []foundPath
	for i := range b.steps {
		st := &b.steps[i]
		if st.act != actLink || st.found == nil || st.e.Type == release.Dir || b.liveM != nil && b.liveM.Find(st.e.Path) != nil {
			continue
		}
		claims = append(claims, foundPath{Path: Path(st.is), Keep: Path(b.s.keepName(st.is, st.found)), Entry: toJSON(st.found), Claimed: true})
	}
	return claims
}

// forPath adds to an error which file it is about: a temporary's name says nothing.
func forPath(path Path, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", path.Quoted(), err)
}

// work is one operation with the step that it comes from.
type work struct {
	op     op
	st     *step
	beside bool
}

// sharedWork lists what is to be placed, directories first.
func (b *stager) sharedWork() []work {
	var works []work
	for i := range b.steps {
		st := &b.steps[i]
		want := fixOwners(*st.e, st.uid, st.gid)
		switch {
		case st.e.Type == release.Dir && st.found == nil:
			works = append(works, work{op: op{Kind: "mkdir", Path: Path(st.is), Temp: b.s.tempFor(st.is), New: toJSON(&want)}, st: st})
		case st.e.Type == release.Dir:
			if o, ok := b.dirMeta(st, &want); ok {
				works = append(works, work{op: o, st: st})
			}
		case st.act == actCopy:
			works = append(works, work{op: b.placing(st.is, st.found, &want), st: st})
		case st.besideMe:
			var there *release.Entry
			if found, err := find(b.s.t.abs(st.is+newSuffix), "", nil); err == nil {
				there = &found
			}
			works = append(works, work{op: b.placing(st.is+newSuffix, there, &want), st: st, beside: true})
		}
	}
	return works
}

// placing is the operation that puts want at a path.
func (b *stager) placing(path string, found, want *release.Entry) op {
	o := op{Kind: "place", Path: Path(path), Temp: b.s.tempFor(path), New: toJSON(want)}
	if found != nil {
		o.Kind, o.Old, o.Keep = "swap", toJSON(found), Path(b.s.keepName(path, found))
	}
	return o
}

// dirMeta changes the mode or owner of a directory that is ours, if the release
// has changed it. One that was there before us stays as it is.
func (b *stager) dirMeta(st *step, want *release.Entry) (op, bool) {
	if b.liveM == nil || st.found.Type != release.Dir {
		return op{}, false
	}
	was := b.liveM.Find(st.e.Path)
	if was == nil || was.Type != release.Dir || differs(st.e, st.uid, st.gid, st.found, false) == "" {
		return op{}, false
	}
	uid, gid, err := ownersOf(b.liveInfo).of(was)
	if err != nil || differs(st.e, st.uid, st.gid, ptr(fixOwners(*was, uid, gid)), false) == "" {
		return op{}, false
	}
	full, err := find(b.s.t.abs(st.is), "", nil)
	if err != nil {
		return op{}, false
	}
	return op{Kind: "meta", Path: Path(st.is), Old: toJSON(&full), New: toJSON(want)}, true
}

// tempFor is a temporary's name in the nearest directory that is there already:
// the same mount, label and quota as the place that it is for.
func (s *state) tempFor(path string) Path {
	dir := parentOf(path)
	for dir != "." && !exists(s.t.abs(dir)) {
		dir = parentOf(dir)
	}
	return Path(join(dir, tempName()))
}

func (b *stager) makeTemp(w *work) error {
	if w.st.e.Type == release.Symlink {
		if err := b.s.t.fs.Symlink(w.st.e.Text, string(w.op.Temp)); err != nil {
			return err
		}
		return b.s.t.fs.SetMeta(string(w.op.Temp), b.metaOf(w.st))
	}
	return b.copyFile(w.st, string(w.op.Temp))
}

// removals are the operations for what the live release has and the new one has
// not: files first, then the directories that are empty by then.
func (b *stager) removals() []op {
	var ops, dirs []op
	made, err := b.s.readMade()
	if err != nil {
		b.warn("directories that are empty now stay: %v", err)
	}
	for _, e := range slices.Backward(b.removed) {
		at, why := b.s.t.resolvePath(e.Path)
		if why != "" {
			continue // its directory is another thing by now
		}
		if e.Type == release.Dir {
			if found, _, err := lstat(b.s.t.abs(at)); err != nil || found.Type != release.Dir || !made[at] {
				continue // what the administrator has made stays
			}
			dirs = append(dirs, op{Kind: "rmdir", Path: Path(at)})
			continue
		}
		found, err := find(b.s.t.abs(at), at, b.cache)
		if err != nil || found.Type == release.Dir || found.Type == entryTypeOther {
			continue // gone, or another thing by now
		}
		if uid, gid, err := ownersOf(b.liveInfo).of(e); err == nil && e.Keep && differs(e, uid, gid, &found, false) != "" {
			continue // the user's
		}
		ops = append(ops, op{Kind: "remove", Path: Path(at), Old: toJSON(&found), Keep: Path(b.s.keepName(at, &found))})
	}
	return append(ops, dirs...)
}

// readStaging is what a stage has laid out; nil if it never came to that.
func (s *state) readStaging(dir string) (*staging, error) {
	var st staging
	err := readJSON(s.abs(dir+"/staged.json"), &st)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return &st, err
}

// removeTemps removes the temporaries that a stage has made and no commit has
// placed. Only names that are recorded and look like ours are touched.
func (s *state) removeTemps(dir string) error {
	st, err := s.readStaging(dir)
	if st == nil || err != nil {
		// It is written whole or not at all, and before the first temporary.
		return err
	}
	touched := map[string]bool{}
	for _, o := range st.Ops {
		temp := string(o.Temp)
		if temp == "" || !isTemp(temp) || !exists(s.t.abs(temp)) {
			continue
		}
		if err := removeTree(s.t, temp); err != nil {
			return err
		}
		touched[parentOf(temp)] = true
	}
	return s.syncDirs(touched)
}

func isTemp(name string) bool {
	base := filepath.Base(name)
	return len(base) == len(tempPrefix)+16 && base[:len(tempPrefix)] == tempPrefix && cleanPath(name)
}

// manyDirs is from how many directories on one syncfs(2) is cheaper than an
// fsync(2) each.
const manyDirs = 16

func (s *state) syncDirs(dirs map[string]bool) error {
	if len(dirs) > manyDirs {
		return s.t.fs.SyncFS()
	}
	for _, dir := range sortedKeys(dirs) {
		if !s.isReal(dir) {
			continue // removed by the same job, whose parent is among them, or somebody else's
		}
		if err := s.t.fs.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}
