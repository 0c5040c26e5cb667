package reexec

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// rollBack executes the predecessor again, in this process, with what it had
// handed over. It returns errNoWayBack if there is none, or none any more.
func (p *Process) rollBack(why string) error {
	p.leave.Lock()
	defer p.leave.Unlock()
	p.mu.Lock()
	previous, parts := p.previous, p.inherited
	p.mu.Unlock()
	if previous.fd < 0 || p.trial { // Ready closes it
		return errNoWayBack
	}
	id := p.exeID
	if id == "" {
		id = p.selfStat.identity()
	}
	failed := rejection{why, id}
	h := &handover{
		pid: os.Getpid(), generation: p.generation + 1, cwd: p.cwd, args: p.args, env: p.env,
		fds: parts.fds, blobs: parts.blobs, previous: namedFD{fd: -1}, ready: -1,
		rejected: append(p.rejections(), failed), rolledBack: &failed, exePath: p.exe,
	}
	if !p.paused.IsZero() {
		var now unix.Timespec
		unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
		h.paused = uint64(now.Nano() - time.Since(p.paused).Nanoseconds())
	}
	p.freeSpare()
	if err := p.execute(previous.name, previous.fd, h, why); err != nil {
		return fmt.Errorf("reexec: roll back: %w", err)
	}
	return nil
}

// reserve sets two descriptors aside for the way back, which needs one for the
// hand-over and one for the directory: a version that is not fit may have used
// up all others.
func (s *system) reserve() {
	for i := range s.spare {
		if fd, err := dupFD(s.previous.fd); err == nil {
			s.spare[i] = fd
		}
	}
}

func (s *system) freeSpare() {
	for i, fd := range s.spare {
		closeFD(fd)
		s.spare[i] = -1
	}
}

// letGo gives up the way back. The caller holds mu and leave.
func (s *system) letGo() {
	s.freeSpare()
	if s.late != nil {
		s.late.Stop()
	}
	// It may be the last that keeps a file which was replaced: then the file system
	// gives its blocks back before close returns, and connections wait.
	go closeFD(s.previous.fd)
	s.previous.fd = -1
	s.inherited = handoverParts{}
}

// tellReady tells the service manager, and who has spawned us.
func (p *Process) tellReady() error {
	var errs []error
	state := "READY=1\nSTATUS=Running"
	if p.readyPipe >= 0 {
		state = fmt.Sprintf("READY=1\nMAINPID=%d\nSTATUS=Running", os.Getpid())
		line := fmt.Appendf(nil, "ready %d\n", os.Getpid())
		if _, err := unix.Write(p.readyPipe, line); err != nil {
			errs = append(errs, fmt.Errorf("reexec: ready: %w", os.NewSyscallError("write", err)))
		}
		closeFD(p.readyPipe)
		p.readyPipe = -1
	}
	errs = append(errs, p.Notify(state))
	if err := p.storeDescriptors(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
