//go:build !linux

package reexec

import (
	"context"
	"fmt"
	"os"
	"syscall"
)

// Here nothing is handed over; what a program does for it is harmless.

const defaultSignal = syscall.Signal(-1)

type system struct{}

// Change says which of the watched files are not what the program runs.
type Change struct {
	Replaced    []string // another file is at that path
	Overwritten []string // the very file was written to
	Missing     []string // there is none; an update may be in between
}

func (p *Process) start() error { return nil }

func (p *Process) run(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func (p *Process) upgrade(context.Context, bool) error { return ErrUnsupported }

func (p *Process) rollBack(string) error { return errNoWayBack }

func (p *Process) becomeReady() error {
	p.mu.Lock()
	p.ready = true
	p.mu.Unlock()
	p.tell(Event{Kind: Readied})
	return nil
}

// Changed looks at the watched files now.
func (p *Process) Changed() (Change, error) {
	return Change{}, fmt.Errorf("reexec: watch: %w", ErrUnsupported)
}

// Notify tells the service manager something. Here there is none to tell.
func (p *Process) Notify(string) error { return nil }

func (p *Process) inheritedSocket(string, string, string) (*os.File, bool, error) {
	return nil, false, nil
}

func dupFD(int) (int, error) { return -1, nil }

func closeFD(int) {}
