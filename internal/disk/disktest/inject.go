package disktest

import (
	"sync"
	"syscall"

	"moult.example/internal/disk"
)

// Fault says which operation of a disk goes wrong, and how. The zero Fault only
// counts.
type Fault struct {
	// At is the operation that goes wrong, counted from 1 among those that
	// Match; 0 is none.
	At int

	// On goes on failing from that operation on: a disk that has died or is
	// full, rather than one that had a bad moment.
	On bool

	// Match says which operations count; nil means all.
	Match func(Op) bool

	// Errno is what the operation answers. It has then not been done, except
	// that half of what was to be written is in the file (a disk fills up in
	// the middle) and that a file is closed (close(2) closes even if it fails).
	Errno syscall.Errno

	// KillBefore and KillAfter end the process with SIGKILL, instead.
	KillBefore, KillAfter bool
}

// Injector is a [disk.FS] on which one operation, or all from one on, go wrong.
type Injector struct {
	disk.FS
	faults *faults
}

// Inject makes operations of a disk go wrong.
func Inject(under disk.FS, f Fault) *Injector {
	in := &Injector{faults: &faults{fault: f}}
	in.FS = Wrap(under, in.faults.hook)
	return in
}

// Count returns how many operations there were that count.
func (in *Injector) Count() int {
	in.faults.mu.Lock()
	defer in.faults.mu.Unlock()
	return in.faults.count
}

// Hit returns the first operation that went wrong, if one did.
func (in *Injector) Hit() (Op, bool) {
	in.faults.mu.Lock()
	defer in.faults.mu.Unlock()
	return in.faults.hit, in.faults.isHit
}

// faults may stand before several disks, which then count together.
type faults struct {
	fault Fault
	seen  func(n int, op Op) // called before each operation that counts, or nil

	mu    sync.Mutex
	count int
	hit   Op
	isHit bool
}

// strikes counts the operation and says whether it goes wrong.
func (f *faults) strikes(op Op) bool {
	if f.fault.Match != nil && !f.fault.Match(op) {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
	if f.seen != nil {
		f.seen(f.count, op)
	}
	if f.fault.At == 0 || f.count < f.fault.At || (f.count > f.fault.At && !f.fault.On) {
		return false
	}
	if !f.isHit {
		f.hit, f.isHit = op, true
	}
	return true
}

func (f *faults) hook(op *Op, do func() error) error {
	if !f.strikes(*op) {
		return do()
	}
	switch {
	case f.fault.KillBefore:
		killSelf()
	case f.fault.KillAfter:
		do()
		killSelf()
	case f.fault.Errno == 0:
		return do()
	}
	switch op.Kind {
	case OpWrite, OpWriteAt:
		op.Data = op.Data[:len(op.Data)/2]
		do()
	case OpClose:
		do()
	}
	return asError(*op, f.fault.Errno)
}

// killSelf does not return: the signal is there before kill(2) is done.
func killSelf() {
	syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
	select {}
}
