package reexec

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Change says which of the watched files are not what the program runs.
type Change struct {
	Replaced    []string // another file is at that path
	Overwritten []string // the very file was written to
	Missing     []string // there is none; an update may be in between
}

// watcher knows what the files were when the program became ready.
type watcher struct {
	mu    sync.Mutex
	paths []string // besides the executable
	base  map[string]fileStat
	from  string // the executable, links resolved
	inUse bool
}

// look is the state of all files at one time.
type look struct {
	resolved string
	stats    map[string]fileStat
}

func (l look) equal(o look) bool {
	return l.resolved == o.resolved && maps.Equal(l.stats, o.stats)
}

// begin notes the state of the libraries in use, at Ready.
func (w *watcher) begin(p *Process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.secure || p.trial {
		return
	}
	w.inUse = true
	w.from = p.selfPath
	w.base = map[string]fileStat{p.exe: p.selfStat}
	libraries := mappedLibraries()
	for path, deleted := range libraries {
		w.paths = append(w.paths, path)
		w.base[path] = fileStat{}
		if !deleted {
			w.base[path], _ = fileStatAt(path)
		}
	}
	for _, path := range p.opts.Watch {
		path = p.absolute(path)
		if _, known := w.base[path]; !known {
			w.paths = append(w.paths, path)
			w.base[path], _ = fileStatAt(path)
		}
	}
}

// mappedLibraries are the shared libraries that the process executes, and
// whether they were removed or replaced already.
func mappedLibraries() map[string]bool {
	libraries := map[string]bool{}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return libraries
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.SplitN(s.Text(), " ", 6) // address perms offset dev inode path
		if len(fields) < 6 || !strings.Contains(fields[1], "x") {
			continue
		}
		path, deleted := strings.CutSuffix(strings.TrimLeft(fields[5], " "), " (deleted)")
		if strings.HasPrefix(path, "/") && strings.Contains(filepath.Base(path), ".so") {
			libraries[path] = deleted
		}
	}
	return libraries
}

// look looks at all files now. Libraries that lie beside the executable, in one
// generation, are looked at in the generation to which the link leads now.
func (w *watcher) look(p *Process) look {
	l := look{stats: map[string]fileStat{}}
	l.resolved, _ = filepath.EvalSymlinks(p.exe)
	oldRoot, newRoot := movedRoots(w.from, l.resolved)
	l.stats[p.exe], _ = fileStatAt(p.exe)
	for _, path := range w.paths {
		now := path
		if rest, in := strings.CutPrefix(path, oldRoot+"/"); in && oldRoot != "" {
			now = newRoot + "/" + rest
		}
		l.stats[path], _ = fileStatAt(now)
	}
	return l
}

// movedRoots are the directories that differ, if two paths end alike: of
// /g/41/bin/app and /g/42/bin/app these are /g/41 and /g/42.
func movedRoots(from, to string) (string, string) {
	a, b := from, to
	for a != b {
		if filepath.Base(a) != filepath.Base(b) {
			return a, b
		}
		a, b = filepath.Dir(a), filepath.Dir(b)
	}
	return "", ""
}

// compare says what differs from what the program runs.
func (w *watcher) compare(l look) (c Change) {
	for path, now := range l.stats {
		base := w.base[path]
		switch {
		case now.ino == 0 && base.ino != 0:
			c.Missing = append(c.Missing, path)
		case now.ino == 0:
		case !now.sameFile(base):
			c.Replaced = append(c.Replaced, path)
		case !now.sameBytes(base):
			c.Overwritten = append(c.Overwritten, path)
		}
	}
	return c
}

// Changed looks at the watched files now, whether they have settled or not. It
// is false before Ready.
func (p *Process) Changed() (Change, error) {
	p.watch.mu.Lock()
	defer p.watch.mu.Unlock()
	if !p.watch.inUse {
		return Change{}, nil
	}
	c := p.watch.compare(p.watch.look(p))
	if _, err := fileStatAt(p.exe); err != nil {
		return c, fmt.Errorf("reexec: watch: %w", err)
	}
	return c, nil
}

// loop is what Run remembers from one look to the next.
type loop struct {
	p       *Process
	pending look      // seen last
	since   time.Time // when it was first seen
	done    look      // dealt with: rejected
	told    look      // of an overwritten file
	asked   bool      // an upgrade was asked for, and deferred
	tried   look      // of the upgrade that was deferred
	retry   time.Time // not before, unless something else has changed
	backoff time.Duration
}

