package reexecload

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// UpgradeOptions say how a server is replaced while it is under load.
type UpgradeOptions struct {
	Upgrades int
	Every    time.Duration // from the begin of one to that of the next, at least
	Limit    time.Duration // for one upgrade; 0 is five minutes
	Probe    time.Duration // pause between two connections of the probe; 0 is a millisecond

	// Start begins the upgrade with that number, counted from 1. Done says
	// whether it is over, by an answer that a new connection got; nil is at
	// once. Start is called by one goroutine, Done by another.
	Start func(n int) error
	Done  func(n int, a Answer) bool
}

// Upgrades is what became of them.
type Upgrades struct {
	Done  int
	Probe Result // of the connections that looked how long one waits

	gaps, took []time.Duration // one of each upgrade, ascending
}

// Gap returns the listener gap that a part of the upgrades did not exceed. That
// of one upgrade is the longest time that a new connection, of those that are
// made one after the other, a millisecond apart or as Probe says, waited for its
// answer. A server that is never deaf has the gap of a busy machine.
func (u Upgrades) Gap(part float64) time.Duration { return Quantile(u.gaps, part) }

// Took returns the time that a part of the upgrades took at most, from Start to
// the first answer of the new code.
func (u Upgrades) Took(part float64) time.Duration { return Quantile(u.took, part) }

// String is the result in a line.
func (u Upgrades) String() string {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return fmt.Sprintf("%d upgrades; listener gap p50 %.2f ms, p99 %.2f ms, longest %.2f ms; upgrade p50 %.0f ms, p99 %.0f ms",
		u.Done, ms(u.Gap(0.5)), ms(u.Gap(0.99)), ms(u.Gap(1)), ms(u.Took(0.5)), ms(u.Took(0.99)))
}

// Drive replaces the server again and again. Beside an error it returns what was
// done before. The Options are those of the probe: address, path, check.
func Drive(ctx context.Context, o Options, u UpgradeOptions) (Upgrades, error) {
	o = o.withDefaults()
	if u.Limit == 0 {
		u.Limit = 5 * time.Minute // a preflight waits for the disk, which others may use
	}
	if u.Probe == 0 {
		u.Probe = time.Millisecond
	}
	d := &drive{done: make(chan int, 1), u: u}
	probing, stop := context.WithCancel(ctx)
	check := o.Check
	o.KeepAlive = false
	o.Check = func(sent []byte, a Answer) error {
		d.saw(a)
		return check(sent, a)
	}
	var probe sync.WaitGroup
	var result Upgrades
	probe.Go(func() { result.Probe = d.probe(probing, o) })
	var err error
	for n := 1; n <= u.Upgrades && err == nil; n++ {
		if err = d.upgrade(ctx, n); err != nil {
			err = fmt.Errorf("upgrade %d: %w", n, err)
		}
	}
	stop()
	probe.Wait()
	result.gaps, result.took, result.Done = d.gaps, d.took, len(d.took)
	slices.Sort(result.gaps)
	slices.Sort(result.took)
	return result, err
}

// drive is what the probe and the upgrades tell each other.
type drive struct {
	u    UpgradeOptions
	done chan int // an upgrade was seen to be over; it may be the one before the one that is on

	mu         sync.Mutex
	n          int // the upgrade that is on; 0 is none
	gap        time.Duration
	gaps, took []time.Duration
}

// probe makes connections one after the other and notes how long they take.
func (d *drive) probe(ctx context.Context, o Options) (r Result) {
	c := client{addr: o.Addr}
	defer c.close()
	for n := 0; ctx.Err() == nil; n++ {
		took := o.request(&c, -1, n, &r)
		d.mu.Lock()
		d.gap = max(d.gap, took)
		d.mu.Unlock()
		pause(ctx, d.u.Probe)
	}
	slices.Sort(r.took)
	return r
}

// saw tells an upgrade that is on of an answer.
func (d *drive) saw(a Answer) {
	d.mu.Lock()
	n := d.n
	d.mu.Unlock()
	if n == 0 || d.u.Done != nil && !d.u.Done(n, a) {
		return
	}
	select {
	case d.done <- n:
	default:
	}
}

// upgrade does one.
func (d *drive) upgrade(ctx context.Context, n int) error {
	begin := time.Now()
	d.mu.Lock()
	d.n, d.gap = n, 0
	d.mu.Unlock()
	if err := d.u.Start(n); err != nil {
		return err
	}
	limit := time.NewTimer(d.u.Limit)
	defer limit.Stop()
	for over := 0; over != n; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.C:
			return fmt.Errorf("not over after %v", d.u.Limit)
		case over = <-d.done:
		}
	}
	took := time.Since(begin)
	// What comes a little later is this one's doing as well.
	pause(ctx, max(d.u.Every-took, 10*time.Millisecond))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.n = 0
	d.gaps, d.took = append(d.gaps, d.gap), append(d.took, took)
	return ctx.Err()
}
