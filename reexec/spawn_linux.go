package reexec

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// spawn starts the new file as a child, waits until it is ready, and lets our
// own work end. Until then nothing is paused.
func (p *Process) spawn(ctx context.Context, c *candidate) error {
	p.tellManager(reloading())
	child, err := p.spawnReady(ctx, c)
	if err != nil {
		if isUnfit(err) || errors.Is(err, errChildEnded) {
			p.reject(c.id, err.Error())
			err = fmt.Errorf("%w: %w", ErrRejected, err)
		}
		p.tellManager("READY=1\nSTATUS=Upgrade failed, running")
		p.tell(Event{Kind: Failed, Path: c.path, Err: err})
		return fmt.Errorf("reexec: upgrade to %s: %w", c.path, err)
	}
	p.tell(Event{Kind: Draining, Path: c.path})
	if err := p.retire(ctx); err != nil {
		p.tell(Event{Kind: Warning, Err: fmt.Errorf("retire: %w", err)})
	}
	p.state.replaced(p)
	return fmt.Errorf("%w: %d", ErrReplaced, child.proc.Pid)
}

// spawnReady starts the child and waits for its word.
func (p *Process) spawnReady(ctx context.Context, c *candidate) (*child, error) {
	if p.opts.ReadyTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, p.opts.ReadyTimeout, fmt.Errorf("%w: not ready after %v", errChildEnded, p.opts.ReadyTimeout))
		defer cancel()
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	h := p.newHandover(c, true)
	h.ready = rawFD(w)
	memfd, err := sealed(handoverName, h.encode())
	if err != nil {
		w.Close()
		return nil, err
	}
	env := slices.DeleteFunc(slices.Clone(p.env), func(v string) bool { return strings.HasPrefix(v, "WATCHDOG_PID=") })
	env = append(env, varFD+"="+strconv.Itoa(memfd))
	child, err := p.startChild(c.path, env, [3]int{0, 1, 2}, append(h.descriptors(), memfd), false)
	unix.Close(memfd)
	w.Close()
	if err != nil {
		return nil, err
	}
	word := make(chan string, 1)
	go func() {
		line := make([]byte, 64)
		n, _ := r.Read(line)
		word <- string(line[:n])
	}()
	want := fmt.Sprintf("ready %d\n", child.proc.Pid)
	select {
	case got := <-word:
		if got == want {
			return child, nil
		}
	case <-child.exited:
		select {
		case got := <-word: // it was ready, and ended
			if got == want {
				return child, nil
			}
		case <-time.After(time.Second): // a child of its own holds the pipe
		}
	case <-ctx.Done():
		child.end(false)
		return nil, context.Cause(ctx)
	}
	child.end(false)
	return nil, fmt.Errorf("%w: %v", errChildEnded, child.state)
}
