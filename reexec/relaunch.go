package reexec

import (
	"os"
	"time"
)

// RelaunchOptions say how a program is started in the place of this process. The
// zero value is right for most.
type RelaunchOptions struct {
	// Args are the arguments, without the program's own name; nil are those of
	// this process.
	Args []string

	// ReadyTimeout is how long Relaunch waits on Windows for the new process to
	// call Launched; 0 is a minute.
	ReadyTimeout time.Duration
}

// Relaunch starts the program's file, as it is now, in the place of this
// process, with its environment, working directory and standard streams. It is
// for programs that can afford to stop: nothing else is carried over, and a
// program with connections wants Start and Run.
//
// On Linux and macOS the process becomes the new program (execve(2)), so
// Relaunch returns only if that failed, and then nothing has changed.
//
// On Windows the new program is another process. Relaunch waits until it calls
// Launched, and then returns nil: this process ends soon, by returning from
// main. If the new program ends or the time is over before, Relaunch ends it,
// undoes what Replace has done in this process, and returns an error: this
// process can go on. Under the service manager, end with an error instead, and
// let the manager start the program.
func Relaunch(o RelaunchOptions) error { return relaunch(o) }

// Launched says that the program has come as far as its work. Programs that use
// Replace call it at the start of main, or, if they may be started by Relaunch,
// when all is set up that can fail.
//
// On Windows it tells so to the process that called Relaunch, and removes in the
// background, once that has ended, what is left of earlier programs: files
// called NAME.PID.tmp and NAME.PID.new beside the program. What cannot be
// removed is hidden, and left to the next call in another process. The channel
// is closed when that is over; nobody has to wait. Elsewhere it does nothing. It
// may be called more than once.
func Launched() (swept <-chan struct{}) { return launched() }

func (o RelaunchOptions) args() []string {
	if o.Args != nil {
		return o.Args
	}
	return os.Args[min(1, len(os.Args)):]
}
