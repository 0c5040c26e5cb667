package deploy

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"moult.example/internal/release"
)

// compareOwned decides for each entry whether the live generation's file can
// serve: then the new generation gets a hard link to it.
func (p *plan) compareOwned(ctx context.Context) error {
	if p.liveM == nil {
		return nil
	}
	who := ownersOf(p.liveInfo)
	i := 0
	for e, old := range p.m.Beside(p.liveM) {
		if e == nil {
			continue
		}
		st := &p.steps[i]
		i++
		if old == nil {
			st.why = "new"
			continue
		}
		uid, gid, err := who.of(old)
		if err != nil {
			st.why = err.Error()
			continue
		}
		st.found, st.was = old, ids{uid, gid}
		if st.why = entryDiffers(st, p.opts.Times || p.m.Times); st.why == "" && st.e.HardLink != old.HardLink {
			st.why = "hard links"
		}
	}
	// Looked up from the generation's directory, not from the root: that halves
	// what 5,000 lstat(2) cost.
	gen, err := openTree(p.s.abs(genDir(p.live)))
	if err != nil {
		return err
	}
	defer gen.Close()
	return parallel(ctx, len(p.steps), func(i int) error {
		st := &p.steps[i]
		if st.found == nil || p.asKnown(gen, st) {
			return nil
		}
		return p.compareLive(st)
	})
}

// asKnown says that what the live generation has is what the release wants: a
// file is one that the cache knows.
func (p *plan) asKnown(gen *os.File, st *step) bool {
	if st.why != "" || st.e.Keep {
		return false
	}
	it := item{}
	if it.look(int(gen.Fd()), st.e.Path, 0) != nil || p.timeDiffers(st, it.stat.MTime) {
		return false
	}
	st.live = it.stat.known()
	same := int(it.stat.Uid) == st.was.uid && int(it.stat.Gid) == st.was.gid
	switch st.e.Type {
	case release.File:
		var digest release.Digest
		digest, same = p.cache.lookup(st.e.Path, st.live) // its owners and mode move the change time
		same = same && digest == st.e.Digest
	case release.Symlink:
		same = same && it.text == st.e.Text
	default:
		has, err := xattrs(p.s.abs(genDir(p.live)+"/"+st.e.Path), release.Dir)
		same = same && it.isDir() && it.stat.Mode&0o7777 == st.e.Mode && err == nil && maps.Equal(has, st.e.Xattrs)
		st.touched = st.found.MTime == 0 || it.stat.MTime != st.found.MTime
	}
	if !same {
		st.live = release.Stat{}
		return false
	}
	st.act, st.fixed = actLink, it.fixed
	return true
}

// compareLive looks at the live generation's file itself: someone may have
// written into it.
func (p *plan) compareLive(st *step) error {
	name := p.s.abs(genDir(p.live) + "/" + st.e.Path)
	now, err := find(name, st.e.Path, p.cache)
	if errors.Is(err, fs.ErrNotExist) {
		now, err = release.Entry{}, nil
	}
	if err != nil {
		return err
	}
	was := st.found
	st.touched = was.MTime == 0 || now.MTime != was.MTime
	damage := ""
	if now.Type == 0 {
		damage = "missing"
	} else if st.e.Type == was.Type {
		damage = differs(was, st.was.uid, st.was.gid, &now, false)
	}
	if st.e.Keep && damage != "" && st.e.Type == release.File {
		return p.keepTheirs(st, was, &now)
	}
	if damage != "" && was.Keep && now.Type != 0 {
		p.keepNoLonger(st)
		return nil
	}
	if damage != "" {
		p.mend(st.e.Path)
		st.act, st.why = actCopy, "damaged: "+damage
		return nil
	}
	if st.why == "" && p.timeDiffers(st, now.MTime) {
		st.why = "time"
	} else if st.why == "" && !st.e.Keep {
		it := item{}
		st.act, st.fixed = actLink, it.look(unix.AT_FDCWD, name, 0) != nil || it.fixed
	} else if st.why == "" {
		st.act, st.found = actCopy, &now // a keep file may be written to: no link to the old one
	}
	return nil
}

// timeDiffers says that a file or link is to have another time than it has. What
// an apply without times has linked has kept its own, whatever the release said.
func (p *plan) timeDiffers(st *step, now int64) bool {
	return (p.opts.Times || p.m.Times) && st.e.Type != release.Dir && !st.e.Keep && st.e.MTime != 0 && st.e.MTime != now
}

// touched says that the live release's directory may hold names that it has not
// brought, or lack some.
func (p *plan) touched(dir string) bool {
	i, ok := slices.BinarySearchFunc(p.steps, dir, func(st step, path string) int { return strings.Compare(st.e.Path, path) })
	return !ok || p.steps[i].found == nil || p.steps[i].touched
}

// keepNoLonger: the user has changed a file, and this release does not say any
// more that it may be.
func (p *plan) keepNoLonger(st *step) {
	st.act, st.why = actCopy, "changed here, which this release does not allow any more"
	p.warn("%s was changed here, and this release does not keep such changes: that version stays with generation %d", Path(st.e.Path).Quoted(), p.live)
}

// keepTheirs: the user has changed (or removed) a file that is theirs to
// change. It goes on as it is; the release's own version is laid beside it if
// that is new too.
func (p *plan) keepTheirs(st *step, was, now *release.Entry) error {
	st.act, st.why, st.found = actKeep, "changed here", now
	if now.Type == 0 {
		st.found, st.why = nil, "removed here"
	} else if now.Type == release.File && now.Digest == st.e.Digest {
		return nil // both made the same change
	}
	st.besideMe = st.e.Digest != was.Digest || st.e.Size != was.Size
	if beside := st.e.Path + newSuffix; st.besideMe && (p.m.Find(beside) != nil || len(filepath.Base(beside)) > unix.NAME_MAX) {
		st.besideMe = false
		p.warn("the release's own %s is not laid beside the changed one: %s is taken, or too long a name", Path(st.e.Path).Quoted(), Path(beside).Quoted())
	}
	return nil
}
