package reexec

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func newNonce() string { return rand.Text() }

// upgrade replaces the program. Asked says that somebody has asked for it: then
// neither an unchanged nor a rejected file is in the way.
func (p *Process) upgrade(ctx context.Context, asked bool) error {
	if p.secure {
		return fmt.Errorf("%w: the program is set-user-id, set-group-id or has file capabilities", ErrUnsupported)
	}
	p.upgrading.Lock()
	defer p.upgrading.Unlock()
	err := p.tryUpgrade(ctx, asked)
	if asked && (errors.Is(err, ErrRejected) || errors.Is(err, ErrOverwritten)) {
		p.turnedDown++ // so that who has asked need not wait any longer
		if infoErr := p.showInfo(); infoErr != nil {
			return fmt.Errorf("%w (and nobody is told: %w)", err, infoErr)
		}
	}
	return err
}

// tryUpgrade is upgrade, one at a time.
func (p *Process) tryUpgrade(ctx context.Context, asked bool) error {
	if p.trial || !p.isReady() {
		return errors.New("reexec: upgrade before Ready")
	}
	c, err := p.openCandidate()
	if err != nil {
		return p.untried(p.exe, err)
	}
	defer c.file.Close()
	if c.stat.sameFile(p.selfStat) && !c.stat.sameBytes(p.selfStat) {
		p.tell(Event{Kind: Overwritten, Path: p.exe, Err: ErrOverwritten})
		return ErrOverwritten
	}
	if err := p.vet(ctx, c, asked); err != nil {
		return err
	}
	p.tell(Event{Kind: Preflighted, Path: c.path})
	if err := ctx.Err(); err != nil {
		return err
	}
	if p.opts.Mode == Spawn {
		err = p.spawn(ctx, c)
	} else {
		err = p.replace(ctx, c)
	}
	return err
}

// vet finds out whether the file will run. What it finds is remembered.
func (p *Process) vet(ctx context.Context, c *candidate, asked bool) error {
	again := c.stat.sameFile(p.selfStat) // only libraries are new
	if !asked && !again {
		if why, is := p.wasRejected(c); is {
			return fmt.Errorf("%w: %s", ErrRejected, why)
		}
	}
	err := p.inspect(c)
	if err != nil {
		p.rejectedMu.Lock()
		p.refused = map[fileStat]string{c.stat: err.Error()}
		p.rejectedMu.Unlock()
		return p.turnDown(c, err)
	}
	if err := c.identify(); err != nil {
		return p.untried(c.path, err)
	}
	if !asked && !again { // known by its bytes, under another inode
		if why, is := p.wasRejected(c); is {
			p.reject(c.id, why)
			return fmt.Errorf("%w: %s", ErrRejected, why)
		}
	}
	err = p.preflight(ctx, c)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return err
	case c.checkUnchanged(p.exe) != nil:
		return fmt.Errorf("reexec: upgrade: %w", errReplacedAgain)
	case errors.Is(err, errUntried):
		return p.untried(c.path, err)
	}
	p.reject(c.id, preflightFailed+err.Error())
	return p.turnDown(c, fmt.Errorf("preflight: %w", err))
}

func (p *Process) inspect(c *candidate) error {
	self, err := p.openSelf()
	if err != nil {
		return c.inspect(nil)
	}
	defer self.Close()
	return c.inspect(self)
}

func (p *Process) turnDown(c *candidate, err error) error {
	p.tell(Event{Kind: Rejected, Path: c.path, Err: err})
	return fmt.Errorf("%w: %s: %w", ErrRejected, c.path, err)
}

// errUntried says that a file could not be tried, which is no fault of its: its
// writer still holds it open, or there are too few descriptors, processes, memory.
var errUntried = errors.New("not tried")

// untried tells of a file that will be looked at again.
func (p *Process) untried(path string, err error) error {
	p.tell(Event{Kind: Failed, Path: path, Err: err})
	return fmt.Errorf("reexec: upgrade: %w", err)
}

// preflightFailed begins the reason of a rejection that says nothing of how the
// file behaves if it is started all the same.
const preflightFailed = "preflight: "

func (p *Process) wasRejected(c *candidate) (why string, is bool) {
	p.rejectedMu.Lock()
	defer p.rejectedMu.Unlock()
	if why, is := p.refused[c.stat]; is {
		return why, true
	}
	r, is := isRejected(p.rejected, c.id)
	return r.why, is
}

// forgetPreflights has files tried again that failed a preflight: libraries
// have changed since, and they may have been what was wrong.
func (p *Process) forgetPreflights() {
	p.rejectedMu.Lock()
	defer p.rejectedMu.Unlock()
	p.rejected = slices.DeleteFunc(p.rejected, func(r rejection) bool { return strings.HasPrefix(r.why, preflightFailed) })
}

