package disktest

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
)

// Options says how many crash states are made. The zero Options is what a crash
// test should use.
type Options struct {
	// Random is how many random states there are for each cut beside the
	// systematic ones; 0 means 8, and less than 0 none.
	Random int

	// Seed makes the random states and samples; the same seed makes the same.
	Seed uint64

	// Singles bounds of how many unsynced things at one cut each is lost, or
	// kept, alone; of more, a sample is taken. 0 means 200.
	Singles int

	// Max bounds the states: of more, a sample is taken, which keeps what a
	// kill and a bare power cut leave. 0 means no bound.
	Max int

	// From leaves out the cuts before that many operations: for a log whose
	// beginning has its own test.
	From int
}

// State is one tree that a crash can leave.
type State struct {
	// Why says how it comes about, for the first cut that leaves it.
	Why string

	// First and Last are the first and the last cut that leave this very tree:
	// how many entries of the log had been done.
	First, Last int

	// Kill says that a kill of the process leaves it, with the disk's power on.
	Kill bool

	h     *history
	cut   cut
	picks []choice
}

// States makes every tree, each once, that a kill or a power cut can leave at any
// moment of a log, on a disk that held the initial tree. It panics if the log
// cannot have happened on that tree.
//
// The model is POSIX as the pessimist reads it, and allows all that was seen on
// ext4, XFS and btrfs. What was done is lost unless it was synced:
//
//   - bytes and metadata of a file by its Sync, of a directory by SyncDir;
//   - a name by SyncDir of its directory, not by a sync of the file; one that
//     moves from directory to directory needs both;
//   - all by SyncFS. A failed sync makes nothing durable, nor does a later one.
//
// Of what was not synced, any part may be on the disk and any other not, a later
// one without an earlier one. Bytes may be lost, cut in the middle, or zeros of
// the right length. A rename or exchange is there or not, never half, but for a
// file that moves to another directory: until both are synced, it may have its
// old name as well as its new one (btrfs does that).
//
// For each cut the states are: all is there (a kill); nothing unsynced is; all
// names are, but bytes or metadata are lost, cut or zeros; the first unsynced
// names are, in order; one unsynced thing is there alone, or alone missing; what
// was done in one directory is there alone, or alone missing; random parts.
func States(initial *Tree, log []Op, o Options) iter.Seq[State] {
	h, err := compile(initial, log)
	if err != nil {
		panic("disktest: " + err.Error())
	}
	if o.Random == 0 {
		o.Random = 8
	}
	if o.Singles == 0 {
		o.Singles = 200
	}
	return func(yield func(State) bool) {
		e := &enumerator{h: h, o: o, seen: map[digest]int{}, rng: rand.New(rand.NewPCG(o.Seed, 1))}
		e.run()
		for _, s := range e.sample() {
			if !yield(s) {
				return
			}
		}
	}
}

// Kills makes the trees that a kill leaves after each entry of the log, one for
// each, equal or not. After a kill nothing was synced that was not: to test a
// recovery that is followed by a power cut, record it on the tree of a kill, put
// its log behind log[:First], and take the States of that, From First on.
func Kills(initial *Tree, log []Op) iter.Seq[State] {
	h, err := compile(initial, log)
	if err != nil {
		panic("disktest: " + err.Error())
	}
	return func(yield func(State) bool) {
		for n := range len(log) + 1 {
			c := cut{done: n, synced: n}
			picks := h.pick(c, func(*effect) choice { return full })
			if !yield(State{Why: h.name(c) + ": kill", First: n, Last: n, Kill: true, h: h, cut: c, picks: picks}) {
				return
			}
		}
	}
}

// After says whether the tree can be there after the job had set a mark: an
// outcome that the job had promised away by then is a fault.
func (s State) After(mark string) bool {
	return slices.ContainsFunc(s.h.log[:s.Last], func(o Op) bool { return o.Kind == opMark && o.New == mark })
}

// Tree returns the tree.
func (s State) Tree() *Tree { return s.h.build(s.h.base, 0, s.cut, s.picks).tree() }

// String tells how the state comes about.
func (s State) String() string { return s.Why }

// A cut is a moment: so many operations done, and so many of the syncs. The two
// differ in the middle of an append, which is written before it is synced.
type cut struct{ done, synced int }

// unsynced returns the effects that are done and may be lost.
func (h *history) unsynced(c cut) []int {
	var u []int
	for k := range h.effects {
		if e := &h.effects[k]; e.op < c.done && e.durable > c.synced {
			u = append(u, k)
		}
	}
	return u
}

// pick chooses for each unsynced effect.
func (h *history) pick(c cut, choose func(*effect) choice) []choice {
	var picks []choice
	for _, k := range h.unsynced(c) {
		picks = append(picks, choose(&h.effects[k]))
	}
	return picks
}

// build makes the image of a state, from an image in which the first effects
// are done already.
func (h *history) build(from *image, first int, c cut, picks []choice) *image {
	im := from.clone()
	for k := first; k < len(h.effects); k++ {
		e := &h.effects[k]
		if e.op >= c.done {
			break
		}
		how := full
		if e.durable > c.synced {
			how, picks = picks[0], picks[1:]
		}
		e.apply(im, how)
	}
	return im
}

func (h *history) name(c cut) string {
	if c.done == 0 {
		return "before the first operation"
	}
	where := "after"
	if c.synced < c.done {
		where = "within"
	}
	return fmt.Sprintf("%s operation %d (%s)", where, c.done, h.log[c.done-1])
}

// describe tells one effect in a few words.
func (h *history) describe(k int) string {
	e := &h.effects[k]
	what := [...]string{"names", "bytes", "metadata"}[e.what]
	return fmt.Sprintf("%s of operation %d (%s)", what, e.op+1, strings.TrimSuffix(h.log[e.op].String(), ":"))
}
