package deploy

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
)

// bufs are for copying and hashing; 256 KiB is where more gains nothing.
var bufs = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// parallel runs work(0) … work(n-1) on as many goroutines as there are
// processors, stops at the first error, and returns it when all have ended.
//
// It takes pieces of 16, so that neighbours, which lie in one directory, are not
// fought over.
func parallel(ctx context.Context, n int, work func(i int) error) error {
	return parallelBy(ctx, n, 16, work)
}

// parallelBy is parallel in pieces of so many.
func parallelBy(ctx context.Context, n, piece int, work func(i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(max(runtime.GOMAXPROCS(0), 1), n) {
		wg.Go(func() {
			for ctx.Err() == nil {
				from := int(next.Add(int64(piece))) - piece
				if from >= n {
					return
				}
				for i := from; i < min(from+piece, n) && ctx.Err() == nil; i++ {
					if err := work(i); err != nil {
						cancel(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// soon begins to compute what is wanted later, on a processor that has nothing
// else to do meanwhile. It returns a function that waits for it, for one
// goroutine or several.
func soon[T any](compute func() T) func() T {
	once := sync.OnceValue(compute)
	go once()
	return once
}
