package deploy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
)

type pinFile struct {
	Schema int   `json:"schema"`
	Pinned []int `json:"pinned"`
	Loose  []int `json:"loose,omitempty"` // generation 0, once somebody has unpinned it
}

// pins are the generations that gc may never take. What was there before moult
// is pinned unless somebody has said otherwise.
func (s *state) pins() (map[int]bool, error) {
	var f pinFile
	if err := readJSON(s.abs("pins.json"), &f); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	pins := map[int]bool{}
	for _, n := range f.Pinned {
		pins[n] = true
	}
	if !slices.Contains(f.Loose, 0) && exists(s.abs(genDir(0))) {
		pins[0] = true
	}
	return pins, nil
}

// Pin keeps a generation from being collected, or, with pin false, no longer.
func (t *Target) Pin(ctx context.Context, name string, n int, pin bool) (Result, error) {
	return t.locked(ctx, name, func(s *state, res *Result) error {
		res.Job, res.Generation = "pin", n
		if !pin {
			res.Job = "unpin"
		}
		if !exists(s.abs(genDir(n))) {
			return fmt.Errorf("%s: %d: %w", s.t.path, n, ErrNoGeneration)
		}
		pins, err := s.pins()
		if err != nil {
			return err
		}
		if pins[n] == pin {
			res.Unchanged = true
			return nil
		}
		f := pinFile{Schema: 1}
		if pin {
			pins[n] = true
		} else {
			delete(pins, n)
		}
		if !pins[0] && exists(s.abs(genDir(0))) {
			f.Loose = []int{0}
		}
		f.Pinned = slices.Sorted(maps.Keys(pins))
		if err := writeJSON(s.t.fs, s.file("pins.json"), f); err != nil {
			return err
		}
		return s.t.fs.SyncDir(s.dir)
	})
}
