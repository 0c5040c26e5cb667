package reexec

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// rest is the program at rest: nothing is accepted, and all work is finished.
type rest struct {
	p        *Process
	listens  []*Listener
	packets  []*PacketConn
	drainers []Drainer
	carried  []Carried
	since    time.Time
}

// comeToRest stops accepting, waits until what was begun is finished, and calls
// the functions of BeforeExec. On an error all goes on as before.
func (p *Process) comeToRest(ctx context.Context) (*rest, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.opts.DrainTimeout, fmt.Errorf("%w: not finished after %v", ErrBusy, p.opts.DrainTimeout))
	defer cancel()
	p.announce(ctx)
	p.mu.Lock()
	p.leaving = true
	r := &rest{p: p, listens: slices.Clone(p.listens), packets: slices.Clone(p.packets), drainers: slices.Clone(p.drainers)}
	before := slices.Clone(p.before)
	p.mu.Unlock()

	r.since = time.Now()
	for _, l := range r.listens {
		l.gate.close()
	}
	for _, c := range r.packets {
		c.gate.close()
	}
	err := r.drain(ctx)
	if err != nil && !(p.opts.OnBusy == Force && isBusy(err)) {
		r.resume()
		return nil, err
	}
	for _, f := range before {
		if err := f(ctx); err != nil {
			r.resume()
			return nil, fmt.Errorf("before exec: %w", err)
		}
	}
	return r, nil
}

// announce has clients leave whose connections cannot be carried over.
func (p *Process) announce(ctx context.Context) {
	p.mu.Lock()
	drainers := slices.Clone(p.drainers)
	p.mu.Unlock()
	var wg sync.WaitGroup
	for _, d := range drainers {
		if a, is := d.(Announcer); is {
			wg.Go(func() { a.Announce(ctx) })
		}
	}
	wg.Wait()
}

func isBusy(err error) bool {
	return errors.Is(err, ErrBusy) || errors.Is(err, context.DeadlineExceeded)
}

// drain waits for all parts of the program at once.
func (r *rest) drain(ctx context.Context) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	wait := func(what string, f func() error) {
		wg.Go(func() {
			if err := f(); err != nil {
				mu.Lock()
				errs = append(errs, fmt.Errorf("%s: %w", what, err))
				mu.Unlock()
			}
		})
	}
	for _, l := range r.listens {
		wait("connections of "+l.name, func() error { return l.open.wait(ctx) })
	}
	for _, c := range r.packets {
		wg.Go(func() { c.rest(ctx) })
	}
	for _, d := range r.drainers {
		wait("drain", func() error {
			carried, err := d.Drain(ctx)
			mu.Lock()
			r.carried = append(r.carried, carried...)
			mu.Unlock()
			return err
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// resume takes up the work again.
func (r *rest) resume() {
	r.p.mu.Lock()
	r.p.leaving = false
	trial := r.p.trial
	listens, packets := slices.Clone(r.p.listens), slices.Clone(r.p.packets)
	r.p.mu.Unlock()
	for _, d := range r.drainers {
		d.Resume()
	}
	if trial {
		return
	}
	// Those of now: some may have been added, shut, meanwhile.
	for _, l := range listens {
		l.gate.open()
	}
	for _, c := range packets {
		c.gate.open()
	}
}

// retire lets the work end: a spawned successor has taken over.
func (p *Process) retire(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, p.opts.DrainTimeout, fmt.Errorf("%w: not finished after %v", ErrBusy, p.opts.DrainTimeout))
	defer cancel()
	p.mu.Lock()
	p.leaving = true
	r := &rest{p: p, listens: slices.Clone(p.listens), packets: slices.Clone(p.packets)}
	drainers := slices.Clone(p.drainers)
	p.mu.Unlock()
	for _, l := range r.listens {
		if u, is := l.inner.(*net.UnixListener); is {
			u.SetUnlinkOnClose(false) // the name is the successor's
		}
		l.gate.close()
	}
	for _, c := range r.packets {
		c.gate.close()
	}
	var wg sync.WaitGroup
	errs := make([]error, len(drainers))
	for i, d := range drainers {
		wg.Go(func() { errs[i] = d.Retire(ctx) })
	}
	err := r.drain(ctx)
	wg.Wait()
	return errors.Join(append(errs, err)...)
}

// drop forgets a listener that was closed.
func (p *Process) drop(l *Listener) {
	p.mu.Lock()
	p.listens = slices.DeleteFunc(p.listens, func(other *Listener) bool { return other == l })
	for _, k := range l.carried {
		closeFD(k.fd)
	}
	l.carried = nil
	p.mu.Unlock()
	p.Forget(l.name)
}
