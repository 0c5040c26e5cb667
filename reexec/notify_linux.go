package reexec

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Notify tells the service manager something (sd_notify(3)): lines of VARIABLE=
// VALUE. Without a manager it does nothing.
func (p *Process) Notify(state string) error { return p.notifyWith(state) }

func (p *Process) notifyWith(state string, fds ...int) error {
	path := p.variable("NOTIFY_SOCKET")
	if path == "" || p.trial || p.secure {
		return nil
	}
	if path[0] != '/' && path[0] != '@' {
		return fmt.Errorf("reexec: notify: NOTIFY_SOCKET=%s is not a path of a socket", path)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("reexec: notify: %w", os.NewSyscallError("socket", err))
	}
	defer unix.Close(fd)
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	// A manager that does not read must not hold us up.
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 5})
	for {
		// "@" is how x/sys, too, writes an abstract name.
		err = unix.Sendmsg(fd, []byte(state), rights, &unix.SockaddrUnix{Name: path}, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("reexec: notify: %w", os.NewSyscallError("sendmsg", err))
	}
	return nil
}

// tellManager notifies, and makes a warning of an error.
func (p *Process) tellManager(state string) {
	if err := p.Notify(state); err != nil {
		p.tell(Event{Kind: Warning, Err: err})
	}
}

// reloading is what a unit of Type=notify-reload wants to hear before an upgrade.
func reloading() string {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d\nSTATUS=Upgrading", now.Nano()/1000)
}

// beatWatchdog notifies as often as WATCHDOG_USEC asks for, for the rest of the
// process's life: while work is drained, and while the new code starts, too.
func (p *Process) beatWatchdog() {
	usec, err := strconv.ParseInt(p.variable("WATCHDOG_USEC"), 10, 64)
	pid := p.variable("WATCHDOG_PID")
	if err != nil || usec <= 0 || p.secure || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return
	}
	go func() {
		for {
			p.Notify("WATCHDOG=1")
			time.Sleep(time.Duration(usec) * time.Microsecond / 2)
		}
	}()
}