func (p *Process) run(ctx context.Context) error {
	l := &loop{p: p}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(l.pause())
		var err error
		select {
		case <-ctx.Done():
			p.state.stopped(p)
			p.tellManager("STOPPING=1")
			return ctx.Err()
		case <-p.signals:
			l.asked, l.retry = true, time.Time{}
			err = l.step(ctx)
		case <-timer.C:
			err = l.step(ctx)
		}
		if errors.Is(err, ErrReplaced) {
			return err
		}
	}
}

// pause is the time to the next look.
func (l *loop) pause() time.Duration {
	o := l.p.opts
	next := o.Poll
	if next < 0 {
		next = time.Hour
	}
	if !l.since.IsZero() {
		next = min(next, max(o.Settle/4, 2*time.Millisecond))
	}
	if wait := time.Until(l.retry); wait > 0 {
		next = min(next, wait)
	}
	return next
}

// step looks, and upgrades if it is time to.
func (l *loop) step(ctx context.Context) error {
	p := l.p
	if p.trial || p.secure || !p.isReady() || p.opts.Poll < 0 && !l.asked {
		return nil
	}
	p.watch.mu.Lock()
	now := p.watch.look(p)
	change := p.watch.compare(now)
	p.watch.mu.Unlock()
	if time.Now().Before(l.retry) && now.equal(l.tried) {
		return nil
	}
	if len(change.Overwritten) > 0 && !now.equal(l.told) {
		l.told = now
		for _, path := range change.Overwritten {
			p.tell(Event{Kind: Overwritten, Path: path, Err: ErrOverwritten})
		}
	}
	wanted := len(change.Replaced) > 0 && !now.equal(l.done)
	if len(change.Missing) > 0 || !wanted && !l.asked {
		l.since = time.Time{}
		return nil
	}
	if !l.asked { // who asks, says that the files are complete
		if !l.settled(now) {
			return nil
		}
		if p.sameBytes(change, now) {
			l.since = time.Time{}
			return nil
		}
		if l.librariesChanged(now) {
			p.forgetPreflights()
		}
		for _, path := range change.Replaced {
			p.tell(Event{Kind: Changed, Path: path})
		}
	}
	return l.upgrade(ctx, now)
}

// settled says that nothing has changed for long enough.
func (l *loop) settled(now look) bool {
	if l.since.IsZero() || !now.equal(l.pending) {
		l.pending, l.since = now, time.Now()
		return false
	}
	return time.Since(l.since) >= l.p.opts.Settle
}

// librariesChanged says that it is not the executable alone that differs from
// what was rejected last.
func (l *loop) librariesChanged(now look) bool {
	for path, st := range now.stats {
		if path != l.p.exe && l.done.stats != nil && st != l.done.stats[path] {
			return true
		}
	}
	return false
}

func (l *loop) upgrade(ctx context.Context, now look) error {
	asked := l.asked
	l.asked, l.since = false, time.Time{}
	err := l.p.upgrade(ctx, asked)
	switch {
	case errors.Is(err, ErrReplaced), ctx.Err() != nil:
	case errors.Is(err, ErrRejected):
		l.done, l.retry, l.backoff = now, time.Time{}, 0
	case errors.Is(err, ErrOverwritten), errors.Is(err, errReplacedAgain):
		l.asked = asked && errors.Is(err, errReplacedAgain)
	default:
		// Busy, or short of something: later.
		l.backoff = min(max(2*l.backoff, time.Second), time.Minute)
		l.retry, l.tried = time.Now().Add(l.backoff), now
		l.asked = asked
	}
	return err
}

// sameBytes says that the executable alone was replaced, by the same bytes, and
// takes it as what the program runs.
func (p *Process) sameBytes(c Change, now look) bool {
	if len(c.Replaced) != 1 || c.Replaced[0] != p.exe {
		return false
	}
	cand, err := p.openCandidate()
	if err != nil {
		return false
	}
	defer cand.file.Close()
	if cand.stat.size != p.selfStat.size || cand.identify() != nil {
		return false
	}
	if own := p.ownDigest(); own == "" || !cand.id.same(own) {
		return false
	}
	p.watch.mu.Lock()
	p.watch.base[p.exe] = now.stats[p.exe]
	p.watch.mu.Unlock()
	p.tell(Event{Kind: Same, Path: p.exe})
	return true
}
