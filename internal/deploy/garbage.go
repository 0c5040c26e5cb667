package deploy

import (
	"runtime/debug"
	"sync"
)

// garbage is not collected as long as anybody holds it. The setting is the whole
// program's: who saves and restores it for himself leaves it off for ever, if two
// of them overlap.
var garbage garbageHold

type garbageHold struct {
	mu      sync.Mutex
	holders int
	percent int // as it was before the first of them
}

func (g *garbageHold) hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.holders++; g.holders == 1 {
		g.percent = debug.SetGCPercent(-1)
	}
}

func (g *garbageHold) collect() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.holders--; g.holders == 0 {
		debug.SetGCPercent(g.percent)
	}
}
