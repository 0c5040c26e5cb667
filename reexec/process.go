package reexec

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Process is the running program: what it hands over, and how. Its methods may
// be called from several goroutines.
type Process struct {
	opts       Options
	generation int
	trial      bool  // we answer at Ready, and serve nobody
	rolledBack error // why we run again

	upgrading sync.Mutex // held during an upgrade

	mu       sync.Mutex
	ready    bool
	leaving  bool // between the first step of the execve and its failure
	kept     []*keptFD
	blobs    []blob
	listens  []*Listener
	packets  []*PacketConn
	drainers []Drainer
	before   []func(context.Context) error
	paused   time.Time // of the hand-over that we come from; monotonic

	events sync.Mutex
	system // what is different on each system
}

// A Drainer is a part of the program that has to come to rest before it is
// replaced: a server, a queue.
type Drainer interface {
	// Drain begins no new work, waits until what was begun is finished, and
	// returns the idle connections that are to be carried over: the successor's
	// Listener accepts them before new ones. If ctx ends first it returns an
	// error that wraps ErrBusy or ctx.Err, and what can be carried all the same.
	// The descriptors have to stay open until Resume.
	Drain(ctx context.Context) ([]Carried, error)

	// Resume takes up the work again: the upgrade did not happen. It is called
	// after every Drain.
	Resume()

	// Retire begins no new work and lets the old end: a spawned successor has
	// taken over, and this process will end when Retire returns.
	Retire(ctx context.Context) error
}

// An Announcer is a Drainer that can ask its clients to leave before anything is
// paused: those whose connections cannot be carried over.
type Announcer interface {
	// Announce returns when they have left, or have had time enough. Resume is
	// called after it, too.
	Announce(ctx context.Context)
}

// Carried is an idle connection: one of which nothing was read that is not
// answered.
type Carried struct {
	Listener *Listener // that has accepted it
	FD       int
}

var started sync.Mutex // taken for good by the one Start

// Start answers a preflight, adopts what a predecessor has handed over, and
// arms the way back to it. It is to be called once, first of all in main: before
// the program changes its working directory, environment or user, and before
// other goroutines run. Under a preflight it does not return.
//
// An error means that a hand-over was there and could not be read: the program
// should end.
func Start(o Options) (*Process, error) {
	if !started.TryLock() {
		return nil, errors.New("reexec: Start was called before")
	}
	p := &Process{opts: o.withDefaults()}
	if err := p.start(); err != nil {
		return nil, fmt.Errorf("reexec: start: %w", err)
	}
	return p, nil
}

// Generation is how many times the program was handed over: 0 in one that was
// started from outside. A rollback counts as well.
func (p *Process) Generation() int { return p.generation }

// Trial says that this is the trial run of a preflight: the program is started
// beside the running one, gets its descriptors and saved bytes, accepts nothing,
// and ends at Ready. It must change nothing outside itself.
func (p *Process) Trial() bool { return p.trial }

// RolledBack is the reason why the program runs again after it was replaced; nil
// if it was not.
func (p *Process) RolledBack() error { return p.rolledBack }

// Save hands bytes over under a name: the latest Save before the exec counts. A
// nil removes the name. The bytes must not change afterwards. What is
// inherited is handed over again until it is saved anew or removed.
func (p *Process) Save(name string, data []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.blobs = slices.DeleteFunc(p.blobs, func(b blob) bool { return b.name == name })
	if data != nil {
		p.blobs = append(p.blobs, blob{name, data})
	}
}

// Load returns what was saved under the name, by the predecessor or since; nil
// if nothing was. The bytes must not be changed.
func (p *Process) Load(name string) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.blobs) - 1; i >= 0; i-- {
		if p.blobs[i].name == name {
			return p.blobs[i].data
		}
	}
	return nil
}

// Drain adds a part of the program that has to come to rest before an upgrade.
func (p *Process) Drain(d Drainer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drainers = append(p.drainers, d)
}

// BeforeExec adds a function that is called when all work is at rest, last
// before the new code is executed: to save state, and to flush what defers would.
// They are called in the order in which they were added. An error cancels the
// upgrade, which is then tried again later.
func (p *Process) BeforeExec(f func(context.Context) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.before = append(p.before, f)
}

// Fail gives this version up: before Ready, and if there is a predecessor, it
// executes that again in this process and does not return. Else it returns err.
func (p *Process) Fail(err error) error {
	if back := p.rollBack(err.Error()); back != nil && !errors.Is(back, errNoWayBack) {
		return errors.Join(err, back)
	}
	return err
}

