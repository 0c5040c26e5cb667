package disktest

import (
	"math/rand/v2"
	"slices"
)

// enumerator makes the states of a history.
type enumerator struct {
	h   *history
	o   Options
	rng *rand.Rand

	seen   map[digest]int // index in states
	states []State

	// All effects below floor are durable at the present cut, and done in
	// floorImage.
	floor      int
	floorImage *image

	cut      cut
	unsynced []int // effects
}

func (e *enumerator) run() {
	e.floorImage = e.h.base.clone()
	for n := e.o.From; n <= len(e.h.log); n++ {
		if n > 0 && e.h.log[n-1].Kind == OpAppend && e.h.log[n-1].Err == nil {
			e.at(cut{done: n, synced: n - 1})
		}
		e.at(cut{done: n, synced: n})
	}
}

// at makes the states of one cut.
func (e *enumerator) at(c cut) {
	e.cut = c
	e.unsynced = e.h.unsynced(c)
	for e.floor < len(e.h.effects) && e.h.effects[e.floor].durable <= c.synced {
		e.h.effects[e.floor].apply(e.floorImage, full)
		e.floor++
	}
	e.kills()
	e.power("nothing unsynced survives", func(int, *effect) choice { return lost })
	e.bytesLost()
	e.prefixes()
	e.singles()
	e.directories()
	e.random()
}

// state adds one state, if its tree is new.
func (e *enumerator) state(why string, kill bool, choose func(k int, f *effect) choice) {
	picks := make([]choice, len(e.unsynced))
	for i, k := range e.unsynced {
		f := &e.h.effects[k]
		picks[i] = choose(k, f)
		if picks[i] == torn && f.what == nameEffect && !f.moves(e.h.base) {
			picks[i] = full
		}
	}
	sum := e.h.build(e.floorImage, e.floor, e.cut, picks).hash()
	if at, ok := e.seen[sum]; ok {
		s := &e.states[at]
		s.Last = max(s.Last, e.cut.done)
		s.Kill = s.Kill || kill
		return
	}
	e.seen[sum] = len(e.states)
	e.states = append(e.states, State{
		Why: e.h.name(e.cut) + ": " + why, First: e.cut.done, Last: e.cut.done, Kill: kill,
		h: e.h, cut: e.cut, picks: picks,
	})
}

func (e *enumerator) power(why string, choose func(k int, f *effect) choice) {
	e.state("power cut, "+why, false, choose)
}

// kills: all is there. A kill in the middle of a call that does several things
// leaves the last one half done.
func (e *enumerator) kills() {
	e.state("kill", true, func(int, *effect) choice { return full })
	if len(e.unsynced) == 0 {
		return
	}
	last := e.unsynced[len(e.unsynced)-1]
	f := &e.h.effects[last]
	if f.op != e.cut.done-1 || f.what == nameEffect || f.resize {
		return
	}
	for _, c := range []choice{torn, lost} {
		e.state("kill in the middle of the operation", true, func(k int, _ *effect) choice {
			if k == last {
				return c
			}
			return full
		})
	}
}

// bytesLost: the classic of a rename without a sync, in all its forms.
func (e *enumerator) bytesLost() {
	for _, v := range []struct {
		why                string
		names, bytes, meta choice
	}{
		{"moved files keep their old names", torn, full, full},
		{"moved files keep their old names, bytes lost", torn, lost, full},
		{"names kept, bytes lost", full, lost, full},
		{"names kept, bytes and metadata lost", full, lost, lost},
		{"names kept, metadata lost", full, full, lost},
		{"names kept, bytes cut in the middle", full, torn, full},
		{"names kept, bytes are zeros", full, zeroed, full},
		{"names lost, bytes and metadata kept", lost, full, full},
		{"names lost, metadata kept", lost, lost, full},
		{"names lost, bytes kept", lost, full, lost},
		{"names lost, bytes cut in the middle", lost, torn, full},
		{"names lost, bytes are zeros", lost, zeroed, full},
	} {
		e.power(v.why, func(_ int, f *effect) choice { return [...]choice{v.names, v.bytes, v.meta}[f.what] })
	}
}

// prefixes: names reach the disk in their order, as in an ordered journal, their
// bytes or not.
func (e *enumerator) prefixes() {
	for _, upTo := range e.some() {
		for _, bytes := range []choice{full, lost} {
			e.power("no names after "+e.h.describe(upTo)+bytesWhy(bytes), func(k int, f *effect) choice {
				switch {
				case f.what != nameEffect:
					return bytes
				case k <= upTo:
					return full
				}
				return lost
			})
		}
	}
}