func (p *Process) reject(id identity, why string) {
	p.rejectedMu.Lock()
	defer p.rejectedMu.Unlock()
	p.rejected = append(p.rejected, rejection{why, id})
	p.rejected = p.rejected[max(0, len(p.rejected)-maxRejected):]
	p.state.reject(p, id, why)
}

func (p *Process) rejections() []rejection {
	p.rejectedMu.Lock()
	defer p.rejectedMu.Unlock()
	return slices.Clone(p.rejected)
}

// replace executes the new file in this process.
func (p *Process) replace(ctx context.Context, c *candidate) error {
	p.tellManager(reloading())
	p.tell(Event{Kind: Draining, Path: c.path})
	r, err := p.comeToRest(ctx)
	if err == nil {
		err = c.checkUnchanged(p.exe)
		if err == nil {
			p.tell(Event{Kind: Executing, Path: c.path})
			h := p.newHandover(c, false)
			h.carry(r)
			p.leave.Lock()
			err = p.execute(c.path, rawFD(c.file), h, "")
			p.leave.Unlock()
			if isUnfit(err) {
				p.reject(c.id, err.Error())
				err = fmt.Errorf("%w: %w", ErrRejected, err)
			}
		}
		r.resume()
	}
	p.tellManager("READY=1\nSTATUS=Upgrade failed, running")
	kind := Failed
	if isBusy(err) {
		kind = Deferred
	}
	p.tell(Event{Kind: kind, Path: c.path, Err: err})
	return fmt.Errorf("reexec: upgrade to %s: %w", c.path, err)
}

// isUnfit says that execve has found the file wanting, and not the machine.
func isUnfit(err error) bool {
	for _, errno := range []error{unix.ENOEXEC, unix.EACCES, unix.EPERM, unix.ELIBBAD, unix.ENOENT, unix.EINVAL} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// newHandover says what all kinds of hand-over say.
func (p *Process) newHandover(c *candidate, toChild bool) *handover {
	h := &handover{
		pid: os.Getpid(), generation: p.generation + 1, cwd: p.cwd, args: p.args, env: p.env,
		previous: namedFD{p.selfPath, p.self}, ready: -1, rejected: p.rejections(), exePath: p.exe, exe: c.id,
	}
	if toChild {
		h.parent, h.previous.fd = os.Getpid(), -1
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.kept {
		switch {
		case !k.system:
			h.fds = append(h.fds, namedFD{k.name, k.fd})
		case toChild:
			h.fds = append(h.fds, namedFD{managedPrefix + k.name, k.fd})
		}
	}
	for _, l := range p.listens { // connections that were carried to us, and not accepted yet
		for _, k := range l.carried {
			h.fds = append(h.fds, namedFD{k.name, k.fd})
		}
	}
	h.blobs = slices.Clone(p.blobs)
	return h
}

// carry adds what was found when the program came to rest.
func (h *handover) carry(r *rest) {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	h.paused = uint64(now.Nano() - time.Since(r.since).Nanoseconds())
	for _, f := range r.carried {
		h.fds = append(h.fds, namedFD{carriedPrefix + f.Listener.name, f.FD})
	}
}

// descriptors are all those that it names.
func (h *handover) descriptors() (fds []int) {
	for _, f := range h.fds {
		fds = append(fds, f.fd)
	}
	for _, fd := range []int{h.cwd, h.previous.fd, h.ready} {
		if fd >= 0 {
			fds = append(fds, fd)
		}
	}
	return fds
}

// becomeReady lets go of the predecessor.
func (p *Process) becomeReady() error {
	if p.trial {
		answerPreflight(p.nonce, "ready")
		os.Exit(0)
	}
	p.leave.Lock() // a rollback that has begun goes on
	defer p.leave.Unlock()
	p.mu.Lock()
	if p.ready {
		p.mu.Unlock()
		return nil
	}
	p.system.letGo()
	p.ready = true
	p.kept = slices.DeleteFunc(p.kept, func(k *keptFD) bool {
		if k.asked && !k.until {
			return false
		}
		closeFD(k.fd)
		return true
	})
	paused := p.paused
	p.mu.Unlock()
	p.restoreIgnored()
	p.watch.begin(p)
	if err := p.showInfo(); err != nil {
		p.tell(Event{Kind: Warning, Err: fmt.Errorf("others are not told that it is ready: %w", err)})
	}
	e := Event{Kind: Readied, Path: p.exe}
	if !paused.IsZero() {
		e.Gap = time.Since(paused)
	}
	p.tell(e)
	p.state.ready(p)
	return p.tellReady()
}
