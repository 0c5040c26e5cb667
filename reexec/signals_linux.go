package reexec

import (
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigaction is the kernel's struct sigaction, with room for that of every
// architecture. Its first word is the handler, but on MIPS, where it is the
// second.
type sigaction [8]uintptr

func (a *sigaction) handler() *uintptr {
	if strings.HasPrefix(runtime.GOARCH, "mips") {
		return &a[1]
	}
	return &a[0]
}

const (
	sigDFL = 0
	sigIGN = 1
)

// setAction is rt_sigaction(2) past the Go runtime: os/signal cannot give back
// what was there before.
func setAction(n int, set, old *sigaction) error {
	size := uintptr(8) // of the kernel's sigset_t
	if strings.HasPrefix(runtime.GOARCH, "mips") {
		size = 16
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(n), uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), size, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// gapSignals are those whose default action ends a process that has only been
// executed and has not said yet that it wants them.
func (p *Process) gapSignals() []int {
	list := []int{int(unix.SIGHUP), int(unix.SIGUSR1), int(unix.SIGUSR2)}
	if s := int(p.opts.Signal); s > 0 && s <= 64 && s != list[0] && s != list[1] && s != list[2] {
		list = append(list, s)
	}
	return list
}

// caught is the set of those that are not ignored now.
func (p *Process) caught() (set uint64) {
	for _, n := range p.gapSignals() {
		var now sigaction
		if setAction(n, nil, &now) == nil && *now.handler() != sigIGN {
			set |= 1 << (n - 1)
		}
	}
	return set
}

// ignore has the set ignored, which outlasts an exec, and returns how to undo
// that. Go's runtime leaves SIGHUP ignored if it finds it so, and takes the
// others without doing anything until somebody asks for them: so no signal ends
// the process between here and the successor's Ready.
func ignore(set uint64) (undo func()) {
	before := map[int]sigaction{}
	for n := 1; n <= 64; n++ {
		if set&(1<<(n-1)) == 0 {
			continue
		}
		var to, old sigaction
		*to.handler() = sigIGN
		if setAction(n, &to, &old) == nil {
			before[n] = old
		}
	}
	return func() {
		for n, old := range before {
			setAction(n, &old, nil)
		}
	}
}

// restoreIgnored gives back the default action to those that the predecessor
// ignored for the exec alone, and that the program has not asked for.
func (p *Process) restoreIgnored() {
	if p.held == nil {
		return
	}
	// Notify has told the runtime that they are not ignored; what it says
	// now, the program has said.
	signal.Stop(p.held)
	for n := 1; n <= 64; n++ {
		if p.ignored&(1<<(n-1)) == 0 || signal.Ignored(syscall.Signal(n)) {
			continue
		}
		var now, def sigaction
		if setAction(n, nil, &now) == nil && *now.handler() == sigIGN {
			*def.handler() = sigDFL
			setAction(n, &def, nil)
		}
	}
}
