package main

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// span is what an onlooker saw of one delivery: how many changes of names that
// people use, and the time from the first to the last.
type span struct {
	changes int
	long    time.Duration
}

// watch sees when public names change. It reads inotify(7) events on a thread
// of its own, bound to a processor that the watched program does not use, and
// in a busy loop, because an event carries no time. What it says is never less
// than the truth: it counts from the last look at which there was no event yet
// to the look that brought the last one. On a quiet machine two looks are less
// than a microsecond apart.
//
// The same events are queued for every tool, so the watching slows all alike.
type watch struct {
	fd      int
	public  map[watched]bool
	came    watched // the last name that has come
	stop    chan struct{}
	stopped chan span
}

// watched is a name in a directory that has a watch descriptor.
type watched struct {
	wd   int32
	name string
}

// A name is new, has come, is gone or holds other bytes. A change of times or
// modes is none.
const visible = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_MODIFY

// newWatch begins to watch names, which are paths.
func newWatch(cpu int, names []string) (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	w := &watch{fd: fd, public: map[watched]bool{}, stop: make(chan struct{}), stopped: make(chan span)}
	for _, name := range names {
		wd, err := unix.InotifyAddWatch(fd, filepath.Dir(name), visible|unix.IN_ONLYDIR)
		if err != nil {
			unix.Close(fd)
			return nil, &os.PathError{Op: "inotify_add_watch", Path: filepath.Dir(name), Err: err}
		}
		w.public[watched{int32(wd), filepath.Base(name)}] = true
	}
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		var one unix.CPUSet
		one.Set(cpu)
		// without these it is less exact, that is all
		_ = unix.SchedSetaffinity(0, &one)
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, -20)
		w.stopped <- w.look()
	}()
	return w, nil
}

// look reads events until it is stopped and no event is left.
func (w *watch) look() span {
	var s span
	var first time.Time
	before := time.Now() // of the last look, when it had ended
	buf := make([]byte, 64<<10)
	for stopping := false; ; {
		n, err := unix.Read(w.fd, buf)
		now := time.Now()
		if err != nil || n <= 0 {
			before = now
			if stopping {
				return s
			}
			select {
			case <-w.stop:
				stopping = true
			default:
			}
			continue
		}
		if seen := w.count(buf[:n]); seen > 0 {
			if s.changes == 0 {
				first = before
			}
			s.changes += seen
			s.long = now.Sub(first)
		}
		before = now
	}
}

// count is how many of the events are of public names. Of an exchange the kernel
// tells as of two renames, first that the name has come and then that it has
// gone: that is one change.
func (w *watch) count(events []byte) (seen int) {
	for len(events) >= unix.SizeofInotifyEvent {
		// struct inotify_event: wd, mask, cookie, len, name
		wd := int32(binary.NativeEndian.Uint32(events))
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
		name := unix.ByteSliceToString(events[unix.SizeofInotifyEvent:end])
		mask := binary.NativeEndian.Uint32(events[4:])
		if at := (watched{wd, name}); w.public[at] {
			if mask&unix.IN_MOVED_FROM == 0 || at != w.came {
				seen++
			}
			w.came = watched{}
			if mask&unix.IN_MOVED_TO != 0 {
				w.came = at
			}
		}
		events = events[end:]
	}
	return seen
}

// end stops watching and returns what was seen.
func (w *watch) end() span {
	close(w.stop)
	s := <-w.stopped
	unix.Close(w.fd)
	return s
}
