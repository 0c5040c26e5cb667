package restart

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/stale"
)

// speaks is how long new code may say nothing of itself: until it is loaded and
// says that it is not ready yet, and may still go back to the old. One that
// says nothing after that counts as ready.
const speaks = 2 * time.Second

// settle is how long processes may go on with the old code after a command has
// said that it is done, if its rule sets no limit.
const settle = 30 * time.Second

// byUnit restarts a unit.
func (r *runner) byUnit(ctx context.Context, o *Outcome) {
	m, err := r.buses.of(ctx, o.home)
	if err != nil {
		o.fail(Failed, err)
		return
	}
	u, err := m.look(ctx, o.Unit)
	if err != nil {
		o.fail(Failed, err)
		return
	}
	if r.self.ancestors[u.mainPID] {
		o.fail(Failed, fmt.Errorf("restart %s: moult was started from it", o.Name))
		return
	}
	o.up, o.Acted, err = m.restartUnit(ctx, o.Unit, o.Reload, o.Revive)
	o.MainPID = o.up.mainPID
	if err != nil {
		o.fail(Failed, interrupted(ctx, o, err))
		return
	}
	r.waitCurrent(ctx, o, r.Linger)
}

// interrupted says so, where an error is only its consequence.
func interrupted(ctx context.Context, o *Outcome, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("%s: interrupted: %w", o.Name, err)
	}
	return err
}

// byCommand runs the command of a rule, once for all processes.
func (r *runner) byCommand(ctx context.Context, o *Outcome) {
	cmd := exec.CommandContext(ctx, o.Run[0], o.Run[1:]...)
	cmd.Dir = "/"
	pids := make([]string, len(o.Processes))
	for i, p := range o.Processes {
		pids[i] = strconv.Itoa(p.PID)
	}
	target := r.Target
	if o.rule != nil && o.rule.Target != "" {
		target = o.rule.Target
		cmd.Dir = target // so that a release can name its own programs
	}
	cmd.Env = append(os.Environ(), "MOULT_PIDS="+strings.Join(pids, " "), "MOULT_TARGET="+target)
	o.Acted = true
	if err := runCommand(ctx, cmd); err != nil {
		if cmd.Process == nil {
			o.Acted = false
		}
		o.fail(Failed, fmt.Errorf("%s: %w", o.Name, err))
		return
	}
	limit := settle
	if o.rule != nil && o.rule.Limit() > 0 {
		limit = o.rule.Limit()
	}
	r.waitCurrent(ctx, o, limit)
}

// bySignal tells a program to replace itself, and waits until it has: under its
// old number it runs the new code.
func (r *runner) bySignal(ctx context.Context, o *Outcome) {
	p := o.Processes[0]
	// Who holds a descriptor of a process before looking at it knows that the
	// look was at that one: a signal through it fails once the process is gone.
	pidfd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		o.State = Current
		return
	}
	if err != nil {
		o.fail(Failed, fmt.Errorf("%s: %w", o.Name, os.NewSyscallError("pidfd_open", err)))
		return
	}
	defer unix.Close(pidfd)
	report, err := r.Find(ctx, []int{p.PID})
	if err != nil {
		o.fail(Failed, fmt.Errorf("%s: %w", o.Name, err))
		return
	}
	var before *stale.Reexec
	for _, found := range report.Processes {
		if found.PID == p.PID && found.Ticks == p.ticks && canReexec(found) && found.Reexec.Signal == o.Signal {
			before = found.Reexec
		}
	}
	if ended, _ := hasEnded(pidfd); ended && before == nil {
		o.State = Current // while it was looked at
		return
	}
	if before == nil {
		o.fail(Failed, fmt.Errorf("%s: it does not say any more that it can replace itself", o.Name))
		return
	}
	over := r.self.newHandover(p.PID, *before)
	err = unix.PidfdSendSignal(pidfd, unix.Signal(o.Signal), nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) { // gone: it has just handed over, or has not
		o.fail(Failed, fmt.Errorf("%s: %w", o.Name, os.NewSyscallError("pidfd_send_signal", err)))
		return
	}
	o.Acted = true
	r.waitReplaced(ctx, o, pidfd, *before, over)
}

