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
)

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
	ready := false
	for _, found := range report.Processes {
		ready = ready || found.PID == p.PID && found.Ticks == p.ticks && canReexec(found) && found.Reexec.Signal == o.Signal
	}
	if !ready {
		o.fail(Failed, fmt.Errorf("%s: it does not say any more that it can replace itself", o.Name))
		return
	}
	if err := unix.PidfdSendSignal(pidfd, unix.Signal(o.Signal), nil, 0); err != nil {
		o.fail(Failed, fmt.Errorf("%s: %w", o.Name, os.NewSyscallError("pidfd_send_signal", err)))
		return
	}
	o.Acted = true
	r.waitReplaced(ctx, o, pidfd)
}

// waitReplaced waits until a process runs the new code, twice in a row: the
// library goes back to the old code if the new does not get ready.
func (r *runner) waitReplaced(ctx context.Context, o *Outcome, pidfd int) {
	main := o.Processes[:1]
	pause := 10 * time.Millisecond
	for fresh := 0; fresh < 2; pause = min(2*pause, 200*time.Millisecond) {
		ended, err := hasEnded(pidfd)
		if ended {
			o.fail(Failed, fmt.Errorf("%s: it ended instead of replacing itself", o.Name))
			return
		}
		var left []Process
		if err == nil {
			left, err = r.stillStale(ctx, main)
		}
		fresh++
		if err != nil || len(left) > 0 {
			fresh = 0
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
