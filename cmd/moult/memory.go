package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// Most runs are over in milliseconds: collecting garbage would be a good part of
// them. So the collector is lazy, and for a release waits for a limit that grows
// with the number of files: 5,000 stay below 64 MB of resident memory, 100,000
// below 200 MB. A larger need is met all the same, only slower.
const (
	memoryBase = 40 << 20 // bytes
	memoryFile = 1300     // for each entry of the release
)

// collector is how lazy it is. A limit below what is in use would have it do
// nothing else any more: what a command without a release reads of many
// generations took four times the processor time. So each collection looks if
// the limit leaves room enough.
var collector struct {
	mu     sync.Mutex
	least  int64 // of the limit, in bytes; 0 if nobody looks
	looked bool  // after each collection
}

func lazyCollector(entries int) {
	percent := 400
	if entries > 0 {
		percent = -1
	}
	c := &collector
	c.mu.Lock()
	defer c.mu.Unlock()
	c.least = memoryBase + int64(entries)*memoryFile
	debug.SetGCPercent(percent)
	debug.SetMemoryLimit(c.least)
	if !c.looked {
		c.looked = true
		afterCollection()
	}
}

// afterCollection has giveRoom called after the next one.
func afterCollection() {
	runtime.SetFinalizer(&struct{ block [64]byte }{}, func(any) { giveRoom() })
}

// giveRoom sets the limit to a quarter more than is in use, or to the least.
func giveRoom() {
	c := &collector
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.looked = c.least > 0; !c.looked {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	limit := c.least
	if v := live[0].Value; v.Kind() == metrics.KindUint64 {
		limit = max(limit, int64(v.Uint64())/4*5)
	}
	if limit != debug.SetMemoryLimit(-1) {
		debug.SetMemoryLimit(limit)
	}
	afterCollection()
}
