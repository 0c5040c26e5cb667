package reexec

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

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
	spare     [2]int // descriptors for the way back; guarded by leave
	readyPipe int    // pipe of a spawned process; -1
	nonce     string // of a trial
	ignored   uint64 // to be set back at Ready
	signals   chan os.Signal
	held      chan os.Signal
	late      *time.Timer // for ReadyTimeout
	leave     sync.Mutex  // held to execute something, and to give up the way back
	limit     *unix.Rlimit
	info      int // the memfd that tells others what we are

	turnedDown int // upgrades that were asked for, and rejected

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
	p.spare = [2]int{-1, -1}
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
		p.tell(Event{Kind: Warning, Err: fmt.Errorf("others are not told that it can be replaced: %w", err)})
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
	if p.previous.fd >= 0 {
		p.reserve()
	}
	if p.previous.fd >= 0 && p.opts.ReadyTimeout > 0 {
		p.late = time.AfterFunc(p.opts.ReadyTimeout, func() {
			err := p.rollBack(fmt.Sprintf("not ready after %v", p.opts.ReadyTimeout))
			if err != nil && !errors.Is(err, errNoWayBack) {
				p.tell(Event{Kind: Failed, Path: p.exe, Err: err})
			}
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
	text := fmt.Sprintf("moult-reexec 1\npid %d\ngeneration %d\nsignal %d\nrejected %d\n", os.Getpid(), p.generation, sig, p.turnedDown)
	if !p.isReady() {
		text += "starting 1\n"
	}
	info, err := sealed(infoName, []byte(text))
	if err != nil {
		return err
	}
	closeFD(p.info)
	p.info = info
	return nil
}
