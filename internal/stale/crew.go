package stale

import (
	"context"
	"runtime"
	"slices"
	"sync/atomic"
	"time"
)

// crew are the workers that visit processes, as many as there are processors.
type crew struct {
	*search
	pids    []int
	next    atomic.Int64
	stop    atomic.Bool
	results chan result
	visit   func(w *worker, pid int) result
}

// worker is one of them.
type worker struct {
	*crew
	*scratch
	has atomic.Pointer[task]
}

// task is a visit that has begun.
type task struct {
	pid   int
	began time.Time
	ended atomic.Bool // by whoever was first: the worker, or who waits for it
}

// all visits each process, in one way or another. A worker that is held up for longer than our
// patience is given up, and another takes its place; the process counts as
// unreadable. The goroutine ends when the kernel lets it, and changes nothing
// any more that is anybody else's.
func (s *search) all(ctx context.Context, visit func(*worker, int) result) ([]result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	pids := s.pids
	if s.PIDs != nil {
		pids = slices.DeleteFunc(slices.Clone(pids), func(pid int) bool { return !slices.Contains(s.PIDs, pid) })
	}
	c := &crew{search: s, pids: pids, results: make(chan result, len(pids)), visit: visit}
	defer c.stop.Store(true)
	workers := make([]*worker, min(runtime.GOMAXPROCS(0), len(pids)))
	for i := range workers {
		workers[i] = c.hire()
	}
	look := time.NewTicker(max(s.patience/4, time.Millisecond))
	defer look.Stop()
	all := make([]result, 0, len(pids))
	for len(all) < len(pids) {
		select {
		case r := <-c.results:
			all = append(all, r)
		case <-look.C:
			for i, w := range workers {
				t := w.has.Load()
				if t != nil && time.Since(t.began) > s.patience && t.ended.CompareAndSwap(false, true) {
					s.abandoned = true
					c.results <- result{pid: t.pid, unreadable: true}
					workers[i] = c.hire()
				}
			}
		case <-ctx.Done():
			s.abandoned = true // for those who are still at work
			return nil, ctx.Err()
		}
	}
	slices.SortFunc(all, func(a, b result) int { return a.pid - b.pid })
	return all, nil
}

func (c *crew) hire() *worker {
	w := &worker{crew: c, scratch: &scratch{}}
	go w.work()
	return w
}

func (w *worker) work() {
	for !w.stop.Load() {
		i := int(w.next.Add(1)) - 1
		if i >= len(w.pids) {
			return
		}
		t := &task{pid: w.pids[i], began: time.Now()}
		w.has.Store(t)
		r := w.visit(w, t.pid)
		if !t.ended.CompareAndSwap(false, true) {
			return
		}
		w.results <- r
	}
}
