package restart

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// restartUnit restarts a unit, or reloads it if it can and that is wanted, and
// waits until it is up. It returns the unit as it is then. asked says that
// systemd has taken the job. A unit that somebody has stopped meanwhile stays
// so, that is what "try" means; revive starts it, also if systemd has given it
// up.
func (m *manager) restartUnit(ctx context.Context, name string, reload, revive bool) (u unit, asked bool, err error) {
	done := make(chan string, 1)
	start := m.conn.TryRestartUnitContext
	call, cancel := context.WithTimeout(ctx, busLimit)
	switch {
	case revive:
		// Without this a unit that has failed too often in too short a time is
		// not started (systemd.unit(5), StartLimitBurst=).
		_ = m.conn.ResetFailedUnitContext(call, name) // then the start says what is wrong
		start = m.conn.RestartUnitContext
	case reload:
		start = m.conn.ReloadOrTryRestartUnitContext
	}
	_, err = start(call, name, "replace", done)
	cancel()
	if ctx.Err() != nil {
		return u, true, fmt.Errorf("restart %s: systemd is still at it", name) // or has not even heard of it
	}
	if err != nil {
		return u, false, fmt.Errorf("restart %s: %w", name, err)
	}
	if err := m.waitJob(ctx, name, done); err != nil {
		return u, true, err
	}
	u, err = m.waitUp(ctx, name)
	return u, true, err
}

// Pauses between looks at a unit: systemd tells of the end of a job, but
// nothing tells that a service has become active by its own.
const (
	jobPoll      = 400 * time.Millisecond
	upPoll       = 20 * time.Millisecond // at first
	upPollAtMost = 250 * time.Millisecond
)

// waitJob waits for the end of the job. The signal may be lost when systemd or
// the bus restarts, so it also looks whether the unit has a job at all.
func (m *manager) waitJob(ctx context.Context, name string, done <-chan string) error {
	tick := time.NewTicker(jobPoll)
	defer tick.Stop()
	for idle := 0; ; {
		select {
		case result := <-done:
			switch result {
			case "done", "skipped":
				return nil
			}
			return fmt.Errorf("restart %s: its job ended with %q%s", name, result, m.why(ctx, name))
		case <-ctx.Done():
			return fmt.Errorf("restart %s: systemd is still at it", name)
		case <-tick.C:
			u, err := m.look(ctx, name)
			if err == nil && !u.job {
				idle++ // once may be between the end of the job and its signal
			}
			if idle > 1 {
				return nil
			}
		}
	}
}

// why is what systemd says of a unit that is not up, for an error.
func (m *manager) why(ctx context.Context, name string) string {
	u, err := m.look(ctx, name)
	if err != nil {
		return ""
	}
	text := fmt.Sprintf("; it is %s (%s)", u.active, u.sub)
	if u.result != "" && u.result != "success" {
		text += ", its result " + u.result
	}
	return text
}

var errNotUp = errors.New("is not up")

// waitUp waits until the unit is active. A unit of type oneshot is also well
// when it has done its work.
func (m *manager) waitUp(ctx context.Context, name string) (unit, error) {
	var last unit // what was seen, where the end of the time cuts a look short
	for pause := upPoll; ; pause = min(2*pause, upPollAtMost) {
		u, err := m.look(ctx, name)
		if err != nil && ctx.Err() != nil && last.name != "" {
			return last, notInTime(last)
		}
		if err != nil {
			return u, err
		}
		last = u
		switch {
		case u.active == "active" && !u.job && !isForking(u.mainPID):
			return u, nil
		case u.active == "inactive" && u.kind == "oneshot" && u.result == "success":
			return u, nil
		case u.active == "failed", u.active == "inactive" && !u.job:
			return u, fmt.Errorf("%s %w%s", name, errNotUp, m.why(ctx, name))
		}
		if !sleep(ctx, pause) {
			return u, notInTime(u)
		}
	}
}

// isForking says that a process is still one of systemd's own, about to execute
// what the unit says: a unit of type simple is active as soon as it is there
// (systemd.service(5)). Until then its name stands in parentheses.
func isForking(pid int) bool {
	if pid <= 0 {
		return false
	}
	dir := "/proc/" + strconv.Itoa(pid)
	comm, err := os.ReadFile(dir + "/comm")
	if err != nil || !bytes.HasPrefix(comm, []byte("(")) {
		return false
	}
	exe, err := os.Readlink(dir + "/exe")
	return err == nil && strings.HasPrefix(filepath.Base(exe), "systemd")
}

func notInTime(u unit) error {
	return fmt.Errorf("%s %w in time; it is %s (%s)", u.name, errNotUp, u.active, u.sub)
}

// stayed looks once more at a unit that was up: still up, and not because
// systemd has had to start it again.
func (m *manager) stayed(ctx context.Context, was unit) error {
	u, err := m.look(ctx, was.name)
	if err != nil {
		return err
	}
	switch {
	case was.active == "inactive": // a oneshot that is done
		return nil
	case u.restarts > was.restarts:
		return fmt.Errorf("%s came up, but systemd has had to restart it %d times since", was.name, u.restarts-was.restarts)
	case u.active != "active" && u.active != "reloading":
		return fmt.Errorf("%s came up and %w any more%s", was.name, errNotUp, m.why(ctx, was.name))
	}
	return nil
}
