package reexec

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const defaultSignal = unix.SIGUSR2

// marker is how a file is recognized whose program speaks the protocol. It must
// stay a constant: a variable would lie in a segment that is writable.
const marker = "moult-reexec protocol 1 5b8f0d2c71e94a36"

const (
	varFD        = "MOULT_FD"
	varPreflight = "MOULT_PREFLIGHT"
	varTrial     = "MOULT_TRIAL"
	varWhy       = "MOULT_WHY"

	handoverName = "moult-handover"
	infoName     = "moult-reexec"

	seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
)

// system is what a Process has on Linux. What is not said to be guarded is set
// by Start alone.
type system struct {
	secure    bool     // set-user-id and the like: never replaced
	args, env []string // of the first generation
	cwd       int      // O_PATH, of the first generation
	cwdPath   string
	self      int      // O_PATH, of the running executable; -1 if it cannot be had
	selfPath  string   // under which it was started, links resolved
	selfStat  fileStat // of self
	exe       string   // the path to watch
	exeID     identity // as the predecessor called us; may be empty
	previous  namedFD  // guarded by mu: closed at Ready
	inherited handoverParts
	readyPipe int    // pipe of a spawned process; -1
	nonce     string // of a trial
	ignored   uint64 // to be set back at Ready
	signals   chan os.Signal
	held      chan os.Signal
	late      *time.Timer // for ReadyTimeout
	leave     sync.Mutex  // held to execute something, and to give up the way back
	limit     *unix.Rlimit
	info      int // the memfd that tells others what we are

	rejectedMu sync.Mutex
	rejected   []rejection
	refused    map[fileStat]string // found wanting before it was run: chmod may mend it

	digestOnce sync.Once
	digest     string
	watch      watcher
	state      *bootState // nil: no StateDir
}

// handoverParts is what a rollback gives back as it came.
type handoverParts struct {
	fds   []namedFD
	blobs []blob
}

func (p *Process) start() error {
	p.cwd, p.self, p.previous.fd, p.readyPipe, p.info = -1, -1, -1, -1, -1
	p.secure = auxiliary(unixATSecure) != 0
	vars := p.takeEnvironment()
	if nonce := vars[varPreflight]; isNonce(nonce) {
		if vars[varTrial] != "1" {
			answerPreflight(nonce, "load")
			os.Exit(0)
		}
		p.nonce, p.trial = nonce, true
	}
	p.args = slices.Clone(os.Args)
	p.cwdPath, _ = os.Getwd()
	p.cwd, _ = unix.Open(".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)

	var h *handover
	if number := vars[varFD]; number != "" {
		var err error
		if h, err = readHandover(number); err != nil {
			return fmt.Errorf("adopt %s=%s: %w", varFD, number, err)
		}
	}
	if h == nil {
		p.trial = false
	} else {
		p.adopt(h, vars[varWhy])
	}
	p.adoptManaged()
	p.findSelf()
	p.watchSignals(h)
	if err := p.showInfo(); err != nil {
		return err
	}
	if p.trial {
		return nil
	}
	if h != nil {
		p.reapInherited()
	}
	p.beatWatchdog()
	if err := p.openState(h); err != nil {
		p.tell(Event{Kind: Warning, Err: fmt.Errorf("state: %w", err)})
	}
	if p.previous.fd >= 0 && p.opts.ReadyTimeout > 0 {
		p.late = time.AfterFunc(p.opts.ReadyTimeout, func() {
			p.rollBack(fmt.Sprintf("not ready after %v", p.opts.ReadyTimeout))
		})
	}
	if p.rolledBack != nil {
		p.tell(Event{Kind: RolledBack, Err: p.rolledBack, Path: p.exe})
	}
	return nil
}

// takeEnvironment keeps the environment without our variables, returns those,
// and removes them, so that no child sees them.
func (p *Process) takeEnvironment() map[string]string {
	vars := map[string]string{}
	for _, v := range os.Environ() {
		name, value, _ := strings.Cut(v, "=")
		switch name {
		case varFD, varPreflight, varTrial, varWhy:
			vars[name] = value
			os.Unsetenv(name)
		default:
			p.env = append(p.env, v)
		}
	}
	if p.secure {
		return nil // whoever started us may have less rights than we
	}
	return vars
}

func isNonce(s string) bool {
	if len(s) < 16 || len(s) > 64 {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
	}) < 0
}

