package deploy

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/release"
)

// known is a stat cache of a target's files, for several goroutines, that
// learns what it did not know. A nil one knows nothing.
type known struct {
	mu     sync.Mutex
	cache  *release.Cache
	missed atomic.Bool // a file had to be read that it did not know
}

func newKnown() *known { return &known{cache: release.NewCache()} }

// loadCache reads the cache of a product's live files. A damaged one is as good
// as none.
func (s *state) loadCache() *known {
	cache := s.t.takeCache()
	if cache == nil {
		cache = readCache(s.abs("cache"))
	}
	return &known{cache: cache}
}

// readCache reads a cache. A damaged one is an empty one.
func readCache(path string) *release.Cache {
	data, err := readBook(path)
	if err != nil {
		return release.NewCache()
	}
	c, _ := release.LoadCache(data)
	return c
}

func (k *known) lookup(key string, st release.Stat) (release.Digest, bool) {
	if k == nil {
		return release.Digest{}, false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.cache.Lookup(key, st)
}

// learn remembers a digest that was computed since seen, if the file is still
// the one that st told of.
func (k *known) learn(path, key string, st *unix.Stat_t, d release.Digest, seen time.Time) {
	if k == nil {
		return
	}
	k.missed.Store(true)
	var now unix.Stat_t
	if unix.Lstat(path, &now) != nil || statOf(&now) != statOf(st) {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cache.Store(key, statOf(st), d, seen)
}

// sourceCache holds what is known of the directory that the last release came
// from.
const sourceCache = dotMoult + "/cache.source"

// SourceCache is what the target remembers of the directory that its last
// release came from, for [release.Options]. It may be empty. While the release
// is opened, the target reads what that will be compared with.
func (t *Target) SourceCache() *release.Cache {
	t.readAhead()
	return readCache(t.abs(sourceCache))
}

func (p *plan) saveSourceCache() {
	if p.sourceText == nil {
		p.encodeSource()
	}
	if text := p.sourceText(); text != nil {
		_ = writeFile(p.s.t.fs, sourceCache, text, false)
	}
}

// encodeSource begins to encode the cache of the source, of which everything is
// known by now; nil if there is nothing new.
func (p *plan) encodeSource() {
	p.sourceText = soon(func() []byte {
		if c := p.opts.SourceCache; c != nil && c.Changed() {
			return c.Encode()
		}
		return nil
	})
}

// looks are what the files of the new generation, or of the live one, are like
// now; that of one that nothing is known of is zero.
func (p *plan) looks() []release.Stat {
	stats := make([]release.Stat, len(p.steps))
	base := p.s.t.path
	if p.s.layout == Owned {
		n := p.live
		if p.n > 0 {
			n = p.n
		}
		base = p.s.abs(genDir(n))
	}
	tree, err := openTree(base)
	if err != nil {
		return stats
	}
	defer tree.Close()
	_ = parallel(context.Background(), len(p.steps), func(i int) error {
		var u unix.Stat_t
		st := &p.steps[i]
		if st.e.Type != release.File || st.act == actKeep || st.e.Digest.IsZero() {
			return nil
		}
		if was, ok := p.liveStat(st); ok && p.stayed && st.stays {
			stats[i] = was // no name of it has come or gone
		} else if unix.Fstatat(int(tree.Fd()), st.is, &u, unix.AT_SYMLINK_NOFOLLOW) == nil {
			stats[i] = statOf(&u)
		}
		return nil
	})
	return stats
}

// liveStat is what is known of a live file that the release wants.
func (p *plan) liveStat(st *step) (release.Stat, bool) {
	if st.live.Ino != 0 {
		return st.live, true
	}
	was, _, ok := p.cache.cache.Known(st.is)
	return was, ok
}

// saveCache keeps what is known about the files of the new generation, or of
// the live one. link(2), rename(2) and unlink(2) of another name have moved the
// change times of files that we know; inode, size and modification time say
// that each is still the one that we know. It is a cache: failing to write it
// is nothing to fail for, and it is not synced.
//
// Who writes into a file can put its modification time back, but not its change
// time. So what has changed since the stage was whole is not kept, in an owned
// target, unless it was our collection that has removed other names since early.
func (p *plan) saveCache() {
	fresh := release.NewCache()
	fresh.Grow(len(p.steps))
	seen := release.Now()
	if p.s.layout == Owned && p.n > 0 && p.early == nil {
		seen = p.sealed
	}
	for i, now := range p.looks() {
		st := &p.steps[i]
		if now.Ino == 0 || p.early != nil && !(p.early[i].Settled(p.sealed) && p.s.watched.has(now)) {
			continue
		}
		was, digest, ok := st.live, st.e.Digest, st.live.Ino != 0
		if !ok {
			was, digest, ok = p.cache.cache.Known(st.is)
		}
		if st.act == actCopy {
			was, digest, ok = st.made, st.e.Digest, true
			if st.e.HardLink != "" && was.Ino == 0 {
				ok = false // looked at when it is needed
			}
		}
		if ok && digest == st.e.Digest && now.Dev == was.Dev && now.Ino == was.Ino && now.Size == was.Size && now.MTime == was.MTime {
			fresh.Store(st.is, now, digest, seen)
		}
	}
	p.s.writeCache(fresh)
	p.saveSourceCache()
}

func (s *state) writeCache(c *release.Cache) {
	_ = writeFile(s.t.fs, s.file("cache"), c.Encode(), false)
}
