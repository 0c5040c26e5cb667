package main

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// seen is what an onlooker saw of a delivery.
type seen struct {
	changes     int    // of names that people use
	first, last string // of these names, as they changed
}

// watch learns from inotify(7) which public names change, and in which order.
type watch struct {
	fd     int
	public map[watched]string
	came   watched // the last name that has come
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
func newWatch(names []string) (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	w := &watch{fd: fd, public: map[watched]string{}}
	for _, name := range names {
		wd, err := unix.InotifyAddWatch(fd, filepath.Dir(name), visible|unix.IN_ONLYDIR)
		if err != nil {
			unix.Close(fd)
			return nil, &os.PathError{Op: "inotify_add_watch", Path: filepath.Dir(name), Err: err}
		}
		w.public[watched{int32(wd), filepath.Base(name)}] = name
	}
	return w, nil
}

// end stops watching and returns what was seen. The kernel keeps 16,384 events
// at least (fs.inotify.max_queued_events), so they can be read afterwards.
func (w *watch) end() seen {
	defer unix.Close(w.fd)
	var s seen
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(w.fd, buf)
		if err != nil || n <= 0 {
			return s
		}
		w.count(&s, buf[:n])
	}
}

// count adds the events that are of public names. Of an exchange the kernel
// tells as of two renames, first that the name has come and then that it has
// gone: that is one change.
func (w *watch) count(s *seen, events []byte) {
	for len(events) >= unix.SizeofInotifyEvent {
		// struct inotify_event: wd, mask, cookie, len, name
		wd := int32(binary.NativeEndian.Uint32(events))
		mask := binary.NativeEndian.Uint32(events[4:])
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
		at := watched{wd, unix.ByteSliceToString(events[unix.SizeofInotifyEvent:end])}
		events = events[end:]
		name := w.public[at]
		if name == "" {
			continue
		}
		if mask&unix.IN_MOVED_FROM == 0 || at != w.came {
			if s.changes++; s.changes == 1 {
				s.first = name
			}
			s.last = name
		}
		w.came = watched{}
		if mask&unix.IN_MOVED_TO != 0 {
			w.came = at
		}
	}
}

// gaze looks at two names, without a pause and without a watch that would slow
// down whoever changes them: at the first until another inode is there, then at
// the last. It has a thread of its own, bound to a processor that the watched
// program does not use.
//
// What it says is never less than the truth: it counts from the beginning of the
// last look that still saw the old inode of the first name to the end of the
// look that saw the new one of the last. On a quiet machine a look takes a
// microsecond.
type gaze struct {
	stop chan struct{}
	long chan time.Duration // 0 if not both have changed
}

func newGaze(cpu int, first, last string) (*gaze, error) {
	g := &gaze{make(chan struct{}), make(chan time.Duration, 1)}
	began := time.Now()
	a, err := newGlance(first)
	if err != nil {
		return nil, err
	}
	b, err := newGlance(last)
	if err != nil {
		a.close()
		return nil, err
	}
	go func() {
		defer a.close()
		defer b.close()
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		var one unix.CPUSet
		one.Set(cpu)
		// without these it is less exact, that is all
		_ = unix.SchedSetaffinity(0, &one)
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, -20)
		g.long <- g.look(a, b, began)
	}()
	return g, nil
}

// look is given when the first look began that saw the old inode.
func (g *gaze) look(a, b *glance, old time.Time) time.Duration {
	for {
		now := time.Now()
		if a.changed() {
			break
		}
		old = now
		if g.stopped() {
			return 0
		}
	}
	for !b.changed() {
		if g.stopped() {
			return 0
		}
	}
	return time.Since(old)
}

func (g *gaze) stopped() bool {
	select {
	case <-g.stop:
		return true
	default:
		return false
	}
}

// end stops looking and returns how long it was from the first to the last.
func (g *gaze) end() time.Duration {
	close(g.stop)
	return <-g.long
}

// glance tells whether a name has another inode than at first.
type glance struct {
	dir  int
	name string
	ino  uint64
}

func newGlance(name string) (*glance, error) {
	dir, err := unix.Open(filepath.Dir(name), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: filepath.Dir(name), Err: err}
	}
	g := &glance{dir: dir, name: filepath.Base(name)}
	g.ino = g.inode()
	return g, nil
}

func (g *glance) inode() uint64 {
	var st unix.Stat_t
	if unix.Fstatat(g.dir, g.name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return 0 // gone: that is a change too
	}
	return st.Ino
}

func (g *glance) changed() bool { return g.inode() != g.ino }

func (g *glance) close() { unix.Close(g.dir) }
