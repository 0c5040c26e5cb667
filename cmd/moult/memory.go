package main

import "runtime/debug"

// Most runs are over in milliseconds: collecting garbage would be a good part of
// them. So the collector is lazy, and for a release waits for a limit that grows
// with the number of files: 5,000 stay below 64 MB of resident memory, 100,000
// below 200 MB. A larger need is met all the same, only slower.
const (
	memoryBase = 40 << 20 // bytes
	memoryFile = 1300     // for each entry of the release
)

func lazyCollector(entries int) {
	percent := 400
	if entries > 0 {
		percent = -1
	}
	debug.SetGCPercent(percent)
	debug.SetMemoryLimit(memoryBase + int64(entries)*memoryFile)
}
