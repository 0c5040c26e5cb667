package deploy

import (
	"runtime/debug"
	"testing"
)

// Two commits at once, the second of which ends last.
func TestGarbageHold(t *testing.T) {
	before := debug.SetGCPercent(50)
	defer debug.SetGCPercent(before)
	percent := func() int {
		p := debug.SetGCPercent(-1)
		debug.SetGCPercent(p)
		return p
	}
	var g garbageHold
	g.hold()
	g.hold()
	g.collect()
	if got := percent(); got != -1 {
		t.Errorf("with one holder left got %d, want -1", got)
	}
	g.collect()
	if got := percent(); got != 50 {
		t.Errorf("got %d, want 50 as before", got)
	}
}
