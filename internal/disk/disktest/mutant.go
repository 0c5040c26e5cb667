package disktest

import (
	"bytes"
	"sync"

	"moult.example/internal/disk"
)

// NoSync leaves out every sync: for recoveries in tests, which need no disk
// that outlives them. An Append still syncs its file.
func NoSync(under disk.FS) disk.FS {
	return Drop(under, func(o Op) bool { return o.Kind == OpSync || o.Kind == OpSyncDir || o.Kind == OpSyncFS })
}

// Drop leaves out the operations that match, and tells the job that they were
// done. It cannot leave out a create or a close.
func Drop(under disk.FS, match func(Op) bool) disk.FS {
	return Wrap(under, func(op *Op, do func() error) error {
		if canMove(*op) && match(*op) {
			return nil
		}
		return do()
	})
}

// Nth narrows a match to its n-th operation, counted from 1. The function that
// it returns counts, so it serves for one run of the job.
func Nth(n int, match func(Op) bool) func(Op) bool {
	var mu sync.Mutex
	return func(o Op) bool {
		if !match(o) {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		n--
		return n == 0
	}
}

// Delay holds back the operations that match, and tells the job that they were
// done, until just after the next operation that matches until: then they are
// done in their order. An error that they meet then, the job does not see: what
// is done to a file after its close is lost. Operations for which until never
// comes are not done. It cannot hold back a create, a close or a copy.
func Delay(under disk.FS, match, until func(Op) bool) disk.FS {
	var mu sync.Mutex
	var held []func() error
	return Wrap(under, func(op *Op, do func() error) error {
		mu.Lock()
		defer mu.Unlock()
		if canMove(*op) && op.Kind != OpCopyFrom && match(*op) {
			op.Data = bytes.Clone(op.Data) // the job may use it again
			held = append(held, do)
			return nil
		}
		err := do()
		if until(*op) {
			for _, late := range held {
				late()
			}
			held = nil
		}
		return err
	})
}

// canMove says whether a job can go on without the operation having been done:
// without a create there is no file, and without a close a descriptor stays.
func canMove(o Op) bool { return o.Kind != OpCreate && o.Kind != OpClose }
