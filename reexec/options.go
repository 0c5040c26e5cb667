package reexec

import (
	"errors"
	"fmt"
	"syscall"
	"time"
)

// Options say how a program is replaced. The zero value is right for most.
type Options struct {
	// Exe is the path of the executable to watch, as the program sees it (after
	// a chroot, the path inside). "" means the first of argv[0], AT_EXECFN and
	// /proc/self/exe that leads to the file that is running. Symbolic links are
	// followed at each look.
	Exe string

	// Watch names more files whose replacement asks for an upgrade. The shared
	// libraries of the program are watched in any case.
	Watch []string

	// Poll is the time between two looks at the files: 0 means 2 s, a negative
	// one means never, so that only Upgrade and the signal ask.
	Poll time.Duration

	// Settle is how long all files have to be unchanged; 0 means 500 ms.
	Settle time.Duration

	// Signal asks for an upgrade, even if no file has changed. 0 means SIGUSR2,
	// a negative one none.
	Signal syscall.Signal

	Mode      Mode      // InPlace
	Preflight Preflight // Load

	// PreflightTimeout is how long a preflight may take; 0 means 30 s. A trial
	// has ReadyTimeout on top.
	PreflightTimeout time.Duration

	// DrainTimeout is how long the work may take that has to be finished before
	// the new code is executed; 0 means 30 s. Then OnBusy holds.
	DrainTimeout time.Duration
	OnBusy       Busy // Defer

	// ReadyTimeout is how long the new code has from its start to Ready; 0 means
	// 60 s, a negative one for ever. Then the old code is executed again.
	ReadyTimeout time.Duration

	// StateDir is a directory for the boot counter and for what is remembered of
	// rejected versions across restarts. "" means the first of
	// $STATE_DIRECTORY; if that is not set either, there is no boot counter.
	StateDir string

	// Probation is how long a version has to run after Ready until it counts as
	// good; 0 means 5 min. The third start of one version that does not reach
	// that executes the last good one.
	Probation time.Duration

	// FDStore gives the kept descriptors to systemd at Ready, so that the next
	// start after a crash has them (FileDescriptorStoreMax= of the unit).
	FDStore bool

	// OnEvent is told what happens, from several goroutines, one at a time. It
	// must not call Upgrade.
	OnEvent func(Event)
}

func (o Options) withDefaults() Options {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.Poll, 2*time.Second)
	def(&o.Settle, 500*time.Millisecond)
	def(&o.PreflightTimeout, 30*time.Second)
	def(&o.DrainTimeout, 30*time.Second)
	def(&o.ReadyTimeout, time.Minute)
	def(&o.Probation, 5*time.Minute)
	if o.Signal == 0 {
		o.Signal = defaultSignal
	}
	return o
}

// Mode is how the new code comes to run.
type Mode int

const (
	// InPlace executes the new code in this process. PID, parent, cgroup,
	// terminal and children stay. Connections wait in the kernel's queue while
	// the new code starts.
	InPlace Mode = iota

	// Spawn starts the new code as a child, and this process goes on until the
	// child is ready; then Run returns ErrReplaced. For programs that take long
	// to start. The PID changes: systemd needs NotifyAccess=all.
	Spawn
)

// Preflight is how the new file is tried before the old code lets go of its work.
type Preflight int

const (
	// Load runs the new file until its Start: the loader, all libraries and
	// symbols, and everything that is initialized before main.
	Load Preflight = iota

	// Trial runs the new file until its Ready, with all descriptors and saved
	// bytes but with listeners that accept nothing. It finds what fails or
	// panics while the program starts. The program must stand being started
	// beside itself (Process.Trial tells).
	Trial

	// None executes the new file untried.
	None
)

// Busy is what happens if the work is not finished after DrainTimeout.
type Busy int

const (
	// Defer goes on with the old code and tries again later.
	Defer Busy = iota

	// Force executes the new code, and cuts off what is not finished.
	Force
)

// EventKind says what an Event tells.
type EventKind string

// The events of an upgrade, in the order in which they come.
const (
	Changed     EventKind = "changed"     // a file was replaced, and has settled
	Overwritten EventKind = "overwritten" // a file in use was written to: restart the program yourself, with a good file
	Same        EventKind = "same"        // the new file has the bytes of the old one; nothing to do
	Preflighted EventKind = "preflighted" // the new file passed
	Rejected    EventKind = "rejected"    // it did not; Err says why; it is not tried again
	Draining    EventKind = "draining"    // work is being finished, nothing new accepted
	Deferred    EventKind = "deferred"    // it did not finish in time; tried again later
	Executing   EventKind = "executing"   // the next thing is execve
	Failed      EventKind = "failed"      // Err; the old code goes on
	RolledBack  EventKind = "rolled back" // at Start of the old code: the new one was not fit, Err says why
	BootLoop    EventKind = "boot loop"   // at Start: this version did not survive three times; Err says so
	Readied     EventKind = "ready"       // Ready was called; Gap is how long nothing was accepted
	Warning     EventKind = "warning"     // Err says of what
)

// Event is one thing that happened.
type Event struct {
	Kind       EventKind
	Generation int           // of the code that tells
	Path       string        // the file that it is about
	Err        error         // what went wrong
	Gap        time.Duration // Readied after a hand-over: since the last accept
}

// String is the event as a line for a log, with what it has of all this.
func (e Event) String() string {
	text := fmt.Sprintf("generation %d: %s", e.Generation, e.Kind)
	if e.Path != "" {
		text += ": " + e.Path
	}
	if e.Gap > 0 {
		text += fmt.Sprintf(", after %v without accepting", e.Gap.Round(time.Microsecond))
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Errors that callers branch on.
var (
	// ErrUnsupported says that this system, or this process (set-user-id, file
	// capabilities), cannot be replaced.
	ErrUnsupported = errors.New("reexec: replacing the program is not supported here")

	// ErrBusy says that the work did not come to an end within DrainTimeout.
	ErrBusy = errors.New("reexec: busy")

	// ErrRejected says that the new file failed before, or failed now.
	ErrRejected = errors.New("reexec: rejected")

	// ErrOverwritten says that the running file was written to in place.
	ErrOverwritten = errors.New("reexec: the running file was overwritten in place")

	// ErrReplaced says that the spawned successor is ready, and that this
	// process has finished its work and should end.
	ErrReplaced = errors.New("reexec: replaced by a new process")
)
