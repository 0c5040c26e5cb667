package deploy

import (
	"errors"
	"fmt"
	"strings"
)

// The errors that a caller tells apart. Each comes wrapped with the job and the
// file.
var (
	// ErrBusy: another moult holds the target. Nothing has changed.
	ErrBusy = errors.New("another moult is at work on this target")

	// ErrUnfinished: the target was changed, but not to the end; see Status.
	// The next command that writes finishes it, as does Recover.
	ErrUnfinished = errors.New("changed but not finished")

	// ErrNoTarget: there is nothing of moult's at that path.
	ErrNoTarget = errors.New("not a moult target")

	// ErrNoGeneration: the target has no generation of that number.
	ErrNoGeneration = errors.New("no such generation")

	// ErrNewer: a newer moult wrote this; it is left alone.
	ErrNewer = errors.New("written by a newer moult")

	// ErrAfter: the release is live, but its hook after the commit, ldconfig or
	// systemctl failed.
	ErrAfter = errors.New("the release is live, but what was to run after it failed")

	// ErrCutShort: an earlier command was cut short, and this one may not or
	// must not write. The next command that writes recovers first.
	ErrCutShort = errors.New("an earlier command was cut short")
)

// NoProductError says that a shared target holds nothing of that name. It is an
// [ErrNoTarget], too.
type NoProductError struct {
	Target Path
	Name   string
	Holds  []string // what there is
}

// Error implements error.
func (e *NoProductError) Error() string {
	return fmt.Sprintf("%s holds %s, not %s", e.Target.Quoted(), strings.Join(e.Holds, ", "), e.Name)
}

// Unwrap makes it one that is [ErrNoTarget].
func (e *NoProductError) Unwrap() error { return ErrNoTarget }

// Problem is one reason why a release is refused.
type Problem struct {
	Path Path   `json:"path"`           // in the target; "" is the target itself
	Why  string `json:"why"`            // what is in the way
	Hint string `json:"hint,omitempty"` // the way out, if there is a common one
}

// ConflictError says what somebody else changed between the plan and its turn.
// Theirs was left as it is, and the rest is done, so there is nothing to recover.
type ConflictError struct {
	Paths []Path
}

// Error implements error.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s: somebody else changed %s meanwhile, which was left as it is", ErrUnfinished, e.Paths[0].Quoted())
}

// Unwrap makes it one that is [ErrUnfinished].
func (e *ConflictError) Unwrap() error { return ErrUnfinished }

// Refused begins the text of a [RefusedError].
const Refused = "refused, nothing has changed: "

// RefusedError says everything that the preflight found. Nothing has changed.
type RefusedError struct {
	Problems []Problem
}

// Error implements error: the first few problems, and how many more there are.
func (e *RefusedError) Error() string {
	const show = 5
	var b strings.Builder
	b.WriteString(Refused)
	for i, p := range e.Problems {
		if i == show {
			fmt.Fprintf(&b, "; and %d more", len(e.Problems)-show)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		if p.Path != "" {
			fmt.Fprintf(&b, "%s: ", p.Path.Quoted())
		}
		b.WriteString(p.Why)
	}
	return b.String()
}

// Hint is the first way out that a problem names.
func (e *RefusedError) Hint() string {
	for _, p := range e.Problems {
		if p.Hint != "" {
			return p.Hint
		}
	}
	return ""
}

func refuse(path, why, hint string) error {
	return &RefusedError{Problems: []Problem{{Path(path), why, hint}}}
}
