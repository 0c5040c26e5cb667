package stale

import (
	"context"
	"runtime"
	"slices"
	"sync/atomic"
	"time"
)

// stuck is how long a visit takes of a process that hangs in the kernel; others
// take much less than a millisecond.
const stuck = 100 * time.Millisecond

const mostWorkers = 256

// crew are the workers that visit processes.
type crew struct {
	*search
	pids    []int
	next    atomic.Int64
	stop    atomic.Bool
	visit   func(w *worker, pid int) result
	results []result // by whoever has ended the task
	left    atomic.Int64
	done    chan struct{} // closed when nothing is left
}

// worker is one of them.
type worker struct {
	*crew
	*scratch
	has      atomic.Pointer[task]
	relieved *task // for which somebody else was hired
}

// task is a visit that has begun.
type task struct {
	at    int // in pids
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
	c := &crew{search: s, pids: pids, visit: visit, results: make([]result, len(pids)), done: make(chan struct{})}
	if len(pids) == 0 {
		return nil, nil
	}
	c.left.Store(int64(len(pids)))
	defer c.stop.Store(true)
	// One processor less than there are: where all are busy, the scheduler takes
	// them away from whoever is in the kernel for a few microseconds, which costs
	// more than the visits.
	workers := make([]*worker, min(max(1, runtime.GOMAXPROCS(0)-1), len(pids)))
	for i := range workers {
		workers[i] = c.hire()
	}
	look := time.NewTicker(max(min(s.patience/4, stuck), time.Millisecond))
	defer look.Stop()
	for {
		select {
		case <-c.done:
			slices.SortFunc(c.results, func(a, b result) int { return a.pid - b.pid })
			return c.results, nil
		case <-look.C:
			for i, w := range workers {
				t := w.has.Load()
				if t == nil || t.ended.Load() {
					continue
				}
				waited := time.Since(t.began)
				if waited > stuck && w.relieved != t && len(workers) < mostWorkers {
					// Others need not wait for it, each for as long as we have patience.
					w.relieved = t
					workers = append(workers, c.hire())
				}
				if waited > s.patience && c.end(t, result{pid: pids[t.at], unreadable: true}) {
					s.abandoned = true
					workers[i] = c.hire()
				}
			}
		case <-ctx.Done():
			s.abandoned = true // for those who are still at work
			return nil, ctx.Err()
		}
	}
}

// end enters the result of a visit, if nobody else has ended it.
func (c *crew) end(t *task, r result) bool {
	if !t.ended.CompareAndSwap(false, true) {
		return false
	}
	c.results[t.at] = r
	if c.left.Add(-1) == 0 {
		close(c.done)
	}
	return true
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
		t := &task{at: i, began: time.Now()}
		w.has.Store(t)
		if !w.end(t, w.visit(w, w.pids[i])) {
			return
		}
	}
}
