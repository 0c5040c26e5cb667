package restart

import (
	"context"
	"errors"
	"fmt"
	"time"

	"moult.example/internal/release"
	"moult.example/internal/stale"
)

// Options say what is to be restarted and how. Only Find is needed; the zero
// value of the rest is right for all stale processes of this host.
type Options struct {
	// Find looks for stale processes: among those of these numbers, or all if
	// pids is nil. It is [stale.Find] with whatever that is to know of targets.
	Find func(ctx context.Context, pids []int) (*stale.Report, error)

	Target  string   // only processes that run files of this target; "" is all
	Targets []string // whose programs are no foreign ones, if Target is ""
	Rules   []Rule   // how to restart what; the first that matches counts, and their order is that of the restarts
	Deny    []string // patterns of what is left alone: of units, names and paths of programs
	Allow   []string // patterns of what is touched although moult leaves it alone by itself

	// Check is asked before a process is stopped whether it could be started
	// again; an error is the reason why not. nil asks nobody; then a process is
	// refused if a file is gone that it needs for sure.
	Check func(ctx context.Context, p stale.Process) error

	// Revive are the steps of an earlier run that was taken back. What they have
	// restarted may be down since, and what is down is not stale: it is started
	// all the same.
	Revive []Outcome

	Parallel    int           // how many at a time; 0 is one
	KeepGoing   bool          // go on with the others when one has failed
	Timeout     time.Duration // for each, if its rule does not say; 0 is three minutes
	MustStart   bool          // what could not be started again is not well: then nothing is tried
	HealthOnly  bool          // nobody was to be restarted, so what is stale is no matter
	Health      []Probe       // asked in the end, and after each batch those that were well before the first
	HealthLast  bool          // they are asked in the end only
	HealthLimit time.Duration // until all of them are well; 0 is one minute

	OnEvent func(Event) // progress; nil is silence. Called from one goroutine at a time

	// The rest is for tests.
	SystemBus string               // "" is $DBUS_SYSTEM_BUS_ADDRESS, else the system's
	UserBus   func(uid int) string // nil is the one in /run/user
	Proc      string               // "" is /proc
	Self      int                  // the process that must live; 0 is this one
	Linger    time.Duration        // how long what was stopped with its unit may take to go; 0 is five seconds
}

// Event is one thing that has happened.
type Event struct {
	Step  string // the name of the step
	State State  // what has become of it; Running when it begins
	Error string
	Done  int // steps that are over
	All   int
}

// Rule is a [release.RestartRule] with where it is from.
type Rule struct {
	release.RestartRule
	From   string // for people: a path and number, or a release
	Target string // it is of a release: its paths are relative to this target, and it is for processes of this target alone
}

// The errors that a caller tells apart.
var (
	// ErrUnhealthy: something was restarted or was to be asked for its health,
	// and is not well, or not to the end. What there is, is in the Result.
	ErrUnhealthy = errors.New("not all is well")

	// ErrRemains: what was to be done has been done, and there are still stale
	// processes. Result.Remaining has them, and a [RemainsError] says why.
	ErrRemains = errors.New("stale processes remain")
)

// RemainsError is ErrRemains, with who was left alone.
type RemainsError struct {
	Count int
	Left  []Left
}

func (e *RemainsError) Error() string { return fmt.Sprintf("%v: %d", ErrRemains, e.Count) }

// Unwrap gives ErrRemains.
func (e *RemainsError) Unwrap() error { return ErrRemains }

const (
	defaultTimeout = 3 * time.Minute // a service of systemd may take 90 seconds to stop, and as long to start
	defaultLinger  = 5 * time.Second
)

func (o Options) withDefaults() Options {
	if o.Parallel < 1 {
		o.Parallel = 1
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.Linger <= 0 {
		o.Linger = defaultLinger
	}
	if o.Proc == "" {
		o.Proc = "/proc"
	}
	return o
}
