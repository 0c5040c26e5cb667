package release

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Complete fills in the digests that the manifest lacks, from the cache where it
// knows them, else by reading the files, several at once. A file that changes
// while it is read is an error that names it. Afterwards the cache knows the
// files of this release, and no others.
func (r *Release) Complete(ctx context.Context) error {
	entries := r.Manifest.Entries
	var todo []int
	var files int
	var bytes int64
	for i := range entries {
		e := &entries[i]
		if e.Type != File || e.HardLink != "" || !e.Digest.IsZero() {
			continue
		}
		if r.cache != nil && r.stats != nil {
			if d, ok := r.cache.Lookup(e.Path, r.stats[i]); ok {
				e.Digest = d
				files++
				bytes += e.Size
				continue
			}
		}
		todo = append(todo, i)
	}
	r.progress.add(files, bytes)
	err := r.hashAll(ctx, todo)
	for i := range entries {
		if e := &entries[i]; e.HardLink != "" {
			e.Digest = r.Manifest.Find(e.HardLink).Digest
		}
	}
	if r.cache != nil && r.stats != nil && err == nil {
		r.cache.Sweep()
	}
	return err
}

// hashAll hashes the entries with these numbers.
func (r *Release) hashAll(ctx context.Context, todo []int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		next    atomic.Int64
		workers sync.WaitGroup
		mu      sync.Mutex
		first   error
	)
	for range min(runtime.NumCPU(), len(todo)) {
		workers.Go(func() {
			buf := make([]byte, 256<<10)
			for {
				n := int(next.Add(1)) - 1
				if n >= len(todo) {
					return
				}
				seen := Now()
				err := r.hash(ctx, todo[n], buf)
				mu.Lock()
				if err == nil {
					r.remember(todo[n], seen)
				} else if first == nil {
					first = err
					cancel() // the others end with an error of no interest
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	workers.Wait()
	return first
}

func (r *Release) remember(i int, seen time.Time) {
	if r.cache != nil && r.stats != nil {
		e := &r.Manifest.Entries[i]
		r.cache.Store(e.Path, r.stats[i], e.Digest, seen)
		if len(e.Xattrs) == 0 {
			r.cache.setBare(e.Path)
		}
	}
}

// hash reads one file and sets its digest.
func (r *Release) hash(ctx context.Context, i int, buf []byte) error {
	e := &r.Manifest.Entries[i]
	f, err := r.source.open(e, i)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	var n int64
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		k, err := f.Read(buf)
		h.Write(buf[:k])
		n += int64(k)
		r.progress.add(0, int64(k))
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if n != e.Size {
		return fmt.Errorf("%s: %w", e.Path, errChanged)
	}
	if err := r.Unchanged(e, f); err != nil {
		return err
	}
	e.Digest = Digest(h.Sum(nil))
	r.progress.add(1, 0)
	return nil
}

// progress counts what was read.
type progress struct {
	report func(files int, bytes int64)
	mu     sync.Mutex
	files  int
	bytes  int64
}

func (p *progress) add(files int, bytes int64) {
	if p.report == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.files += files
	p.bytes += bytes
	p.report(p.files, p.bytes)
}
