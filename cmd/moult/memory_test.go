package main

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

var kept []byte // on the heap

// TestCollectorHasRoom: a need that is larger than was thought raises the limit
// while it lasts, so that it is no reason to collect without end.
func TestCollectorHasRoom(t *testing.T) {
	t.Cleanup(func() {
		collector.mu.Lock()
		defer collector.mu.Unlock()
		collector.least, kept = 0, nil
		debug.SetGCPercent(100)
		debug.SetMemoryLimit(math.MaxInt64)
	})
	waitLimit := func(what string, fits func(limit int64) bool) {
		t.Helper()
		deadline := time.Now().Add(time.Minute)
		for !fits(debug.SetMemoryLimit(-1)) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: after a minute the limit is %d bytes", what, debug.SetMemoryLimit(-1))
			}
			runtime.GC()
		}
	}
	for _, entries := range []int{0, 1000} {
		lazyCollector(entries)
		least := memoryBase + int64(entries)*memoryFile
		kept = make([]byte, 2*least)
		waitLimit("much in use", func(limit int64) bool { return limit >= 2*least+least/2 })
		kept = nil
		waitLimit("little in use", func(limit int64) bool { return limit == least })
	}
}
