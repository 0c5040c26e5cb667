package restart

import (
	"errors"
	"fmt"
	"strings"
)

// State is what has become of a step.
type State string

// The states of a step.
const (
	Running  State = "running"   // in events only
	Done     State = "done"      // it is up, and runs the new code
	Current  State = "current"   // nothing was left to do when its turn came
	StillOld State = "stale"     // it was restarted, and runs the old code all the same
	Failed   State = "failed"    // it could not be restarted, or is not up
	NotTried State = "not tried" // something before it has failed, or moult was interrupted
)

// Outcome is a step and what has become of it.
type Outcome struct {
	Step
	State   State   `json:"state"`
	Error   string  `json:"error,omitempty"`
	Acted   bool    `json:"acted"` // something was done: a signal sent, a job begun, a command run
	Seconds float64 `json:"seconds"`
	MainPID int     `json:"main_pid,omitempty"` // of a unit, afterwards

	up  unit
	err error
}

// Result is what a run has done, and what there is afterwards.
type Result struct {
	Target     string    `json:"target,omitempty"`
	Steps      []Outcome `json:"steps"`
	Left       []Left    `json:"left"`      // by the plan
	Remaining  []Process `json:"remaining"` // what is stale now, whatever the reason
	Health     []Health  `json:"health"`    // as it was last asked
	Healthy    bool      `json:"healthy"`   // all steps are up and all probes are well
	Unreadable int       `json:"unreadable"`
	Blind      []int     `json:"unreadable_pids"` // those, by PID
	Hidden     bool      `json:"hidden"`
	HealthOnly bool      `json:"health_only,omitempty"` // nobody was to be restarted, and nobody has looked for stale processes

	lookErr error // the processes could not be looked at afterwards
	cut     error // why the run was interrupted before its end
	broken  bool  // nothing was tried, as some of Left could not be started again
}

// Acted says that something was done to some process.
func (r *Result) Acted() bool {
	for _, o := range r.Steps {
		if o.Acted {
			return true
		}
	}
	return false
}

// Count says how many steps have a state.
func (r *Result) Count(s State) int {
	n := 0
	for _, o := range r.Steps {
		if o.State == s {
			n++
		}
	}
	return n
}

// failures are what went wrong, in words.
func (r *Result) failures() []string {
	var all []string
	for _, l := range r.Left {
		if r.broken && l.Reason == ForGone {
			all = append(all, fmt.Sprintf("%s, process %d: %s", shown(l.Comm), l.PID, l.Why))
		}
	}
	for _, o := range r.Steps {
		if o.State == Failed || o.State == StillOld {
			all = append(all, o.Error)
		}
	}
	for _, h := range r.Health {
		if !h.OK {
			all = append(all, fmt.Sprintf("health: %s: %s", h.Probe, h.Error))
		}
	}
	if n := r.Count(NotTried); n > 0 {
		all = append(all, fmt.Sprintf("%d not tried", n))
	}
	return all
}

// verdict is the error of a run.
func (r *Result) verdict() error { return r.verdictFor(r.failures()) }

// Brief is the error that Run has returned, without what Steps and Health say:
// for who has shown these.
func (r *Result) Brief() error { return r.verdictFor(nil) }

func (r *Result) verdictFor(failures []string) error {
	if r.lookErr != nil {
		failures = append(failures, "look at the processes afterwards: "+r.lookErr.Error())
	}
	switch {
	case r.cut != nil && !r.Acted():
		return r.cut
	case r.cut != nil && len(failures) == 0:
		return fmt.Errorf("%w: interrupted before it was known to be well", ErrUnhealthy)
	case r.cut != nil:
		return fmt.Errorf("%w: interrupted: %s", ErrUnhealthy, strings.Join(failures, "; "))
	case !r.Healthy && len(failures) == 0:
		return ErrUnhealthy
	case !r.Healthy && !r.Acted() && r.Count(Failed) > 0:
		return errors.New(strings.Join(failures, "; ")) // nothing has changed
	case !r.Healthy:
		return fmt.Errorf("%w: %s", ErrUnhealthy, strings.Join(failures, "; "))
	case len(r.Remaining) > 0:
		return &RemainsError{Count: len(r.Remaining), Left: r.Left}
	}
	return nil
}
