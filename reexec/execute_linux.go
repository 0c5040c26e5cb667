package reexec

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// execute executes a file in this process, and gives it the hand-over. It
// returns only on an error, with all undone that it has changed. The path is
// used as long as it leads to the file, so that the process keeps its name;
// else the descriptor. The caller holds leave.
func (p *Process) execute(path string, fd int, h *handover, why string) error {
	var undo []func()
	defer func() {
		for _, f := range slices.Backward(undo) {
			f()
		}
	}()
	h.ignored = p.caught()
	memfd, err := sealed(handoverName, h.encode())
	if err != nil {
		return err
	}
	undo = append(undo, func() { unix.Close(memfd) })
	env := append(slices.Clone(p.env), varFD+"="+strconv.Itoa(memfd))
	if why != "" {
		env = append(env, varWhy+"="+printable(why))
	}

	// Until the exec is over or has failed nobody may fork: while FD_CLOEXEC is
	// off, the child would inherit what is handed over.
	syscall.ForkLock.Lock()
	undo = append(undo, syscall.ForkLock.Unlock)
	undo = append(undo, stopTimers(), openForExec(append(h.descriptors(), memfd), p.managedFDs()))
	back, err := changeDir(h.cwd)
	if err != nil {
		return err
	}
	undo = append(undo, back, p.saveLimit(), ignore(h.ignored))
	return p.execFile(path, fd, env)
}

// execFile is the call of execve.
func (p *Process) execFile(path string, fd int, env []string) error {
	st, err := fileStatOf(fd)
	if err == nil && path != "" {
		if now, err := fileStatAt(path); err == nil && now.sameFile(st) {
			return &os.PathError{Op: "exec", Path: path, Err: syscall.Exec(path, p.args, env)}
		}
	}
	name := "/proc/self/fd/" + strconv.Itoa(fd)
	err = syscall.Exec(name, p.args, env)
	if errors.Is(err, unix.ENOENT) { // a chroot without /proc
		err = execveat(fd, p.args, env)
	}
	return &os.PathError{Op: "exec", Path: name, Err: err}
}

// execveat executes a descriptor.
func execveat(fd int, args, env []string) error {
	argv, err := syscall.SlicePtrFromStrings(args)
	if err != nil {
		return err
	}
	envv, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return err
	}
	var empty byte
	_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(&empty)),
		uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envv[0])), unix.AT_EMPTY_PATH, 0)
	return errno
}

func printable(s string) string {
	b := []byte(s[:min(len(s), 200)])
	for i := range b {
		if b[i] < ' ' || b[i] > '~' {
			b[i] = ' '
		}
	}
	return string(b)
}

// stopTimers stops the interval timers, which would fire into the new code. The
// kernel itself removes POSIX timers, and what Go sets is of that kind.
func stopTimers() (undo func()) {
	var before [3]unix.Itimerval
	for i, which := range []unix.ItimerWhich{unix.ITIMER_REAL, unix.ITIMER_VIRTUAL, unix.ITIMER_PROF} {
		before[i], _ = unix.Setitimer(which, unix.Itimerval{})
	}
	return func() {
		for i, which := range []unix.ItimerWhich{unix.ITIMER_REAL, unix.ITIMER_VIRTUAL, unix.ITIMER_PROF} {
			if before[i] != (unix.Itimerval{}) {
				unix.Setitimer(which, before[i])
			}
		}
	}
}

// managedFDs are those that systemd gave us.
func (p *Process) managedFDs() (fds []int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.kept {
		if k.system {
			fds = append(fds, k.fd)
		}
	}
	return fds
}

// openForExec turns FD_CLOEXEC off for those that stay open, and on for all
// others but 0, 1 and 2. Their numbers stay: dup2 onto a number could hit a
// descriptor of the runtime, or of another thread.
func openForExec(stay, more []int) (undo func()) {
	before := map[int]int{}
	set := func(fd, flags int) {
		old, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || old == flags {
			return
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, flags); err == nil {
			before[fd] = old
		}
	}
	keep := map[int]bool{}
	for _, fd := range slices.Concat(stay, more) {
		keep[fd] = true
	}
	for _, fd := range openFDs() {
		if fd > 2 && !keep[fd] {
			set(fd, unix.FD_CLOEXEC)
		}
	}
	// What another thread has opened since.
	unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	for fd := range keep {
		before[fd] = unix.FD_CLOEXEC // ours always are
		unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
	}
	return func() {
		for fd, flags := range before {
			unix.FcntlInt(uintptr(fd), unix.F_SETFD, flags)
		}
	}
}

// openFDs lists the open descriptors.
func openFDs() (fds []int) {
	dir, err := os.Open("/proc/self/fd")
	if err == nil {
		defer dir.Close()
		names, _ := dir.Readdirnames(-1)
		for _, name := range names {
			if fd, err := strconv.Atoi(name); err == nil {
				fds = append(fds, fd)
			}
		}
		return fds
	}
	var limit unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	for fd := range int(min(limit.Cur, 1<<16)) {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			fds = append(fds, fd)
		}
	}
	return fds
}

// changeDir goes to the first working directory.
func changeDir(fd int) (undo func(), err error) {
	if fd < 0 {
		return func() {}, nil
	}
	now, err := unix.Open(".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: ".", Err: err}
	}
	if err := unix.Fchdir(fd); err != nil {
		unix.Close(now)
		return nil, os.NewSyscallError("fchdir", err)
	}
	return func() {
		unix.Fchdir(now)
		unix.Close(now)
	}, nil
}

// saveLimit has the limit of open files given back if the exec fails.
// syscall.Exec lowers it, to what it was when the program was started, and it
// does so once: before a second exec we do it.
func (p *Process) saveLimit() (undo func()) {
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		return func() {}
	}
	if p.limit != nil {
		setLimit(p.limit)
	}
	return func() {
		var first unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &first); err == nil && first != before {
			p.limit = &first
			setLimit(&before)
		}
	}
}

// setLimit is prlimit(2) past the Go runtime, which would no longer give the
// first limit to children, did it hear of it.
func setLimit(l *unix.Rlimit) {
	unix.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, uintptr(unsafe.Pointer(l)), 0, 0, 0)
}

// A process that was executed by descriptor is named after the number. This is
// the place to mend that: prctl(2) names a thread, and only initialization is
// sure to run on the first one, which names the process.
func init() {
	execfn := executedPath()
	if strings.HasPrefix(execfn, "/proc/self/fd/") || strings.HasPrefix(execfn, "/dev/fd/") {
		if name, err := unix.BytePtrFromString(filepath.Base(os.Args[0])); err == nil {
			unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(name)), 0, 0, 0)
		}
	}
}
