package deploy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"moult.example/internal/disk"
	"moult.example/internal/release"
)

// CommitOptions say how a generation is made live.
type CommitOptions struct {
	Name       string
	Generation int  // 0 or less: the newest that was staged and never committed
	NoHooks    bool // run no hook, ldconfig or systemctl
	Retention  Retention
}

func contains(list []string, s string) bool { return slices.Contains(list, s) }

// Apply stages a release and commits it.
//
// When it returns without an error, the release is live and on the disk. An
// error that is ErrUnfinished or ErrAfter says that something changed; any
// other says that nothing did. ctx is looked at for the last time just before
// the journal is written: from there the commit finishes.
func (t *Target) Apply(ctx context.Context, rel *release.Release, o ApplyOptions) (Result, error) {
	return t.deliver(ctx, rel, o, true)
}

// Stage makes a generation of a release, complete and durable, and changes
// nothing that anybody sees. A generation that was staged before and never
// committed is dropped.
func (t *Target) Stage(ctx context.Context, rel *release.Release, o ApplyOptions) (Result, error) {
	return t.deliver(ctx, rel, o, false)
}

// Plan says what Apply would do. It writes nothing.
func (t *Target) Plan(ctx context.Context, rel *release.Release, o ApplyOptions) (Plan, error) {
	s, err := t.choose(rel, o)
	if err != nil {
		return Plan{}, err
	}
	p, err := t.makePlan(ctx, s, rel, o)
	if err != nil {
		return Plan{}, err
	}
	if err := rel.Complete(ctx); err != nil {
		return Plan{}, err
	}
	if !p.same() {
		p.warnOfExtra(ctx)
	}
	if err := p.checkLinks(ctx, p.openSource); err != nil {
		return Plan{}, err
	}
	if p.links == nil && p.opts.Links != LinksIgnore && !p.same() {
		p.warn("whether its programs and libraries would load is not known before they are unpacked: apply and stage look")
	}
	r := p.report()
	r.Release = p.m.ID().String()
	r.CutShort = s.cutShort()
	return r, nil
}

func (t *Target) deliver(ctx context.Context, rel *release.Release, o ApplyOptions, commit bool) (res Result, err error) {
	layout, err := t.readLayout()
	if err != nil {
		return res, err
	}
	var first *plan
	bare := t.fs == nil
	if layout == "" {
		// A refusal must not leave a .moult where there was none.
		if first, err = t.firstPlan(ctx, rel, o); err != nil {
			return res, err
		}
	}
	unlock, err := t.lock(ctx)
	if err != nil {
		return res, err
	}
	defer unlock()
	if _, err := t.removeForgotten(); err != nil {
		return res, err
	}
	if layout, err = t.readLayout(); err != nil || layout != "" {
		first = nil // another moult was faster
	}
	s, err := t.choose(rel, o)
	if err != nil {
		return res, err
	}
	recovered, err := t.recoverAll(s)
	if err != nil {
		return res, err
	}
	p, err := t.makePlan(ctx, s, rel, o)
	if err != nil {
		return res, err
	}
	defer p.endAhead()
	if first != nil {
		p.links, p.linkWarnings, p.loadables, p.loadablesKnown = first.links, first.linkWarnings, first.loadables, first.loadablesKnown
	}
	res, err = p.run(ctx, commit)
	if first != nil && err != nil && !errors.Is(err, ErrUnfinished) && !errors.Is(err, ErrAfter) && s.isBare() {
		err = errors.Join(err, t.unmake(bare))
	}
	if recovered != nil && !recovered.Nothing {
		res.Recovered = recovered
	}
	return res, err
}

// firstPlan plans the first release of a target, and looks at its links already.
func (t *Target) firstPlan(ctx context.Context, rel *release.Release, o ApplyOptions) (*plan, error) {
	s, err := t.choose(rel, o)
	if err != nil {
		return nil, err
	}
	p, err := t.makePlan(ctx, s, rel, o)
	if err != nil {
		return nil, err
	}
	if err := p.checkLinks(ctx, p.openSource); err != nil {
		return nil, err
	}
	if len(p.problems) > 0 {
		return nil, &RefusedError{p.problems}
	}
	return p, nil
}

// isBare says that nothing but a product's empty books is there: no release, no
// commit under way, nothing of what was there before.
func (s *state) isBare() bool {
	ns, err := s.generations()
	if err != nil || exists(s.abs("journal")) {
		return false
	}
	if s.layout == Owned {
		return len(ns) == 0 && !exists(s.abs("live"))
	}
	objects, err := os.ReadDir(s.abs("objects"))
	return (err == nil || errors.Is(err, fs.ErrNotExist)) && len(objects) == 0 && slices.Max(append(ns, 0)) == 0
}

// unmake takes away what was made for the first release of a target, when that
// has come to nothing; with all, the directory itself, too.
func (t *Target) unmake(all bool) error {
	err := errors.Join(t.unregister(), removeTree(t, dotMoult), t.fs.SyncDir("."))
	if err == nil && all {
		var parent disk.FS
		if parent, err = t.opts.Disk(filepath.Dir(t.path)); err == nil {
			err = errors.Join(parent.Remove(filepath.Base(t.path)), parent.SyncDir("."), closeDisk(parent), closeDisk(t.fs))
			t.fs = nil
		}
	}
	if err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	return nil
}