func bytesWhy(c choice) string {
	if c == lost {
		return ", bytes and metadata lost"
	}
	return ", bytes kept"
}

// singles: one thing is there alone, or alone missing.
func (e *enumerator) singles() {
	for _, one := range e.some() {
		e.power("all but "+e.h.describe(one), func(k int, _ *effect) choice {
			if k == one {
				return lost
			}
			return full
		})
		e.only(one, "", full)
		if !e.h.effects[one].moves(e.h.base) {
			continue
		}
		e.only(one, ", its old name is left", torn)
		e.power("all, of "+e.h.describe(one)+" the old name too", func(k int, _ *effect) choice {
			if k == one {
				return torn
			}
			return full
		})
	}
}

// only: of one thing so much is there, of the rest nothing, or nothing but bytes
// and metadata.
func (e *enumerator) only(one int, why string, so choice) {
	for _, bytes := range []choice{full, lost} {
		e.power("only "+e.h.describe(one)+why+bytesWhy(bytes), func(k int, f *effect) choice {
			switch {
			case k == one:
				return so
			case f.what != nameEffect:
				return bytes
			}
			return lost
		})
	}
}

// some returns the unsynced effects, or a sample if there are very many.
func (e *enumerator) some() []int {
	if len(e.unsynced) <= e.o.Singles {
		return e.unsynced
	}
	some := slices.Clone(e.unsynced)
	e.rng.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
	some = some[:e.o.Singles]
	slices.Sort(some)
	return some
}

// directories: each directory for itself, as btrfs logs them.
func (e *enumerator) directories() {
	var dirs []inode
	for _, k := range e.unsynced {
		if f := &e.h.effects[k]; f.what == nameEffect {
			dirs = append(dirs, f.dirs()...)
		}
	}
	slices.Sort(dirs)
	for _, dir := range slices.Compact(dirs) {
		of := func(f *effect) bool { return slices.Contains(f.dirs(), dir) }
		for _, bytes := range []choice{full, lost} {
			e.power("only names in "+quote(e.h.dirName[dir])+bytesWhy(bytes), func(_ int, f *effect) choice {
				if f.what != nameEffect {
					return bytes
				}
				return when(of(f))
			})
			e.power("only names in "+quote(e.h.dirName[dir])+", those of moved files elsewhere too"+bytesWhy(bytes), func(_ int, f *effect) choice {
				switch {
				case f.what != nameEffect:
					return bytes
				case f.moves(e.h.base) && f.set[0].dir == dir:
					return torn
				}
				return when(of(f))
			})
			e.power("all but names in "+quote(e.h.dirName[dir])+bytesWhy(bytes), func(_ int, f *effect) choice {
				if f.what != nameEffect {
					return bytes
				}
				return when(!of(f))
			})
		}
	}
}

func when(kept bool) choice {
	if kept {
		return full
	}
	return lost
}

// random: any part of all.
func (e *enumerator) random() {
	if len(e.unsynced) < 2 {
		return
	}
	for range e.o.Random {
		keep := e.rng.Float64()
		e.power("a random part survives", func(_ int, f *effect) choice {
			switch {
			case f.what == byteEffect && !f.resize && e.rng.Float64() < 0.4:
				return []choice{torn, zeroed}[e.rng.IntN(2)]
			case f.moves(e.h.base) && e.rng.Float64() < 0.3:
				return torn
			case e.rng.Float64() < keep:
				return full
			}
			return lost
		})
	}
}

// sample returns the states, or no more of them than are wanted: those of kills
// and of bare power cuts, and of the rest a random part.
func (e *enumerator) sample() []State {
	if e.o.Max <= 0 || len(e.states) <= e.o.Max {
		return e.states
	}
	plain := func(s State) bool {
		return s.Kill || !slices.ContainsFunc(s.picks, func(c choice) bool { return c != lost })
	}
	var kept, rest []State
	for _, s := range e.states {
		if plain(s) {
			kept = append(kept, s)
		} else {
			rest = append(rest, s)
		}
	}
	e.rng.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	rest = rest[:min(len(rest), max(0, e.o.Max-len(kept)))]
	kept = append(kept, rest...)
	slices.SortStableFunc(kept, func(a, b State) int { return a.First - b.First })
	return kept
}