// Keys of the auxiliary vector, from linux/auxvec.h.
const (
	unixATSecure = 23
	unixATExecFn = 31
)

func auxiliary(key uintptr) uintptr {
	vec, err := unix.Auxv()
	if err != nil {
		return 0
	}
	for _, kv := range vec {
		if kv[0] == key {
			return kv[1]
		}
	}
	return 0
}

// executedPath is the path that execve was called with (AT_EXECFN).
func executedPath() string {
	at := auxiliary(unixATExecFn)
	if at == 0 {
		return ""
	}
	return unix.BytePtrToString(*(**byte)(unsafe.Pointer(&at)))
}

// readHandover reads the hand-over of that number; nil if it is for another
// process.
func readHandover(number string) (*handover, error) {
	fd, err := strconv.Atoi(number)
	if err != nil || fd < 3 {
		return nil, errors.New("not a descriptor")
	}
	have, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return nil, os.NewSyscallError("F_GET_SEALS", err)
	}
	if have&seals != seals {
		return nil, errors.New("it is not sealed")
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	if int(st.Uid) != os.Geteuid() || st.Size > maxHandover {
		return nil, fmt.Errorf("it is of user %d and has %d bytes", st.Uid, st.Size)
	}
	data := make([]byte, st.Size)
	for n := 0; n < len(data); {
		m, err := unix.Pread(fd, data[n:], int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil || m == 0 {
			return nil, fmt.Errorf("read %d bytes of %d: %w", n, len(data), err)
		}
		n += m
	}
	h, err := decodeHandover(data)
	if err != nil {
		return nil, err
	}
	if h.pid != 0 && h.pid != os.Getpid() || h.parent != 0 && h.parent != os.Getppid() {
		return nil, nil // inherited by mistake; the descriptor may be anybody's
	}
	unix.Close(fd)
	return h, nil
}

// adopt takes over what the hand-over says. From here no child of ours can
// inherit a descriptor.
func (p *Process) adopt(h *handover, why string) {
	p.generation = h.generation
	p.inherited = handoverParts{h.fds, h.blobs}
	p.blobs = slices.Clone(h.blobs)
	for _, f := range h.fds {
		if closeOnExec(f.fd) {
			p.kept = append(p.kept, &keptFD{name: f.name, fd: f.fd})
		} else {
			p.tell(Event{Kind: Warning, Err: fmt.Errorf("descriptor %d (%s) was handed over, but is not open", f.fd, f.name)})
		}
	}
	for _, one := range []struct {
		from namedFD
		to   *int
	}{{namedFD{fd: h.cwd}, &p.cwd}, {h.previous, &p.previous.fd}, {namedFD{fd: h.ready}, &p.readyPipe}} {
		if one.from.fd >= 0 && closeOnExec(one.from.fd) {
			closeFD(*one.to)
			*one.to = one.from.fd
		}
	}
	p.previous.name = h.previous.name
	if len(h.args) > 0 {
		p.args = h.args
	}
	if len(h.env) > 0 {
		p.env = h.env
	}
	p.rejected = h.rejected
	p.ignored = h.ignored
	p.exe, p.exeID = h.exePath, h.exe
	if h.rolledBack != nil {
		p.rolledBack = errors.New(h.rolledBack.why)
		if why != "" {
			p.rolledBack = errors.New(why)
		}
	}
	if h.paused != 0 {
		var now unix.Timespec
		unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
		if ago := now.Nano() - int64(h.paused); ago >= 0 {
			p.paused = time.Now().Add(-time.Duration(ago))
		}
	}
}

// findSelf finds out which file runs, and by which path to watch for another.
// It runs before the program can change its directory, root or user.
func (p *Process) findSelf() {
	execfn := executedPath()
	for _, path := range []string{"/proc/self/exe", execfn, os.Args[0]} { // the latter two without /proc
		if fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0); err == nil {
			p.self = fd
			p.selfStat, _ = fileStatOf(fd)
			break
		}
	}
	p.selfPath, _ = os.Readlink("/proc/self/exe")
	if p.selfPath == "" || !p.isSelf(p.selfPath) {
		if resolved, err := filepath.EvalSymlinks(execfn); err == nil {
			p.selfPath, _ = filepath.Abs(resolved)
		}
	}
	switch {
	case p.opts.Exe != "":
		p.exe = p.absolute(p.opts.Exe)
		return
	case p.exe != "":
		return // the predecessor has found it
	}
	for _, path := range []string{p.lookPath(os.Args[0]), execfn, p.selfPath} {
		if path != "" && p.isSelf(p.absolute(path)) {
			p.exe = p.absolute(path)
			return
		}
	}
	p.exe = p.absolute(p.selfPath)
}