// run does the work of a plan, under the lock.
func (p *plan) run(ctx context.Context, commit bool) (Result, error) {
	s := p.s
	res := Result{Schema: 1, Target: Path(s.t.path), Layout: s.layout, Name: s.name, From: p.live, Generation: p.live, Job: "apply"}
	if !commit {
		res.Job = "stage"
	}
	if len(p.problems) > 0 {
		return res, &RefusedError{p.problems}
	}
	if p.same() {
		return p.nothingToDo(ctx, res)
	}
	if err := p.checkLinks(ctx, p.openSource); err != nil {
		return res, err
	}
	if len(p.problems) > 0 {
		return res, &RefusedError{p.problems}
	}
	if s.layout == Shared || p.live == noGeneration { // else all is there, and durable
		if err := s.setUp(); err != nil {
			return res, err
		}
	}
	if err := p.readLive(); err != nil {
		return res, err // a shared target has its generation 0 by now
	}
	if err := s.t.register(); err != nil {
		return res, err
	}
	p.warnOfExtra(ctx)
	p.waits = !commit
	n, err := p.stage(ctx)
	if err != nil {
		return res, err
	}
	p.count(&res)
	res.Release, res.Version, res.Warnings = s.t.idOf(p.m), p.m.Version, slices.Concat(p.warnings, p.linkWarnings)
	res.Links = p.links
	if !commit {
		if s.layout == Owned {
			p.saveCache()
		}
		res.Generation, res.Collected = n, p.reused
		r := s.t.newRecord("stage", p.live, n)
		r.Release, r.Version = res.Release, res.Version
		return res, s.record(r)
	}
	res.From = p.live
	err = s.commitLocked(ctx, n, &res, commitHow{job: jobCommit, noHooks: p.opts.NoHooks, adopt: p.adopt, synced: true})
	if err != nil && !errors.Is(err, ErrUnfinished) && !errors.Is(err, ErrAfter) {
		return res, errors.Join(err, s.removeGeneration(n), p.recordSpent())
	}
	if err == nil {
		p.opts.Retention.closed = p.closed
		if s.layout == Owned {
			s.beforeTake = func() {
				p.early, s.watched = p.looks(), unwritten{}
				for _, st := range p.early {
					s.watched.add(st)
				}
			}
		}
		res.Collected, res.Warnings = s.collectAfter(ctx, p.opts.Retention, res.Warnings)
		s.beforeTake = nil
		if p.early != nil {
			p.stayed = false // a file that stayed may have lost another name
		}
		res.Collected = append(p.reused, res.Collected...)
		p.saveCache() // last: removing other names of a file moves its change time
		s.watched = nil
	}
	return res, err
}

// warnOfExtra names what people have put among an owned release's own files: it
// stays in its generation, out of sight once another one is live.
func (p *plan) warnOfExtra(ctx context.Context) {
	if p.s.layout != Owned || p.live == noGeneration {
		return
	}
	dirs := []string{"."}
	for i := range p.liveM.Entries {
		e := &p.liveM.Entries[i]
		if e.Type == release.Dir && p.touched(e.Path) {
			dirs = append(dirs, e.Path)
		}
	}
	extra, err := p.s.extraIn(ctx, p.live, p.liveM, dirs)
	if err != nil || len(extra) == 0 {
		return
	}
	p.warn("%s (%d in all) is no release's and stays in generation %d, below %s", extra[0].Quoted(), len(extra), p.live, p.s.abs(genDir(p.live)))
}

// nothingToDo ends a job whose release is live already.
func (p *plan) nothingToDo(ctx context.Context, res Result) (Result, error) {
	res.Unchanged, res.Release, res.Version, res.Warnings = true, p.m.ID().String(), p.m.Version, p.warnings
	p.count(&res)
	p.saveSourceCache()
	if p.cache.missed.Load() {
		p.saveCache()
	}
	if res.Job == "stage" || p.opts.NoHooks {
		return res, nil
	}
	warnings, err := p.s.runAgain(p.live, p.liveM)
	res.Warnings = append(res.Warnings, warnings...)
	return res, err
}

func (p *plan) count(res *Result) {
	for i := range p.steps {
		st := &p.steps[i]
		if st.act == actKeep {
			res.Kept = append(res.Kept, Path(st.is))
			if st.besideMe {
				res.New = append(res.New, Path(st.is+newSuffix))
				res.CopyBytes += st.e.Size
			}
		}
		if st.e.Type == release.Dir {
			continue
		}
		switch {
		case st.act != actCopy:
			res.Same++
		case st.found == nil:
			res.Added++
		case st.why == "" && st.e.Keep:
			res.Same++
		default:
			res.Replaced++
		}
		if st.act == actCopy && st.e.HardLink == "" {
			res.CopyBytes += st.e.Size
		}
	}
	for _, e := range p.removed {
		if e.Type != release.Dir {
			res.Removed++
		}
	}
	res.Mended = p.mended
}