// waitReplaced waits until a process runs the new code and is ready, twice in a
// row: the library goes back to the old code if the new does not get ready. It says so
// in what it shows of itself, as it does if it does not even try the new code;
// then nothing is left to wait for.
func (r *runner) waitReplaced(ctx context.Context, o *Outcome, pidfd int, before stale.Reexec, over handover) {
	var last stale.Reexec
	var mute time.Time // since when the new code says nothing
	pause := 10 * time.Millisecond
	for fresh := 0; fresh < 2; pause = min(2*pause, 200*time.Millisecond) {
		ended, err := hasEnded(pidfd)
		if ended {
			if o.MainPID = over.heir(); o.MainPID != 0 {
				break
			}
			o.fail(Failed, fmt.Errorf("%s: it ended instead of replacing itself", o.Name))
			return
		}
		var old *stale.Process
		if err == nil {
			old, err = r.findOld(ctx, o.Processes[0])
		}
		says := stale.ReexecOf(o.Processes[0].PID)
		fresh++
		if err != nil || old != nil || says != nil && says.Starting {
			fresh = 0
		}
		switch {
		case fresh == 0 || says != nil:
			mute = time.Time{}
		case mute.IsZero():
			mute = time.Now()
			fallthrough
		case time.Since(mute) < speaks:
			fresh = 1
		}
		if old != nil && old.Reexec != nil {
			if why := keeps(before, last, *old.Reexec); why != "" {
				o.fail(StillOld, fmt.Errorf("%s: %s; what it has logged says why", o.Name, why))
				return
			}
			last = *old.Reexec
		}
		if fresh == 1 {
			pause = 50 * time.Millisecond
		}
		if fresh < 2 && !sleep(ctx, pause) {
			o.fail(StillOld, interrupted(ctx, o, fmt.Errorf("%s: it has not replaced itself in time, and goes on with the old code", o.Name)))
			return
		}
	}
	// Those that it has started are its business; but they are waited for.
	r.waitCurrent(ctx, o, r.Linger)
}

// findOld looks at a process; nil if it is not stale, or is not there.
func (r *runner) findOld(ctx context.Context, p Process) (*stale.Process, error) {
	report, err := r.Find(ctx, []int{p.PID})
	if err != nil {
		return nil, err
	}
	for i, found := range report.Processes {
		if found.PID == p.PID && found.Ticks == p.ticks && isBad(found.Verdict()) {
			return &report.Processes[i], nil
		}
	}
	return nil, nil
}

// keeps says why a process that was asked to replace itself, and is stale, is not
// going to: by what it said of itself before it was asked, when it was looked at
// last, and now. A generation counts if it was seen twice: the files that were
// looked at in between are then its own. Two more than before are one that was
// tried, and one that took over from it again (docs/reexec-protocol.md).
func keeps(before, last, now stale.Reexec) string {
	switch {
	case now.Generation == before.Generation && now.Rejected > before.Rejected:
		return "it has rejected the new code, and goes on with the old"
	case now.Generation == last.Generation && now.Generation >= before.Generation+2:
		return "the new code did not get ready, and the old has taken over again"
	}
	return ""
}

// hasEnded says that a process is gone: its descriptor is readable
// (pidfd_open(2)).
func hasEnded(pidfd int) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return n > 0, err
}

// byReexec makes systemd replace itself.
func (r *runner) byReexec(ctx context.Context, o *Outcome) {
	m, err := r.buses.of(ctx, o.home)
	if err == nil {
		o.Acted = true
		err = m.reexecute(ctx)
	}
	if err != nil {
		o.fail(Failed, fmt.Errorf("%s: replace itself: %w", o.Name, err))
		return
	}
	r.waitCurrent(ctx, o, settle)
}