func (p *Process) absolute(path string) string {
	if path == "" || filepath.IsAbs(path) || p.cwdPath == "" {
		return path
	}
	return filepath.Join(p.cwdPath, path)
}

// lookPath is how a shell finds argv[0]. A login shell's begins with a dash.
func (p *Process) lookPath(name string) string {
	if strings.Contains(name, "/") {
		return name
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if path := filepath.Join(dir, name); p.isSelf(p.absolute(path)) {
			return path
		}
	}
	return ""
}

// isSelf says that a path leads to the file that runs.
func (p *Process) isSelf(path string) bool {
	st, err := fileStatAt(path)
	return err == nil && st.sameFile(p.selfStat)
}

// watchSignals takes the upgrade signal, and holds those that the predecessor
// had ignored for the exec until the program has said what it wants of them.
func (p *Process) watchSignals(h *handover) {
	p.signals = make(chan os.Signal, 1)
	if p.opts.Signal > 0 && !p.trial && !p.secure {
		signal.Notify(p.signals, p.opts.Signal)
	}
	if h == nil || p.ignored == 0 {
		return
	}
	p.held = make(chan os.Signal, 1)
	for n := range 64 {
		if p.ignored&(1<<n) != 0 {
			signal.Notify(p.held, syscall.Signal(n+1))
		}
	}
}

// showInfo opens the memfd by which others know what we are.
func (p *Process) showInfo() error {
	sig := int(max(p.opts.Signal, 0))
	if p.secure {
		sig = 0
	}
	text := fmt.Sprintf("moult-reexec 1\npid %d\ngeneration %d\nsignal %d\n", os.Getpid(), p.generation, sig)
	var err error
	p.info, err = sealed(infoName, []byte(text))
	return err
}

// sealed makes a memfd with these bytes, which nobody can change.
func sealed(name string, data []byte) (int, error) {
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_NOEXEC_SEAL) // required where vm.memfd_noexec=2
	if err == unix.EINVAL {                                       // before 6.3
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return -1, os.NewSyscallError("memfd_create", err)
	}
	for n := 0; n < len(data); {
		m, err := unix.Write(fd, data[n:min(len(data), n+1<<30)])
		if err != nil && err != unix.EINTR {
			unix.Close(fd)
			return -1, os.NewSyscallError("write", err)
		}
		n += max(m, 0)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("F_ADD_SEALS", err)
	}
	return fd, nil
}

// closeOnExec says whether the descriptor is open, and sets the flag.
func closeOnExec(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC)
	return err == nil
}

func dupFD(fd int) (int, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	return n, os.NewSyscallError("dup", err)
}

func closeFD(fd int) {
	if fd >= 0 {
		unix.Close(fd)
	}
}