// Guard is to be deferred in main, after Start. Where main panics, or returns,
// before Ready, the predecessor is executed again, as by Fail. Panics in other
// goroutines and os.Exit end the process; a Trial finds those.
func (p *Process) Guard() {
	why := recover()
	p.mu.Lock()
	ready := p.ready
	p.mu.Unlock()
	switch {
	case ready && why == nil:
	case ready:
		panic(why)
	case why != nil:
		p.Fail(fmt.Errorf("panic: %v", why))
		panic(why)
	default:
		p.Fail(errors.New("the program ended before it was ready"))
	}
}

// Run watches the files and the upgrade signal, and replaces the program when
// they ask for it. It returns when ctx ends (with its error) or, in Spawn mode,
// when a successor has taken over (ErrReplaced). A failed upgrade does not end it.
func (p *Process) Run(ctx context.Context) error { return p.run(ctx) }

// Upgrade replaces the program now, even if the file is the same or was
// rejected before. It returns only if that did not happen, with an error that
// says why and after everything is as it was; in Spawn mode also with
// ErrReplaced.
func (p *Process) Upgrade(ctx context.Context) error { return p.upgrade(ctx, true) }

// Ready says that the program serves: the predecessor is let go of, the service
// manager told, and descriptors that nobody has asked for are closed. Under a
// trial it does not return.
func (p *Process) Ready() error { return p.becomeReady() }

func (p *Process) isReady() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ready
}

// tell reports an event.
func (p *Process) tell(e Event) {
	if p.opts.OnEvent == nil {
		return
	}
	p.events.Lock()
	defer p.events.Unlock()
	e.Generation = p.generation
	p.opts.OnEvent(e)
}

var errNoWayBack = errors.New("no predecessor to go back to")

// Keep hands a descriptor over under a name, in every upgrade from now on. It
// takes a duplicate: whoever gave it may close theirs, and Forget closes ours. A
// name is kept once; Keep replaces.
func (p *Process) Keep(name string, c syscall.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return fmt.Errorf("reexec: keep %s: %w", name, err)
	}
	fd := -1
	var dupErr error
	if err := raw.Control(func(theirs uintptr) { fd, dupErr = dupFD(int(theirs)) }); err != nil {
		return fmt.Errorf("reexec: keep %s: %w", name, err)
	}
	if dupErr != nil {
		return fmt.Errorf("reexec: keep %s: %w", name, dupErr)
	}
	p.Forget(name)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kept = append(p.kept, &keptFD{name: name, fd: fd, asked: true})
	return nil
}

// Forget ends Keep, and closes our duplicate.
func (p *Process) Forget(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kept = slices.DeleteFunc(p.kept, func(k *keptFD) bool {
		if k.name != name || k.system {
			return false
		}
		closeFD(k.fd)
		return true
	})
}

// File returns what was kept under the name, by a predecessor or here, as a
// duplicate for the caller to close; nil if nothing was. It stays kept.
func (p *Process) File(name string) *os.File {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.kept {
		if k.name == name {
			if f, err := k.file(); err == nil {
				return f
			}
		}
	}
	return nil
}

// Files returns all that was handed over under the name, and ceases to keep it:
// the files are the caller's.
func (p *Process) Files(name string) []*os.File {
	p.mu.Lock()
	defer p.mu.Unlock()
	var files []*os.File
	p.kept = slices.DeleteFunc(p.kept, func(k *keptFD) bool {
		if k.name != name || k.system || k.until {
			return false
		}
		if !p.ready && !p.trial {
			// A rollback needs ours until Ready.
			f, err := k.file()
			if err == nil {
				files = append(files, f)
			}
			k.until = true
			return false
		}
		files = append(files, os.NewFile(uintptr(k.fd), name))
		return true
	})
	return files
}

// keptFD is a descriptor that is handed over. It keeps its number from
// generation to generation.
type keptFD struct {
	name   string
	fd     int
	asked  bool // the program uses it: it is kept after Ready
	until  bool // it is kept until Ready alone
	system bool // from LISTEN_FDS: kept as long as the process is, without a record
}

// file returns a duplicate as a file.
func (k *keptFD) file() (*os.File, error) {
	fd, err := dupFD(k.fd)
	if err != nil {
		return nil, err
	}
	k.asked = true
	return os.NewFile(uintptr(fd), k.name), nil
}
