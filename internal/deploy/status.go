package deploy

import (
	"errors"
	"io/fs"
	"time"

	"moult.example/internal/release"
)

// Status is what there is in a target, for one product. Nothing is written.
type Status struct {
	Schema      int          `json:"schema"`
	Target      Path         `json:"target"`
	Layout      Layout       `json:"layout"`
	Name        string       `json:"name"`
	Live        int          `json:"live"` // -1 for none
	Release     string       `json:"release,omitempty"`
	Version     string       `json:"version,omitempty"`
	Since       time.Time    `json:"since,omitzero"` // when it became live
	By          string       `json:"by,omitempty"`
	Busy        string       `json:"busy,omitempty"`         // who is at work on the target now
	CutShort    bool         `json:"cut_short"`              // an earlier command was; moult recover finishes it
	AfterFailed string       `json:"after_failed,omitempty"` // what its hook after the commit, ldconfig or systemctl said, if one failed
	Deferred    []Path       `json:"deferred,omitempty"`
	Generations []Generation `json:"generations"`
}

// Generation is one generation of a target.
type Generation struct {
	Number  int       `json:"number"`
	Release string    `json:"release"`
	Version string    `json:"version,omitempty"`
	Staged  time.Time `json:"staged,omitzero"`
	State   string    `json:"state"`            // live, previous, staged, retired; damaged if its books cannot be read; closed if no more can be told
	Closed  bool      `json:"closed,omitempty"` // this user may not look into it: what does not follow from its number is missing
	Pinned  bool      `json:"pinned,omitempty"`
	Adopted bool      `json:"adopted,omitempty"` // what was there before moult
	Files   int       `json:"files"`
	Bytes   int64     `json:"bytes"` // of all its files, shared with others or not
	Damage  string    `json:"damage,omitempty"`
}

// Status describes the products of a target; a name picks one.
func (t *Target) Status(name string) ([]Status, error) {
	states, err := t.states()
	if name != "" || err != nil {
		s, err := t.state(name)
		if err != nil {
			return nil, err
		}
		states = []*state{s}
	}
	all := []Status{}
	for _, s := range states {
		st, err := s.status()
		if err != nil {
			return nil, err
		}
		all = append(all, st)
	}
	return all, nil
}

func (s *state) status() (Status, error) {
	st := Status{
		Schema: 1, Target: Path(s.t.path), Layout: s.layout, Name: s.name,
		Busy: holder(s.t.opts.Proc, s.t.abs(lockFile)), CutShort: s.cutShort(), Generations: []Generation{},
	}
	var err error
	if st.Live, err = s.live(); err != nil {
		return st, err
	}
	ops, err := s.readDeferred()
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return st, err
	}
	for _, o := range ops {
		st.Deferred = append(st.Deferred, o.Path)
	}
	ns, err := s.generations()
	if err != nil {
		return st, err
	}
	prev := noGeneration
	if st.Live != noGeneration {
		if prev, _, err = s.previous(st.Live); err != nil {
			return st, err
		}
	}
	pins, err := s.pins()
	if err != nil {
		return st, err
	}
	for _, n := range ns {
		g, err := s.describe(n, st.Live, prev, pins)
		if errors.Is(err, fs.ErrPermission) {
			g, err = closedGeneration(n, st.Live, prev, pins), nil // retired ones are for root
		}
		if err != nil && n != st.Live {
			g, err = Generation{Number: n, State: "damaged", Pinned: pins[n], Damage: err.Error()}, nil
		}
		if err != nil {
			return st, err
		}
		st.Generations = append(st.Generations, g)
		if n == st.Live {
			st.Release, st.Version = g.Release, g.Version
		}
	}
	return st, s.since(&st)
}

// closedGeneration is what can be told of a generation from outside.
func closedGeneration(n, live, prev int, pins map[int]bool) Generation {
	g := Generation{Number: n, State: "closed", Closed: true, Pinned: pins[n]}
	switch n {
	case live:
		g.State = "live"
	case prev:
		g.State = "previous"
	}
	return g
}

func (s *state) describe(n, live, prev int, pins map[int]bool) (Generation, error) {
	info, err := s.info(n)
	if err != nil {
		return Generation{}, err
	}
	g := Generation{
		Number: n, Release: info.Release, Version: info.Version, Staged: info.Time, Pinned: pins[n], Adopted: info.Adopted, State: "retired",
	}
	switch {
	case n == live:
		g.State = "live"
	case n == prev:
		g.State = "previous"
	case !s.committed(n):
		g.State = "staged"
	}
	m, err := s.manifest(n)
	if err != nil {
		return g, err
	}
	for i := range m.Entries {
		if e := &m.Entries[i]; e.Type == release.File && e.HardLink == "" {
			g.Bytes += e.Size
		}
		if m.Entries[i].Type != release.Dir {
			g.Files++
		}
	}
	return g, nil
}

// since finds in the history when the live generation became so.
func (s *state) since(st *Status) error {
	last, err := s.lastCommit(st.Live)
	if err != nil {
		return err
	}
	st.Since, st.By = last.Time, last.User
	if last.Result == "after-failed" {
		st.AfterFailed = last.Note
	}
	return nil
}
