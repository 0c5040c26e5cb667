package reexecload

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Server is one that can be replaced while it runs.
type Server struct {
	Name string
	Addr string

	// Check says what is wrong with an answer; nil is Echo.
	Check func(sent []byte, a Answer) error

	// Upgrade begins the upgrade with that number, counted from 1, and Upgraded
	// says by an answer whether it is over; nil is when Upgrade returns.
	Upgrade  func(n int) error
	Upgraded func(n int, a Answer) bool

	// Says is the end of what the server has written. It may be nil.
	Says func() string

	// Stop ends the server and removes what it has left. It may be nil.
	Stop func()
}

// Ask sends one request, on a connection of its own.
func (s *Server) Ask() (Answer, error) {
	c := client{addr: s.Addr}
	defer c.close()
	return c.post("/", []byte("ask"), false)
}

// Await waits until the server answers, for five minutes at most.
func (s *Server) Await(ctx context.Context) error {
	for end := time.Now().Add(5 * time.Minute); ; pause(ctx, 5*time.Millisecond) {
		_, err := s.Ask()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(end):
			return fmt.Errorf("%s does not answer: %w", s.Name, err)
		}
	}
}

// Trial is a load on a server that is replaced meanwhile.
type Trial struct {
	Workers  int           // half of them keep their connections; 0 is 16
	Think    time.Duration // as in Options
	Upgrades int           // 0 is none: then Every says how long the load lasts
	Every    time.Duration
	Probe    time.Duration // as in UpgradeOptions
}

// TrialResult is what became of it.
type TrialResult struct {
	Kept, New Result // the requests on kept connections, and on those of their own
	Upgrades  Upgrades
}

// Run runs a trial. Beside an error it returns what was seen before.
func (t Trial) Run(ctx context.Context, s *Server) (r TrialResult, err error) {
	if t.Workers == 0 {
		t.Workers = 16
	}
	o := Options{Addr: s.Addr, Check: s.Check, Workers: t.Workers / 2, Think: t.Think}
	loading, stop := context.WithCancel(ctx)
	defer stop()
	var loads sync.WaitGroup
	loads.Go(func() { r.New = Run(loading, o) })
	kept := o
	kept.KeepAlive = true
	loads.Go(func() { r.Kept = Run(loading, kept) })
	if t.Upgrades > 0 {
		r.Upgrades, err = Drive(ctx, o, UpgradeOptions{Upgrades: t.Upgrades, Every: t.Every, Probe: t.Probe, Start: s.Upgrade, Done: s.Upgraded})
	} else {
		pause(ctx, t.Every)
	}
	stop()
	loads.Wait()
	if err != nil {
		err = fmt.Errorf("%s: %w", s.Name, err)
		if s.Says != nil {
			err = fmt.Errorf("%w; it says %q", err, s.Says())
		}
	}
	return r, err
}

// All is all requests of the trial, with those of the probe.
func (r TrialResult) All() Result { return Sum(r.Kept, r.New, r.Upgrades.Probe) }

// String is the result in a few lines.
func (r TrialResult) String() string {
	return fmt.Sprintf("kept connections: %v\nnew connections: %v\nprobe: %v\n%v", r.Kept, r.New, r.Upgrades.Probe, r.Upgrades)
}
